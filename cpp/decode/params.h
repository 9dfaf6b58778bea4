// SPDX-License-Identifier: Apache-2.0
// A row's parameters in the manifest's "decode": every key is optional, has a default and a range;
// an unknown one is an error. Opening only.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace posewire {

class Params {
 public:
  // `decode` is the manifest's object (or null: all defaults). Its "algorithm" is not ours.
  explicit Params(const nlohmann::json& decode);

  // The value, or `fallback` where the key is absent. Throw Error(kBundle) with "decode.<key>" for
  // a value of another type or outside [low, high].
  float number(const char* key, float fallback, float low, float high);
  int integer(const char* key, int fallback, int low, int high);
  std::optional<bool> boolean(const char* key);
  // The index among `names` of the string that stands there.
  std::size_t choice(const char* key, std::size_t fallback,
                     std::initializer_list<const char*> names);
  // An array that holds each of 0 … count - 1 once; 0, 1, 2 … where the key is absent.
  std::vector<int> permutation(const char* key, int count);
  // An array of pairs of different integers, each in 0 … high.
  std::optional<std::vector<std::pair<int, int>>> pairs(const char* key, int high);

  // Throws Error(kBundle) naming the first key that nobody asked for, and the known ones.
  void done() const;

 private:
  const nlohmann::json* find(const char* key);

  const nlohmann::json& decode_;
  std::vector<std::string> known_;
};

}  // namespace posewire

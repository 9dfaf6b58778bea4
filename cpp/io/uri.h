// SPDX-License-Identifier: Apache-2.0
// A source's address taken apart: "scheme:rest", and for our own schemes "rest?key=value&…".
#pragma once

#include <map>
#include <string>
#include <vector>

namespace posewire {

// "synthetic:?people=5" -> "synthetic"; "clip.mp4" and "./a:b.mp4" -> "". Lower case.
std::string scheme_of(const std::string& uri);

// Everything behind "scheme:"; the whole text when it has no scheme.
std::string rest_of(const std::string& uri);

// Behind "file:": "a.mp4", "/a.mp4", "///a.mp4" (an empty host) -> a path, taken literally.
// Throws Error(kConfig) for a host.
std::string path_of(const std::string& uri);

// What errors are about. "camera door", or nothing when the source has no name.
std::string camera_place(const std::string& camera);
// The same with the address, without its credentials: "camera door: synthetic:?x=1".
std::string address_place(const std::string& camera, const std::string& uri);
// "<where>: <what>", or only what.
std::string sentence(const std::string& where, const std::string& what);

// The numbers behind '?'. Every key must be taken once; the rest is an error that names the key.
class Query {
 public:
  Query(const std::string& rest, std::string where);  // throws Error(kConfig)

  const std::string& path() const noexcept { return path_; }  // what stands before '?'
  // Throws Error(kConfig) naming the key when the value is no number or outside [low, high].
  double number(const std::string& key, double otherwise, double low, double high);
  int integer(const std::string& key, int otherwise, int low, int high);
  void done() const;  // throws Error(kConfig) for a key that nobody took, listing the known ones

 private:
  std::string where_, path_;
  std::map<std::string, std::string> values_;
  std::vector<std::string> known_;
};

}  // namespace posewire

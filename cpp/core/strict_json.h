// SPDX-License-Identifier: Apache-2.0
// Strict JSON, and a cursor over it whose every check ends in a typed value or an Error that names
// the file and the key: "x/manifest.json: outputs[1].stride: must be a positive integer".
// posewire/strict_json.py is its Python twin and words its messages alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"

namespace posewire {

// UTF-8, no key twice in one object, no NaN, nested at most 32 deep. Throws Error(code).
nlohmann::json parse_json(const std::string& text, const std::string& file, Code code);

// A JSON value and where it stands. Refers to the value: the document must outlive it.
class At {
 public:
  At(const nlohmann::json& value, const std::string& file, Code code, std::string path = "")
      : value_(&value), file_(&file), code_(code), path_(std::move(path)) {}

  [[noreturn]] void fail(const std::string& what) const;

  // An object with all of `required` and, besides them, nothing but `optional`.
  void object(std::initializer_list<const char*> required,
              std::initializer_list<const char*> optional = {}) const;
  const nlohmann::json& mapping() const;  // any object
  bool has(const char* key) const { return value_->contains(key); }
  bool is_null() const { return value_->is_null(); }
  At operator[](const char* key) const;

  std::size_t items(std::size_t least, std::size_t most) const;  // a list's length, checked
  At item(std::size_t index) const;                              // after items()

  // Letters: which characters a string may have.
  std::string text(std::size_t most = 1024) const;  // any string of at most `most` bytes
  std::string word() const;                         // [A-Za-z0-9][A-Za-z0-9._+-]{0,63}
  std::string matching(const std::function<bool(const std::string&)>& valid,
                       const char* what) const;
  std::string choice(std::initializer_list<const char*> known) const;
  std::int64_t integer(std::int64_t least, std::int64_t most, const char* what) const;
  int positive(int most) const;
  double number(double least, double most, const char* what) const;
  double number() const;  // any finite number
  double above_zero() const;
  bool boolean() const;

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  Code code_;
  std::string path_;  // "" is the document itself
};

// Printable ASCII of bounded length, for messages about names that nobody has checked yet.
std::string shown(const std::string& text);

// 1 … most characters of a-z, A-Z, 0-9 and `signs`; the first is no sign.
bool is_word(const std::string& text, const char* signs, std::size_t most) noexcept;

}  // namespace posewire

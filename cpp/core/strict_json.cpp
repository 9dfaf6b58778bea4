// SPDX-License-Identifier: Apache-2.0
#include "core/strict_json.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

namespace posewire {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// "[json.exception.parse_error.101] parse error at line 1, …" without the library's own prefix.
std::string without_prefix(const std::string& what) {
  const std::size_t end = what.find("] ");
  return end == std::string::npos ? what : what.substr(end + 2);
}

std::string joined(std::initializer_list<const char*> one, std::initializer_list<const char*> two) {
  std::string result;
  for (const auto& list : {one, two}) {
    for (const char* name : list) {
      result += (result.empty() ? "" : ", ") + std::string(name);
    }
  }
  return result;
}

bool contains(std::initializer_list<const char*> list, const std::string& name) {
  return std::any_of(list.begin(), list.end(), [&](const char* item) { return name == item; });
}

std::string path_of(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

}  // namespace

json parse_json(const std::string& text, const std::string& file, Code code) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxDepth) {
      throw Error(code, file, "is nested deeper than " + std::to_string(kMaxDepth));
    }
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw Error(code, file, shown(key) + " appears twice in one object");
      }
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    throw Error(code, file, "not JSON: " + shown(without_prefix(error.what())));
  }
}

std::string shown(const std::string& text) {
  std::string result = text.substr(0, 200);
  for (char& c : result) {
    if (c < ' ' || c > '~') {
      c = '?';
    }
  }
  return result.size() < text.size() ? result + "..." : result;
}

bool is_word(const std::string& text, const char* signs, std::size_t most) noexcept {
  if (text.empty() || text.size() > most || !(is_letter(text[0]) || is_digit(text[0]))) {
    return false;
  }
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_letter(c) || is_digit(c) || (c != '\0' && std::strchr(signs, c) != nullptr);
  });
}

void At::fail(const std::string& what) const {
  throw Error(code_, path_.empty() ? *file_ : *file_ + ": " + path_, what);
}

void At::object(std::initializer_list<const char*> required,
                std::initializer_list<const char*> optional) const {
  for (const auto& entry : mapping().items()) {
    if (!contains(required, entry.key()) && !contains(optional, entry.key())) {
      At(*value_, *file_, code_, path_of(path_, shown(entry.key())))
          .fail("unknown key; known are " + joined(required, optional));
    }
  }
  for (const char* key : required) {
    if (!has(key)) {
      At(*value_, *file_, code_, path_of(path_, key)).fail("is missing");
    }
  }
}

const json& At::mapping() const {
  if (!value_->is_object()) {
    fail("must be an object");
  }
  return *value_;
}

At At::operator[](const char* key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) {
    At(*value_, *file_, code_, path_of(path_, key)).fail("is missing");
  }
  return {*found, *file_, code_, path_of(path_, key)};
}

std::size_t At::items(std::size_t least, std::size_t most) const {
  if (!value_->is_array()) {
    fail("must be a list");
  }
  if (value_->size() < least) {
    fail(least == 1 ? "must not be empty" : "must have " + std::to_string(least) + " entries");
  }
  if (value_->size() > most) {
    fail("must have at most " + std::to_string(most) + " entries");
  }
  return value_->size();
}

At At::item(std::size_t index) const {
  return {(*value_)[index], *file_, code_, path_ + "[" + std::to_string(index) + "]"};
}

std::string At::text(std::size_t most) const {
  if (!value_->is_string()) {
    fail("must be a string");
  }
  const auto& text = value_->get_ref<const std::string&>();
  if (text.size() > most) {
    fail("must be at most " + std::to_string(most) + " bytes long");
  }
  if (text.find('\0') != std::string::npos) {
    fail("must not hold a zero byte");
  }
  return text;
}

std::string At::matching(const std::function<bool(const std::string&)>& valid,
                         const char* what) const {
  std::string result = text();
  if (!valid(result)) {
    fail(what);
  }
  return result;
}

std::string At::word() const {
  return matching([](const std::string& s) { return is_word(s, "._+-", 64); },
                  "must be 1 to 64 of A-Z, a-z, 0-9, . _ + -, no leading sign");
}

std::string At::choice(std::initializer_list<const char*> known) const {
  if (!value_->is_string() || !contains(known, value_->get_ref<const std::string&>())) {
    fail("must be one of " + joined(known, {}) + ", not " +
         shown(value_->dump(-1, ' ', true, json::error_handler_t::replace)));
  }
  return value_->get<std::string>();
}

std::int64_t At::integer(std::int64_t least, std::int64_t most, const char* what) const {
  // An unsigned number beyond int64's range is too large whatever `most` is.
  const bool huge = value_->is_number_unsigned() && value_->get<std::uint64_t>() > INT64_MAX;
  if (!value_->is_number_integer() || (!huge && value_->get<std::int64_t>() < least)) {
    fail(std::string("must be ") + what);
  }
  if (huge || value_->get<std::int64_t>() > most) {
    fail(std::string("must be ") + what + " up to " + std::to_string(most));
  }
  return value_->get<std::int64_t>();
}

int At::positive(int most) const {
  return static_cast<int>(integer(1, most, "a positive integer"));
}

double At::number(double least, double most, const char* what) const {
  const double value = number();
  if (value < least || value > most) {
    fail(std::string("must be ") + what);
  }
  return value;
}

double At::number() const {
  if (!value_->is_number()) {
    fail("must be a number");
  }
  const auto value = value_->get<double>();
  if (!std::isfinite(value)) {
    fail("must be a finite number");
  }
  return value;
}

double At::above_zero() const {
  const double value = number();
  if (value <= 0) {
    fail("must be above 0");
  }
  return value;
}

bool At::boolean() const {
  if (!value_->is_boolean()) {
    fail("must be true or false");
  }
  return value_->get<bool>();
}

}  // namespace posewire

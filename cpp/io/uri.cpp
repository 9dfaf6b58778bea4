// SPDX-License-Identifier: Apache-2.0
#include "io/uri.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace posewire {

std::string scheme_of(const std::string& uri) {
  const std::size_t colon = uri.find(':');
  if (colon == std::string::npos || colon == 0) {
    return "";
  }
  std::string scheme = uri.substr(0, colon);
  for (char& c : scheme) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) == 0 && c != '+' && c != '-') {
      return "";  // "./a:b", "some clip: take 2.mp4"
    }
    c = static_cast<char>(std::tolower(byte));
  }
  return scheme;
}

std::string rest_of(const std::string& uri) {
  return scheme_of(uri).empty() ? uri : uri.substr(uri.find(':') + 1);
}

std::string path_of(const std::string& uri) {
  std::string rest = rest_of(uri);
  if (scheme_of(uri).empty() || rest.compare(0, 2, "//") != 0) {
    return rest;
  }
  if (rest.size() < 3 || rest[2] != '/') {
    throw Error(Code::kConfig, uri, "a file has no host; write file:PATH");
  }
  return rest.substr(2);
}

std::string camera_place(const std::string& camera) {
  return camera.empty() ? "" : "camera " + camera;
}

std::string address_place(const std::string& camera, const std::string& uri) {
  return sentence(camera_place(camera), redacted(uri));
}

std::string sentence(const std::string& where, const std::string& what) {
  return where.empty() ? what : where + ": " + what;
}

Query::Query(const std::string& rest, std::string where) : where_(std::move(where)) {
  const std::size_t mark = rest.find('?');
  path_ = rest.substr(0, mark);
  if (mark == std::string::npos) {
    return;
  }
  for (std::size_t begin = mark + 1; begin < rest.size();) {
    const std::size_t end = std::min(rest.find('&', begin), rest.size());
    const std::string item = rest.substr(begin, end - begin);
    const std::size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error(Code::kConfig, where_, "\"" + item + "\" is not key=value");
    }
    if (!values_.emplace(item.substr(0, equals), item.substr(equals + 1)).second) {
      throw Error(Code::kConfig, where_, item.substr(0, equals) + " is given twice");
    }
    begin = end + 1;
  }
}

double Query::number(const std::string& key, double otherwise, double low, double high) {
  known_.push_back(key);
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return otherwise;
  }
  const std::string text = found->second;
  values_.erase(found);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value) || value < low || value > high) {
    throw Error(Code::kConfig, where_,
                key + "=" + text + ": must be a number from " + std::to_string(low) + " to " +
                    std::to_string(high));
  }
  return value;
}

int Query::integer(const std::string& key, int otherwise, int low, int high) {
  const double value = number(key, otherwise, low, high);
  if (value != std::floor(value)) {
    throw Error(Code::kConfig, where_, key + ": must be a whole number");
  }
  return static_cast<int>(value);
}

void Query::done() const {
  if (values_.empty()) {
    return;
  }
  std::string known;
  for (const std::string& key : known_) {
    known += (known.empty() ? "" : ", ") + key;
  }
  throw Error(Code::kConfig, where_,
              "unknown key \"" + values_.begin()->first + "\" (known: " + known + ")");
}

}  // namespace posewire

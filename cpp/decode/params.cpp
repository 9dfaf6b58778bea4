// SPDX-License-Identifier: Apache-2.0
#include "decode/params.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <sstream>

#include "core/error.h"

namespace posewire {
namespace {

std::string range_text(double low, double high) {
  std::ostringstream text;
  text << low << " … " << high;
  return text.str();
}

}  // namespace

Params::Params(const nlohmann::json& decode) : decode_(decode) {
  if (!decode.is_null() && !decode.is_object()) {
    throw Error(Code::kBundle, "decode", "must be an object");
  }
}

const nlohmann::json* Params::find(const char* key) {
  known_.emplace_back(key);
  if (decode_.is_null()) {
    return nullptr;
  }
  const auto found = decode_.find(key);
  return found == decode_.end() ? nullptr : &*found;
}

float Params::number(const char* key, float fallback, float low, float high) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return fallback;
  }
  // Compared as double: a huge literal is out of range, not an overflow; NaN cannot stand in JSON.
  if (!value->is_number() || !(value->get<double>() >= static_cast<double>(low)) ||
      !(value->get<double>() <= static_cast<double>(high))) {
    throw Error(Code::kBundle, std::string("decode.") + key,
                "must be a number in " + range_text(low, high));
  }
  return value->get<float>();
}

int Params::integer(const char* key, int fallback, int low, int high) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number_integer() || value->get<double>() < low || value->get<double>() > high) {
    throw Error(Code::kBundle, std::string("decode.") + key,
                "must be an integer in " + range_text(low, high));
  }
  return value->get<int>();
}

std::optional<bool> Params::boolean(const char* key) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    throw Error(Code::kBundle, std::string("decode.") + key, "must be true or false");
  }
  return value->get<bool>();
}

std::size_t Params::choice(const char* key, std::size_t fallback,
                           std::initializer_list<const char*> names) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return fallback;
  }
  std::string known;
  std::size_t index = 0;
  for (const char* name : names) {
    if (value->is_string() && value->get<std::string>() == name) {
      return index;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
    ++index;
  }
  throw Error(Code::kBundle, std::string("decode.") + key, "must be one of " + known);
}

std::vector<int> Params::permutation(const char* key, int count) {
  std::vector<int> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return order;
  }
  nlohmann::json sorted = *value;
  if (sorted.is_array()) {
    std::sort(sorted.begin(), sorted.end());
  }
  const auto integer = [](const nlohmann::json& item) { return item.is_number_integer(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), integer) ||
      sorted != nlohmann::json(order)) {
    throw Error(Code::kBundle, std::string("decode.") + key,
                "must be an array that holds each of 0 … " + std::to_string(count - 1) + " once");
  }
  return value->get<std::vector<int>>();
}

std::optional<std::vector<std::pair<int, int>>> Params::pairs(const char* key, int high) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto in_range = [high](const nlohmann::json& one) {
    return one.is_number_integer() && one.get<double>() >= 0 && one.get<double>() <= high;
  };
  std::vector<std::pair<int, int>> pairs;
  for (const nlohmann::json& pair : *value) {
    if (!value->is_array() || !pair.is_array() || pair.size() != 2 || !in_range(pair[0]) ||
        !in_range(pair[1]) || pair[0] == pair[1]) {
      pairs.clear();
      break;
    }
    pairs.emplace_back(pair[0].get<int>(), pair[1].get<int>());
  }
  if (pairs.empty()) {
    throw Error(Code::kBundle, std::string("decode.") + key,
                "must be an array of pairs of different integers in " + range_text(0, high));
  }
  return pairs;
}

void Params::done() const {
  if (decode_.is_null()) {
    return;
  }
  for (const auto& item : decode_.items()) {
    if (item.key() == "algorithm" ||
        std::find(known_.begin(), known_.end(), item.key()) != known_.end()) {
      continue;
    }
    std::string known;
    for (const std::string& key : known_) {
      known += (known.empty() ? "" : ", ") + key;
    }
    throw Error(Code::kBundle, "decode." + item.key(), "unknown key (known: " + known + ")");
  }
}

}  // namespace posewire

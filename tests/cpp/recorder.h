// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipeline/events.h"

namespace posewire {

// Collects events; any thread.
class Recorder final : public LineOut {
 public:
  bool write(const std::string& line) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_.push_back(nlohmann::json::parse(line));
    return true;
  }
  std::vector<nlohmann::json> of(const std::string& kind) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<nlohmann::json> found;
    for (const nlohmann::json& line : lines_) {
      if (line["event"] == kind) {
        found.push_back(line);
      }
    }
    return found;
  }
  std::vector<nlohmann::json> all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<nlohmann::json> lines_;
};

}  // namespace posewire

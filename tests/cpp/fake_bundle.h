// SPDX-License-Identifier: Apache-2.0
// A compiled bundle for the fake runtime in a fresh folder: three keypoints in a row, 64 x 48 in,
// maps of 8 x 6 cells. Its recording shows one upright person in every picture.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle/bundle.h"

namespace posewire {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = ::testing::TempDir() + "posewireXXXXXX";
    path_ = ::mkdtemp(pattern.data()) == nullptr ? "" : pattern;
    EXPECT_FALSE(path_.empty());
  }
  ~TempFolder() {
    const std::string command = "rm -rf '" + path_ + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name), std::ios::binary) << text;
    return file(name);
  }

 private:
  std::string path_;
};

// The maps of one picture with a person: keypoints in column 3, rows 1, 3 and 5; its centre of row
// r is y = 8 r + 3.5 in network pixels, x = 27.5.
inline std::string one_person() {
  constexpr int kWidth = 8, kHeight = 6;
  std::vector<float> values(static_cast<std::size_t>(3 + 4) * kWidth * kHeight, 0.0F);
  const auto at = [&values](int channel, int y, int x) -> float& {
    return values[static_cast<std::size_t>((channel * kHeight + y) * kWidth + x)];
  };
  for (int k = 0; k < 3; ++k) {
    at(k, 1 + 2 * k, 3) = 0.9F;
    at(k, 1 + 2 * k, 2) = at(k, 1 + 2 * k, 4) = at(k, 2 * k, 3) = 0.4F;
    if (k < 2) {
      at(k, 2 + 2 * k, 3) = 0.4F;
    }
  }
  for (int y = 1; y <= 3; ++y) {
    at(3 + 1, y, 3) = 1.0F;      // limb 0, y
    at(3 + 3, y + 2, 3) = 1.0F;  // limb 1, y
  }
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// `parameters`: of the fake runtime (infer/fake.cpp). Returns the bundle's folder.
inline std::string write_fake_bundle(const TempFolder& folder,
                                     const nlohmann::json& parameters = {{"schema", 1}},
                                     int max_batch = 4) {
  using nlohmann::json;
  const std::string name = "bundle" + std::to_string(std::rand());
  EXPECT_EQ(std::system(("mkdir '" + folder.file(name) + "'").c_str()), 0);
  json manifest = {{"schema", 1},
                   {"name", "fake-net"},
                   {"version", "1.2"},
                   {"mode", "bottom_up"},
                   {"skeleton",
                    {{"name", "column3"},
                     {"keypoints", {"head", "chest", "feet"}},
                     {"limbs", {{0, 1}, {1, 2}}},
                     {"flips", {0, 1, 2}},
                     {"sigmas", {0.1, 0.1, 0.1}}}},
                   {"input",
                    {{"name", "image"},
                     {"width", 64},
                     {"height", 48},
                     {"channels", "RGB"},
                     {"resize", "letterbox"}}},
                   {"outputs",
                    {{{"name", "heatmaps"}, {"channels", 3}, {"stride", 8}},
                     {{"name", "pafs"}, {"channels", 4}, {"stride", 8}}}},
                   {"decode", {{"algorithm", "paf"}, {"background", false}}},
                   {"target",
                    {{"name", "fake"},
                     {"runtime", "fake"},
                     {"runtime_version", "1"},
                     {"device", ""},
                     {"precision", "fp32"},
                     {"max_batch", max_batch}}},
                   {"gate", nullptr},
                   {"accuracy", json::array()},
                   {"training", json::object()},
                   {"derived_from", nullptr},
                   {"files", json::object()}};
  json tensors = json::array();
  for (const char* output : {"heatmaps", "pafs"}) {
    tensors.push_back({{"name", output}, {"layout", "NCHW"}, {"dtype", "float32"}});
  }
  manifest["artifacts"] = json::array({{{"files", {"fake.json", "maps.bin"}},
                                        {"format", "fake"},
                                        {"precision", "fp32"},
                                        {"input", {{"layout", "NHWC"}, {"dtype", "uint8"}}},
                                        {"outputs", tensors}}});
  for (const auto& [file, bytes] :
       {std::pair<std::string, std::string>{"fake.json", parameters.dump()},
        {"maps.bin", one_person()}}) {
    folder.write(name + "/" + file, bytes);
    manifest["files"][file] = {{"sha256", sha256_of(bytes.data(), bytes.size())},
                               {"bytes", bytes.size()}};
  }
  folder.write(name + "/manifest.json", manifest.dump(1));
  return folder.file(name);
}

// engine.json's content with the given sources, publishing as events.
inline nlohmann::json engine_config(const std::string& bundle, const nlohmann::json& sources) {
  return {{"schema", 1}, {"node", "n1"}, {"bundle", bundle}, {"sources", sources}};
}

}  // namespace posewire

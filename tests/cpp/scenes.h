// SPDX-License-Identifier: Apache-2.0
// Random people and the maps a perfect network would give for them: the tests' own renderer.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "bundle/manifest.h"
#include "core/pose.h"
#include "core/skeleton.h"

namespace posewire::test {

struct Spot {
  float x = 0.0F, y = 0.0F;  // cells
  bool there = false;
};
using Person = std::vector<Spot>;  // K spots

struct Scene {
  int height = 0, width = 0;  // cells
  std::vector<Person> people;
};

Skeleton read_skeleton(const std::string& path);

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  float uniform(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  float normal() { return std::normal_distribution<float>()(engine_); }
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(engine_); }

 private:
  std::mt19937 engine_;
};

// `count` people of about `size` cells' height; keypoints of one type are at least `apart` cells
// from one another (nearer ones are one blob to any network). Fewer people if no room is found.
Scene draw_scene(const Skeleton& skeleton, int height, int width, int count, float size,
                 Random* random, float apart = 3.0F);

// Planes in NCHW order, float32.
struct Maps {
  int heatmap_channels = 0, field_channels = 0;
  std::vector<float> heatmaps, fields;
};

// Heatmaps: Gaussians of one cell, the maximum over people, and 1 - max as the background. Fields:
// the limb's unit vector within one cell of it (perpendicular and beyond its ends), averaged where
// people overlap.
Maps render(const Skeleton& skeleton, const Scene& scene, bool background,
            float heatmap_noise = 0.0F, float field_noise = 0.0F, Random* random = nullptr);

// A partial manifest for paf with its outputs at `stride`.
Manifest paf_manifest(const Skeleton& skeleton, int height, int width, int stride, bool background,
                      nlohmann::json decode = nlohmann::json::object());

// How found people agree with the true ones, summed over scenes.
struct Agreement {
  int truth = 0, found = 0, matched = 0;  // keypoints; matched: within one cell, right person
  int people = 0, people_found = 0;
  double error = 0.0;  // of the matched, cells

  double recall() const { return truth == 0 ? 1.0 : static_cast<double>(matched) / truth; }
  double precision() const { return found == 0 ? 1.0 : static_cast<double>(matched) / found; }
  double mean_error() const { return matched == 0 ? 0.0 : error / matched; }

  // One-to-one, greedily by the number of keypoints within one cell.
  void add(const Scene& scene, const Poses& poses, int stride);
};

}  // namespace posewire::test

// SPDX-License-Identifier: Apache-2.0
#include "scenes.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <utility>

namespace posewire::test {
namespace {

// A standing body of height 1, x to the person's left; empty for a keypoint no body here has.
const std::map<std::string, std::pair<float, float>>& body() {
  static const std::map<std::string, std::pair<float, float>> spots = {
      {"nose", {0.0F, 0.08F}},           {"neck", {0.0F, 0.18F}},
      {"left_eye", {0.03F, 0.06F}},      {"right_eye", {-0.03F, 0.06F}},
      {"left_ear", {0.06F, 0.07F}},      {"right_ear", {-0.06F, 0.07F}},
      {"left_shoulder", {0.12F, 0.19F}}, {"right_shoulder", {-0.12F, 0.19F}},
      {"left_elbow", {0.18F, 0.35F}},    {"right_elbow", {-0.18F, 0.35F}},
      {"left_wrist", {0.2F, 0.5F}},      {"right_wrist", {-0.2F, 0.5F}},
      {"left_hip", {0.08F, 0.52F}},      {"right_hip", {-0.08F, 0.52F}},
      {"left_knee", {0.09F, 0.75F}},     {"right_knee", {-0.09F, 0.75F}},
      {"left_ankle", {0.1F, 0.97F}},     {"right_ankle", {-0.1F, 0.97F}},
      {"head_top", {0.0F, 0.0F}},        {"thorax", {0.0F, 0.22F}},
      {"pelvis", {0.0F, 0.52F}},         {"mid_hip", {0.0F, 0.52F}},
  };
  return spots;
}

bool inside(const Scene& scene, float x, float y) {
  return x >= 0.0F && y >= 0.0F && x <= static_cast<float>(scene.width - 1) &&
         y <= static_cast<float>(scene.height - 1);
}

// Keypoints without a place in body() grow from their neighbours along the limbs.
bool draw_person(const Skeleton& skeleton, const Scene& scene, float size, Random* random,
                 Person* person) {
  const std::size_t count = skeleton.keypoints.size();
  person->assign(count, {});
  const float turn = 0.25F * random->normal();
  const float cx = random->uniform(0.0F, static_cast<float>(scene.width));
  const float cy = random->uniform(0.0F, static_cast<float>(scene.height));
  for (std::size_t k = 0; k < count; ++k) {
    const auto spot = body().find(skeleton.keypoints[k]);
    if (spot == body().end()) {
      continue;
    }
    const float x = size * (spot->second.first + 0.03F * random->normal());
    const float y = size * (spot->second.second - 0.5F + 0.03F * random->normal());
    (*person)[k] = {cx + x * std::cos(turn) - y * std::sin(turn),
                    cy + x * std::sin(turn) + y * std::cos(turn), true};
  }
  if (std::none_of(person->begin(), person->end(), [](const Spot& s) { return s.there; })) {
    (*person)[0] = {cx, cy, true};
  }
  for (std::size_t round = 0; round < count; ++round) {
    for (const auto& [a, b] : skeleton.limbs) {
      Spot& first = (*person)[static_cast<std::size_t>(a)];
      Spot& second = (*person)[static_cast<std::size_t>(b)];
      if (first.there == second.there) {
        continue;
      }
      const Spot& from = first.there ? first : second;
      Spot& to = first.there ? second : first;
      for (int attempt = 0; attempt < 50 && !to.there; ++attempt) {
        const float angle = random->uniform(0.0F, 6.2831853F);
        const float length = random->uniform(1.5F, 4.0F);
        const float x = from.x + length * std::cos(angle), y = from.y + length * std::sin(angle);
        if (inside(scene, x, y)) {
          to = {x, y, true};
        }
      }
    }
  }
  return std::all_of(person->begin(), person->end(), [&scene](const Spot& spot) {
    return spot.there && inside(scene, spot.x, spot.y);
  });
}

}  // namespace

Skeleton read_skeleton(const std::string& path) {
  std::ifstream file(path);
  const nlohmann::json json = nlohmann::json::parse(file);
  Skeleton skeleton;
  skeleton.name = json.at("name").get<std::string>();
  skeleton.keypoints = json.at("keypoints").get<std::vector<std::string>>();
  skeleton.limbs = json.at("limbs").get<std::vector<std::pair<int, int>>>();
  skeleton.flips = json.at("flips").get<std::vector<int>>();
  skeleton.sigmas = json.at("sigmas").get<std::vector<float>>();
  return skeleton;
}

Scene draw_scene(const Skeleton& skeleton, int height, int width, int count, float size,
                 Random* random, float apart) {
  Scene scene{height, width, {}};
  Person person;
  for (int attempt = 0; attempt < 20000 && static_cast<int>(scene.people.size()) < count;
       ++attempt) {
    const float scale = size * random->uniform(0.7F, 1.3F);
    if (!draw_person(skeleton, scene, scale, random, &person)) {
      continue;
    }
    const bool free =
        std::all_of(scene.people.begin(), scene.people.end(), [&](const Person& other) {
          for (std::size_t k = 0; k < person.size(); ++k) {
            if (std::hypot(person[k].x - other[k].x, person[k].y - other[k].y) < apart) {
              return false;
            }
          }
          return true;
        });
    if (free) {
      scene.people.push_back(person);
    }
  }
  return scene;
}

Maps render(const Skeleton& skeleton, const Scene& scene, bool background, float heatmap_noise,
            float field_noise, Random* random) {
  const auto plane = static_cast<std::size_t>(scene.height * scene.width);
  const std::size_t count = skeleton.keypoints.size(), limbs = skeleton.limbs.size();
  Maps maps;
  maps.heatmap_channels = static_cast<int>(count) + (background ? 1 : 0);
  maps.field_channels = static_cast<int>(2 * limbs);
  maps.heatmaps.assign(plane * (count + (background ? 1 : 0)), 0.0F);
  maps.fields.assign(plane * 2 * limbs, 0.0F);
  std::vector<int> hits(plane);
  for (std::size_t i = 0; i < plane; ++i) {
    const auto cx = static_cast<float>(i % static_cast<std::size_t>(scene.width));
    const auto cy = static_cast<float>(i / static_cast<std::size_t>(scene.width));
    float highest = 0.0F;
    for (std::size_t k = 0; k < count; ++k) {
      float& value = maps.heatmaps[k * plane + i];
      for (const Person& person : scene.people) {
        const float dx = person[k].x - cx, dy = person[k].y - cy;
        if (person[k].there) {
          value = std::max(value, std::exp(-0.5F * (dx * dx + dy * dy)));
        }
      }
      highest = std::max(highest, value);
    }
    if (background) {
      maps.heatmaps[count * plane + i] = 1.0F - highest;
    }
    for (std::size_t l = 0; l < limbs; ++l) {
      float sum_x = 0.0F, sum_y = 0.0F, n = 0.0F;
      for (const Person& person : scene.people) {
        const Spot& a = person[static_cast<std::size_t>(skeleton.limbs[l].first)];
        const Spot& b = person[static_cast<std::size_t>(skeleton.limbs[l].second)];
        const float dx = b.x - a.x, dy = b.y - a.y, length = std::hypot(dx, dy);
        if (!a.there || !b.there || length < 1e-3F) {
          continue;
        }
        const float along = ((cx - a.x) * dx + (cy - a.y) * dy) / length;
        const float across = ((cx - a.x) * dy - (cy - a.y) * dx) / length;
        if (std::abs(across) <= 1.0F && along >= -1.0F && along <= length + 1.0F) {
          sum_x += dx / length;
          sum_y += dy / length;
          n += 1.0F;
        }
      }
      maps.fields[2 * l * plane + i] = n > 0.0F ? sum_x / n : 0.0F;
      maps.fields[(2 * l + 1) * plane + i] = n > 0.0F ? sum_y / n : 0.0F;
    }
  }
  if (random != nullptr) {
    for (float& value : maps.heatmaps) {
      value += heatmap_noise * random->normal();
    }
    for (float& value : maps.fields) {
      value += field_noise * random->normal();
    }
  }
  return maps;
}

Manifest paf_manifest(const Skeleton& skeleton, int height, int width, int stride, bool background,
                      nlohmann::json decode) {
  Manifest manifest;
  manifest.skeleton = skeleton;
  manifest.input_width = width * stride;
  manifest.input_height = height * stride;
  manifest.outputs = {
      {"heatmaps", skeleton.count() + (background ? 1 : 0), stride},
      {"pafs", 2 * static_cast<int>(skeleton.limbs.size()), stride},
  };
  manifest.algorithm = "paf";
  manifest.decode = std::move(decode);
  return manifest;
}

void Agreement::add(const Scene& scene, const Poses& poses, int stride) {
  struct Pair {
    int matched, person, pose;
    double error;
  };
  const float scale = static_cast<float>(stride), shift = 0.5F * (scale - 1.0F);
  std::vector<Pair> pairs;
  for (std::size_t p = 0; p < scene.people.size(); ++p) {
    for (const Spot& spot : scene.people[p]) {
      truth += spot.there ? 1 : 0;
    }
    for (int q = 0; q < poses.size(); ++q) {
      Pair pair{0, static_cast<int>(p), q, 0.0};
      for (std::size_t k = 0; k < scene.people[p].size(); ++k) {
        const Spot& spot = scene.people[p][k];
        const Keypoint& point = poses.keypoints_of(q)[k];
        const double off =
            std::hypot((point.x - shift) / scale - spot.x, (point.y - shift) / scale - spot.y);
        if (spot.there && point.score > 0.0F && off <= 1.0) {
          ++pair.matched;
          pair.error += off;
        }
      }
      pairs.push_back(pair);
    }
  }
  for (int q = 0; q < poses.size(); ++q) {
    for (int k = 0; k < poses.keypoints_per_person(); ++k) {
      found += poses.keypoints_of(q)[k].score > 0.0F ? 1 : 0;
    }
  }
  people += static_cast<int>(scene.people.size());
  people_found += poses.size();
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& l, const Pair& r) { return l.matched > r.matched; });
  std::vector<bool> taken(scene.people.size()), used(static_cast<std::size_t>(poses.size()));
  for (const Pair& pair : pairs) {
    if (taken[static_cast<std::size_t>(pair.person)] || used[static_cast<std::size_t>(pair.pose)]) {
      continue;
    }
    taken[static_cast<std::size_t>(pair.person)] = used[static_cast<std::size_t>(pair.pose)] = true;
    matched += pair.matched;
    error += pair.error;
  }
}

}  // namespace posewire::test

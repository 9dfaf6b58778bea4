// SPDX-License-Identifier: Apache-2.0
#include "bundle/manifest_skeleton.h"

#include <algorithm>

namespace posewire {
namespace {

constexpr std::size_t kMaxKeypoints = 1024;
constexpr std::size_t kMaxLimbs = 4096;

std::string keypoint_word(const At& at) {
  return at.matching(
      [](const std::string& s) {
        return !s.empty() && s.size() <= 64 &&
               s.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
      },
      "must be 1 to 64 of a-z, 0-9, _");
}

int index(const At& at, int count, const std::string& what) {
  return static_cast<int>(at.integer(0, count - 1, what.c_str()));
}

// Exactly one entry per keypoint.
void per_keypoint(const At& at, int count) {
  const std::size_t entries = at.items(0, kMaxKeypoints);
  if (entries != static_cast<std::size_t>(count)) {
    at.fail("must have " + std::to_string(count) + " entries, one per keypoint, not " +
            std::to_string(entries));
  }
}

void parse_limbs(const At& at, Skeleton* skeleton) {
  const std::string range = "a keypoint index of 0.." + std::to_string(skeleton->count() - 1);
  const std::size_t count = at.items(0, kMaxLimbs);
  for (std::size_t i = 0; i < count; ++i) {
    const At limb = at.item(i);
    if (limb.items(0, kMaxLimbs) != 2) {
      limb.fail("must be a pair of keypoint indices");
    }
    const int a = index(limb.item(0), skeleton->count(), range);
    const int b = index(limb.item(1), skeleton->count(), range);
    if (a == b) {
      limb.fail("must join two different keypoints");
    }
    for (const auto& [c, d] : skeleton->limbs) {
      if ((a == c && b == d) || (a == d && b == c)) {
        limb.fail("appears twice");
      }
    }
    skeleton->limbs.emplace_back(a, b);
  }
}

void parse_flips(const At& at, Skeleton* skeleton) {
  const int count = skeleton->count();
  per_keypoint(at, count);
  const std::string range = "a keypoint index of 0.." + std::to_string(count - 1);
  for (int i = 0; i < count; ++i) {
    skeleton->flips.push_back(index(at.item(static_cast<std::size_t>(i)), count, range));
  }
  for (int i = 0; i < count; ++i) {
    const int other = skeleton->flips[static_cast<std::size_t>(i)];
    if (skeleton->flips[static_cast<std::size_t>(other)] != i) {
      at.item(static_cast<std::size_t>(i))
          .fail("mirrored twice must lead back to " + std::to_string(i));
    }
  }
}

}  // namespace

Skeleton parse_skeleton(const At& at) {
  at.object({"name", "keypoints", "limbs", "flips", "sigmas"});
  Skeleton skeleton;
  skeleton.name = keypoint_word(at["name"]);
  const At names = at["keypoints"];
  const std::size_t count = names.items(1, kMaxKeypoints);
  for (std::size_t i = 0; i < count; ++i) {
    std::string name = keypoint_word(names.item(i));
    if (std::count(skeleton.keypoints.begin(), skeleton.keypoints.end(), name) != 0) {
      names.item(i).fail(name + " appears twice");
    }
    skeleton.keypoints.push_back(std::move(name));
  }
  parse_limbs(at["limbs"], &skeleton);
  parse_flips(at["flips"], &skeleton);
  const At sigmas = at["sigmas"];
  per_keypoint(sigmas, skeleton.count());
  for (std::size_t i = 0; i < count; ++i) {
    const double sigma = sigmas.item(i).number();
    if (sigma <= 0 || sigma > 1) {
      sigmas.item(i).fail("must be a number above 0 and at most 1");
    }
    skeleton.sigmas.push_back(static_cast<float>(sigma));
  }
  return skeleton;
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// Decoding time per frame of paf at 46 x 54 cells, body18: percentiles of one thread's CPU time,
// scenes interleaved (a repeated frame flatters the branch predictor and the caches). On a machine
// with other work the tenth percentile is nearer to the decoder's own time than the median.
#include <time.h>

#include <cstdio>
#include <cstdlib>

#include "decode/rows.h"
#include "scenes.h"

namespace posewire::test {
namespace {

double thread_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

void bench(const Kernels& kernels, int rounds) {
  constexpr int kHeight = 46, kWidth = 54, kStride = 8, kScenes = 8;
  const Skeleton skeleton = read_skeleton(std::string(POSEWIRE_SKELETONS) + "/body18.json");
  const auto decoder = open_paf(paf_manifest(skeleton, kHeight, kWidth, kStride, true), kernels);
  const auto scratch = decoder->make_scratch();
  const std::pair<int, float> sizes[] = {{0, 0.0F},   {1, 33.0F},  {5, 23.0F},
                                         {10, 19.0F}, {20, 15.0F}, {30, 13.0F}};
  struct Frame {
    Maps maps;
    std::vector<MapView> views;
    Scene scene;
  };
  Random random(1);
  std::vector<std::vector<Frame>> frames(std::size(sizes));
  for (std::size_t n = 0; n < std::size(sizes); ++n) {
    for (int i = 0; i < kScenes; ++i) {
      Frame frame;
      frame.scene = draw_scene(skeleton, kHeight, kWidth, sizes[n].first, sizes[n].second, &random);
      frame.maps = render(skeleton, frame.scene, true, 0.01F, 0.02F, &random);
      frames[n].push_back(std::move(frame));
      Frame& kept = frames[n].back();
      kept.views = {dense_map(kept.maps.heatmaps.data(), DType::kFloat32, Layout::kNCHW,
                              kept.maps.heatmap_channels, kHeight, kWidth),
                    dense_map(kept.maps.fields.data(), DType::kFloat32, Layout::kNCHW,
                              kept.maps.field_channels, kHeight, kWidth)};
    }
  }
  std::vector<std::vector<double>> times(std::size(sizes));
  std::vector<Agreement> agreements(std::size(sizes));
  Poses poses;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < kScenes; ++i) {
      for (std::size_t n = 0; n < std::size(sizes); ++n) {
        Frame& frame = frames[n][static_cast<std::size_t>(i)];
        const double start = thread_us();
        decoder->decode(frame.views, scratch.get(), &poses);
        times[n].push_back(thread_us() - start);
        if (round == 0) {
          agreements[n].add(frame.scene, poses, kStride);
        }
      }
    }
  }
  for (std::size_t n = 0; n < std::size(sizes); ++n) {
    std::sort(times[n].begin(), times[n].end());
    std::printf(
        "%-8s %2d people: p10 %6.1f us, median %6.1f us, p99 %6.1f us, recall %.4f, precision "
        "%.4f, error %.3f "
        "cells, people %d of %d\n",
        kernels.name, sizes[n].first, times[n][times[n].size() / 10], times[n][times[n].size() / 2],
        times[n][times[n].size() * 99 / 100], agreements[n].recall(), agreements[n].precision(),
        agreements[n].mean_error(), agreements[n].people_found, agreements[n].people);
  }
}

}  // namespace
}  // namespace posewire::test

// decode_bench [ROUNDS [KERNELS]]
int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  for (const posewire::Kernels* kernels : posewire::available_kernels()) {
    if (argc < 3 || std::string(argv[2]) == kernels->name) {
      posewire::test::bench(*kernels, rounds);
    }
  }
}

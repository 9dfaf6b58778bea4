// SPDX-License-Identifier: Apache-2.0
// What every runtime must do, for each test program that has one to offer: it instantiates the
// suite Contract with its rows.
#pragma once

#include <utility>

#include "runtime_bundle.h"

namespace posewire {

struct ContractRow {
  std::string name;
  // A network of bundle_in's outputs, with this largest batch.
  std::function<Bundle(Folder* folder, int max_batch)> bundle;
  OpenRuntime open;
};
inline void PrintTo(const ContractRow& row, std::ostream* out) { *out << row.name; }

class Contract : public ::testing::TestWithParam<ContractRow> {};

TEST_P(Contract, SlotsAreIndependentAndBatchesKeepTheirOrder) {
  for (const int max_batch : {1, 3}) {
    Folder folder;
    const Bundle bundle = GetParam().bundle(&folder, max_batch);
    RuntimeOptions options;
    options.requests = 2;
    const auto runtime = GetParam().open(bundle, options);
    ASSERT_EQ(runtime->requests(), 2);
    ASSERT_EQ(runtime->max_batch(), max_batch);
    std::vector<std::vector<float>> first;
    for (int round = 0; round < 2; ++round) {
      for (int request = 0; request < 2; ++request) {
        for (int i = 0; i < max_batch; ++i) {
          fill(runtime.get(), request, i, 10 * (1 + request) + i);
        }
        ASSERT_TRUE(runtime->start(request, max_batch).ok());
      }
      std::vector<std::vector<float>> now;
      for (int request = 1; request >= 0; --request) {
        ASSERT_TRUE(runtime->wait(request).ok());
        for (int i = 0; i < max_batch; ++i) {
          std::vector<MapView> views;
          runtime->outputs(request, i, &views);
          ASSERT_EQ(views.size(), 2U);
          for (const MapView& view : views) {
            ASSERT_EQ(view.channels, 3);
            ASSERT_EQ(view.height, kHeight / kStride);
            ASSERT_EQ(view.width, kWidth / kStride);
            ASSERT_EQ(view.dtype, DType::kFloat32);
            const bool planes = bundle.manifest.artifacts[0].outputs[0].layout == Layout::kNCHW;
            ASSERT_EQ(view.channel_stride, planes ? static_cast<std::ptrdiff_t>(kCells) : 1);
            const float* data = static_cast<const float*>(view.data);
            now.emplace_back(data, data + 3 * kCells);
          }
        }
      }
      if (round == 0) {
        first = now;
      }
      EXPECT_EQ(now, first);  // the same pictures give the same maps
    }
    for (std::size_t i = 1; i < first.size(); ++i) {
      EXPECT_NE(first[i], first[i - 1]);  // different pictures do not
    }
  }
}

TEST_P(Contract, SmallerBatchesThanTheLargestWork) {
  Folder folder;
  const auto runtime = GetParam().open(GetParam().bundle(&folder, 4), {});
  EXPECT_GE(runtime->requests(), 1);
  std::vector<MapView> views;
  for (const int batch : {1, 4, 2, 1, 3}) {
    for (int i = 0; i < batch; ++i) {
      fill(runtime.get(), 0, i, 50 + i);
    }
    ASSERT_TRUE(runtime->start(0, batch).ok());
    ASSERT_TRUE(runtime->wait(0).ok());
    std::vector<float> values;
    for (int i = 0; i < batch; ++i) {
      runtime->outputs(0, i, &views);
      values.push_back(static_cast<const float*>(views[0].data)[5]);
    }
    for (std::size_t i = 1; i < values.size(); ++i) {
      EXPECT_NE(values[i], values[i - 1]);
    }
  }
}

TEST_P(Contract, RefusesBatchesOutOfRange) {
  Folder folder;
  const Bundle bundle = GetParam().bundle(&folder, 2);
  const auto runtime = GetParam().open(bundle, {});
  EXPECT_EQ(runtime->start(0, 0).code(), Code::kBug);
  EXPECT_EQ(runtime->start(0, 3).code(), Code::kBug);
  RuntimeOptions options;
  options.max_batch = 3;
  EXPECT_THAT(refusal_by(GetParam().open, bundle, Code::kConfig, options), HasSubstr("max_batch"));
  options.max_batch = 1;
  EXPECT_EQ(GetParam().open(bundle, options)->max_batch(), 1);
}

TEST_P(Contract, RefusesAnotherVersion) {
  Folder folder;
  Bundle bundle = GetParam().bundle(&folder, 1);
  bundle.manifest.target->runtime_version = "0.0.1-older";
  const std::string what = refusal_by(GetParam().open, bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("0.0.1-older"));
  EXPECT_THAT(what, HasSubstr("posewire compile"));
}

}  // namespace posewire

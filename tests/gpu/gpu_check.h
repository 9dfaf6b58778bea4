// SPDX-License-Identifier: Apache-2.0
// Between the parts of gpu_check: one JSON line per finding, and whether all were good.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace posewire::test {

inline int& failures() {
  static int count = 0;
  return count;
}

// `detail`: further members of the line, `"max_difference": 0`.
inline void finding(const std::string& check, bool good, const std::string& detail) {
  std::printf("{\"check\": \"%s\", \"ok\": %s%s%s}\n", check.c_str(), good ? "true" : "false",
              detail.empty() ? "" : ", ", detail.c_str());
  std::fflush(stdout);
  failures() += good ? 0 : 1;
}

inline void must(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    finding(what, false, std::string("\"error\": \"") + cudaGetErrorString(error) + "\"");
    std::exit(1);
  }
}

template <typename T>
T* on_device(const std::vector<T>& values) {
  T* memory = nullptr;
  must(cudaMalloc(reinterpret_cast<void**>(&memory), values.size() * sizeof(T)), "cudaMalloc");
  must(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
       "cudaMemcpy");
  return memory;
}

template <typename T>
std::vector<T> from_device(const T* memory, std::size_t count) {
  std::vector<T> values(count);
  must(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return values;
}

inline std::vector<std::uint8_t> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(count);
  for (std::uint8_t& value : bytes) {
    value = static_cast<std::uint8_t>(random() >> 24);
  }
  return bytes;
}

// Under a sanitizer a time means nothing: one round is enough.
inline bool& quick() {
  static bool on = false;
  return on;
}

// Median of the microseconds that one launch takes, on a stream that does nothing else.
template <typename Launch>
double microseconds(Launch launch) {
  const int rounds = quick() ? 1 : 21, each = quick() ? 1 : 20;
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  must(cudaEventCreate(&begin), "event");
  must(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int round = 0; round < rounds; ++round) {
    must(cudaEventRecord(begin, stream), "record");
    for (int i = 0; i < each; ++i) {
      must(launch(stream), "launch");
    }
    must(cudaEventRecord(end, stream), "record");
    must(cudaEventSynchronize(end), "synchronize");
    float ms = 0.0F;
    must(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    times.push_back(ms * 1000.0F / static_cast<float>(each));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void check_kernels();                        // kernels_check.cpp
void check_plugin(const std::string& file);  // plugin_check.cpp

}  // namespace posewire::test

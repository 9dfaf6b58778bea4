// SPDX-License-Identifier: Apache-2.0
// The few declarations of TensorRT that the plug-in uses, written from its public API reference, in
// the shape of 8.5 (-DPOSEWIRE_DECLARED_TENSORRT=805: 32-bit Dims, implicit batch), of 11.1 (=1101)
// or of TensorRT-RTX 1.6 (=1101 and POSEWIRE_TENSORRT_RTX). They serve to compile and test the
// plug-in where no TensorRT is. The order of the functions is ours: an object compiled with them
// must never meet the real library, and the plug-in sees to that (tensorrt/library.cpp).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#ifndef POSEWIRE_DECLARED_TENSORRT
#error "NvInfer.h is posewire's own declaration, for tests: say which version it stands for"
#endif

#ifdef POSEWIRE_TENSORRT_RTX
#define TRT_MAJOR_RTX 1
#define NV_TENSORRT_MAJOR 1
#define NV_TENSORRT_MINOR 6
#define NV_TENSORRT_PATCH 1
#else
#define NV_TENSORRT_MAJOR (POSEWIRE_DECLARED_TENSORRT / 100)
#define NV_TENSORRT_MINOR (POSEWIRE_DECLARED_TENSORRT % 100)
#define NV_TENSORRT_PATCH 0
#endif
#if POSEWIRE_DECLARED_TENSORRT < 1000
#define NV_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH)
#else
#define NV_TENSORRT_VERSION \
  (NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH)
#endif

namespace nvinfer1 {

enum class DataType : std::int32_t {
  kFLOAT = 0,
  kHALF = 1,
  kINT8 = 2,
  kINT32 = 3,
  kBOOL = 4,
  kUINT8 = 5,
};
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW2 = 1 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
#if POSEWIRE_DECLARED_TENSORRT < 1000
  std::int32_t d[MAX_DIMS];
#else
  std::int64_t d[MAX_DIMS];
#endif
};

class ILogger {
 public:
  enum class Severity : std::int32_t {
    kINTERNAL_ERROR = 0,
    kERROR = 1,
    kWARNING = 2,
    kINFO = 3,
    kVERBOSE = 4,
  };
  virtual void log(Severity severity, const char* message) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() noexcept = default;
  virtual bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept = 0;
  virtual bool setInputShape(const char* name, const Dims& dims) noexcept = 0;
  virtual bool setTensorAddress(const char* name, void* data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
#if POSEWIRE_DECLARED_TENSORRT < 1000
  virtual bool enqueue(std::int32_t batch, void* const* bindings, cudaStream_t stream,
                       cudaEvent_t* input_consumed) noexcept = 0;
#endif
};

#ifdef TRT_MAJOR_RTX
enum class DynamicShapesKernelSpecializationStrategy : std::int32_t {
  kLAZY = 0,
  kEAGER = 1,
  kNONE = 2,
};
class IRuntimeConfig {
 public:
  virtual ~IRuntimeConfig() noexcept = default;
  virtual void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy strategy) noexcept = 0;
};
#endif

class ICudaEngine {
 public:
  virtual ~ICudaEngine() noexcept = default;
  virtual std::int32_t getNbIOTensors() const noexcept = 0;
  virtual const char* getIOTensorName(std::int32_t index) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(const char* name) const noexcept = 0;
  virtual Dims getTensorShape(const char* name) const noexcept = 0;
  virtual DataType getTensorDataType(const char* name) const noexcept = 0;
  virtual TensorFormat getTensorFormat(const char* name) const noexcept = 0;
  virtual std::int32_t getNbOptimizationProfiles() const noexcept = 0;
  virtual Dims getProfileShape(const char* name, std::int32_t profile,
                               OptProfileSelector select) const noexcept = 0;
  virtual IExecutionContext* createExecutionContext() noexcept = 0;
#ifdef TRT_MAJOR_RTX
  virtual IRuntimeConfig* createRuntimeConfig() noexcept = 0;
  virtual IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept = 0;
#endif
#if POSEWIRE_DECLARED_TENSORRT < 1000
  virtual bool hasImplicitBatchDimension() const noexcept = 0;
  virtual std::int32_t getMaxBatchSize() const noexcept = 0;
  virtual std::int32_t getNbBindings() const noexcept = 0;
  virtual std::int32_t getBindingIndex(const char* name) const noexcept = 0;
#endif
};

class IRuntime {
 public:
  virtual ~IRuntime() noexcept = default;
  virtual ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) noexcept = 0;
};

}  // namespace nvinfer1

extern "C" void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept;
extern "C" std::int32_t getInferLibVersion() noexcept;

// SPDX-License-Identifier: Apache-2.0
// The part of LiteRT's public C API that tflite.cpp calls, declared here because LiteRT's wheel
// ships the library without headers, and resolved when a bundle is opened. Written from the API's
// documentation; the names are LiteRT's own. Structs are those that LiteRT calls stable since 2.2.
//
// The library is libLiteRt.so of the package ai_edge_litert, which the engine's run path leads to;
// then what the loader finds (LD_LIBRARY_PATH, the system's folders).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

namespace posewire::litert {

// Handles; the library owns what is behind them.
using Environment = struct EnvironmentHandle*;
using Model = struct ModelHandle*;
using Signature = struct SignatureHandle*;
using Tensor = struct TensorHandle*;
using Options = struct OptionsHandle*;
using OpaqueOptions = struct OpaqueOptionsHandle*;
using CompiledModel = struct CompiledModelHandle*;
using TensorBuffer = struct TensorBufferHandle*;

using Result = int;  // LiteRtStatus; 0 is success
using Index = std::size_t;

enum ElementType : int { kFloat32 = 1, kUInt8 = 3, kInt8 = 9 };
enum TensorTypeId : int { kRanked = 0 };
enum QuantizationId : int { kNotQuantised = 0, kPerTensor = 1 };
constexpr int kCpu = 1;                                        // LiteRtHwAccelerators
constexpr int kLogErrorsOnly = 3;                              // LiteRtLogSeverity
constexpr int kTagMinLogSeverity = 25, kTagAutoRegister = 24;  // LiteRtEnvOptionTag
constexpr int kAnyInt = 2;                                     // LiteRtAnyType
constexpr int kMaxRank = 8;
constexpr std::size_t kHostAlignment = 64;  // bytes, of memory that buffers are made from

struct Shape {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  std::int32_t dimensions[kMaxRank];
  std::uint32_t strides[kMaxRank];
};
struct RankedType {
  int element;  // ElementType
  Shape shape;
};
struct PerTensorQuantization {
  float scale;
  std::int64_t zero_point;
};
struct EnvironmentOption {
  int tag;
  struct {
    int type;
    std::int64_t value;  // a union there
  } any;
};
static_assert(sizeof(Shape) == 68 && sizeof(RankedType) == 72 &&
              sizeof(PerTensorQuantization) == 16 && sizeof(EnvironmentOption) == 24);

// Name and signature of each function, without the prefix LiteRt.
#define POSEWIRE_LITERT_FUNCTIONS(X)                                                      \
  X(CreateEnvironment, Result(int, const EnvironmentOption*, Environment*))               \
  X(DestroyEnvironment, void(Environment))                                                \
  X(CreateModelFromBuffer, Result(Environment, const void*, std::size_t, Model*))         \
  X(DestroyModel, void(Model))                                                            \
  X(GetNumModelSignatures, Result(Model, Index*))                                         \
  X(GetModelSignature, Result(Model, Index, Signature*))                                  \
  X(GetNumSignatureInputs, Result(Signature, Index*))                                     \
  X(GetSignatureInputName, Result(Signature, Index, const char**))                        \
  X(GetSignatureInputTensorByIndex, Result(Signature, Index, Tensor*))                    \
  X(GetNumSignatureOutputs, Result(Signature, Index*))                                    \
  X(GetSignatureOutputName, Result(Signature, Index, const char**))                       \
  X(GetSignatureOutputTensorByIndex, Result(Signature, Index, Tensor*))                   \
  X(GetTensorTypeId, Result(Tensor, int*))                                                \
  X(GetRankedTensorType, Result(Tensor, RankedType*))                                     \
  X(GetQuantizationTypeId, Result(Tensor, int*))                                          \
  X(GetPerTensorQuantization, Result(Tensor, PerTensorQuantization*))                     \
  X(CreateOptions, Result(Options*))                                                      \
  X(DestroyOptions, void(Options))                                                        \
  X(SetOptionsHardwareAccelerators, Result(Options, int))                                 \
  X(CreateOpaqueOptions, Result(const char*, void*, void (*)(void*), OpaqueOptions*))     \
  X(AddOpaqueOptions, Result(Options, OpaqueOptions))                                     \
  X(CreateCompiledModel, Result(Environment, Model, Options, CompiledModel*))             \
  X(DestroyCompiledModel, void(CompiledModel))                                            \
  X(RunCompiledModel,                                                                     \
    Result(CompiledModel, Index, std::size_t, TensorBuffer*, std::size_t, TensorBuffer*)) \
  X(CreateTensorBufferFromHostMemory,                                                     \
    Result(const RankedType*, void*, std::size_t, void (*)(void*), TensorBuffer*))        \
  X(DestroyTensorBuffer, void(TensorBuffer))

// A handle with the function that gives it back.
template <typename Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, void (*)(Handle)>;

struct Library {
#define POSEWIRE_DECLARE(name, ...) std::add_pointer_t<__VA_ARGS__> name = nullptr;
  POSEWIRE_LITERT_FUNCTIONS(POSEWIRE_DECLARE)
#undef POSEWIRE_DECLARE
  std::string path;
  std::string version;  // the package's; of a library without one, its digest's first digits
};

// Null where it is not there or too old, and then `why` says what is missing, in one line.
std::shared_ptr<const Library> load(std::string* why);

const char* name_of(Result result) noexcept;

}  // namespace posewire::litert

// SPDX-License-Identifier: Apache-2.0
// A .tflite file, opened by LiteRT and compared with its manifest: what tflite.cpp runs. Not for
// others.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/error.h"
#include "core/tensor.h"
#include "infer/tflite_api.h"

namespace posewire::litert {

constexpr std::size_t kSlack = 64;  // bytes; XNNPACK reads past the end of its inputs

// Memory that LiteRT takes as a tensor.
class Aligned {
 public:
  explicit Aligned(std::size_t bytes);  // zeros; throws Error(kUnavailable)
  std::uint8_t* data() const noexcept { return static_cast<std::uint8_t*>(data_.get()); }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::size_t bytes_;
  std::unique_ptr<void, void (*)(void*)> data_;
};

// Throws Error where a call of LiteRT's failed: "<where>: <what>: <its reason>".
void need(Result result, Code code, const std::string& where, const std::string& what);

std::size_t bytes_of(const RankedType& type) noexcept;

class Network {
 public:
  // Throws Error(kBundle) where the file is damaged or disagrees with the manifest.
  Network(std::shared_ptr<const Library> library, const Bundle& bundle);

  const Library& api() const noexcept { return *api_; }
  const RankedType& input() const noexcept { return input_; }
  const std::vector<RankedType>& outputs() const noexcept { return outputs_; }  // the signature's

  // The manifest's outputs, without data, and which of outputs() each is.
  const std::vector<MapView>& shapes() const noexcept { return shapes_; }
  std::size_t tensor_of(std::size_t output) const noexcept { return tensor_of_[output]; }

  // An interpreter; one may run at a time, several side by side. Throws Error(kBundle).
  Owned<CompiledModel> compiled(int threads) const;

 private:
  struct Found;

  void open_model();
  void check_input(const Manifest& manifest, const std::string& where);
  void check_outputs(const Bundle& bundle, const std::string& where);
  Found look(Tensor tensor, const char* name, const std::string& where) const;
  static MapView checked(const Bundle& bundle, const OutputSpec& output, const Found& found,
                         const std::string& where);
  Owned<Options> options_for(int threads, bool xnnpack) const;

  // Destroyed from the last to the first: what LiteRT made before what it made it from.
  std::shared_ptr<const Library> api_;
  std::string path_;
  std::unique_ptr<Aligned> file_;  // the model refers to it
  Owned<Environment> environment_{nullptr, nullptr};
  Owned<Model> model_{nullptr, nullptr};
  Signature signature_ = nullptr;
  RankedType input_{};
  std::vector<RankedType> outputs_;
  std::vector<MapView> shapes_;
  std::vector<std::size_t> tensor_of_;
};

}  // namespace posewire::litert

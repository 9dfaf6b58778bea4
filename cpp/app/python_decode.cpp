// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "app/python.h"
#include "app/python_arrays.h"
#include "core/error.h"
#include "decode/decoder.h"
#include "decode/kernels.h"
#include "decode/rows.h"

namespace nb = nanobind;

namespace posewire {
namespace {

using Any = nb::ndarray<nb::ro, nb::device::cpu>;

DType dtype_of(const Any& array, const std::string& name) {
  for (const auto& [numpy, dtype] : {std::pair{nb::dtype<float>(), DType::kFloat32},
                                     {nb::dtype<std::uint8_t>(), DType::kUint8},
                                     {nb::dtype<std::int8_t>(), DType::kInt8}}) {
    if (array.dtype() == numpy) {
      return dtype;
    }
  }
  const nb::dlpack::dtype got = array.dtype();
  if (got.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && got.bits == 16) {
    return DType::kFloat16;
  }
  throw Error(Code::kUsage, name, "must be float32, float16, uint8 or int8");
}

// The arrays keep the memory of the views.
struct Frame {
  std::vector<Any> arrays;
  std::vector<MapView> views;
};

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available_kernels()) {
    names.emplace_back(kernels->name);
  }
  return names;
}

const Kernels& kernels_named(const std::string& name) {
  std::string known;
  for (const Kernels* kernels : available_kernels()) {
    if (name == kernels->name) {
      return *kernels;
    }
    known += (known.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw Error(Code::kUsage, "kernels", "unknown \"" + name + "\" (here: " + known + ")");
}

// Decodes arrays in place, whatever their strides.
class PythonDecoder {
 public:
  PythonDecoder(const std::string& manifest_json, int artifact, const std::string& kernels)
      : manifest_(parse_manifest(manifest_json, "manifest", true)),
        kernels_(kernels.empty() ? best_kernels() : kernels_named(kernels)) {
    const auto count = static_cast<int>(manifest_.artifacts.size());
    if (artifact < 0 || (count > 0 && artifact >= count) || (count == 0 && artifact != 0)) {
      throw Error(Code::kUsage, "artifact",
                  "there is no artifact " + std::to_string(artifact) + ", the manifest has " +
                      std::to_string(count));
    }
    if (count > 0) {
      artifact_ = manifest_.artifacts[static_cast<std::size_t>(artifact)].outputs;
    } else {
      for (const OutputSpec& output : manifest_.outputs) {
        artifact_.push_back({output.name, output.layout});
      }
    }
    decoder_ = open_decoder(manifest_, kernels_);
  }

  Frame frame(const nb::dict& outputs) const {
    Frame frame;
    for (std::size_t i = 0; i < manifest_.outputs.size(); ++i) {
      const std::string& name = manifest_.outputs[i].name;
      if (!outputs.contains(name.c_str())) {
        throw Error(Code::kUsage, "outputs", name + " is missing");
      }
      frame.arrays.push_back(nb::cast<Any>(outputs[name.c_str()]));
      frame.views.push_back(view_of(frame.arrays.back(), i));
    }
    return frame;
  }

  nb::tuple decode(const nb::dict& outputs) const {
    const Frame kept = frame(outputs);
    Poses poses;
    {
      const nb::gil_scoped_release release;
      const std::unique_ptr<Decoder::Scratch> scratch = decoder_->make_scratch();
      decoder_->decode(kept.views, scratch.get(), &poses);
    }
    return arrays_of(poses, keypoints());
  }

  const Decoder& row() const { return *decoder_; }
  int keypoints() const { return manifest_.keypoints(); }
  const char* kernels() const { return kernels_.name; }

 private:
  MapView view_of(const Any& array, std::size_t i) const {
    const OutputSpec& spec = manifest_.outputs[i];
    const ArtifactOutput& stored = artifact_[i];
    const bool sequence = spec.length > 0;
    const std::size_t axes = sequence ? 2 : 3;
    const std::size_t skip = array.ndim() == axes + 1 ? 1 : 0;
    if (array.ndim() != axes + skip || (skip == 1 && array.shape(0) != 1)) {
      throw Error(Code::kUsage, spec.name,
                  sequence ? "must be one frame's sequence, two axes or a batch of one"
                           : "must be one frame's map, three axes or a batch of one");
    }
    const bool planes = stored.layout == Layout::kNCHW;
    const std::size_t c = skip + (planes ? 0 : axes - 1);
    const std::size_t w = skip + (planes ? axes - 1 : axes - 2);
    MapView view;
    view.data = array.data();
    view.dtype = dtype_of(array, spec.name);
    view.channels = static_cast<int>(array.shape(c));
    view.height = sequence ? 1 : static_cast<int>(array.shape(w - 1));
    view.width = static_cast<int>(array.shape(w));
    view.channel_stride = array.stride(c);
    view.row_stride = sequence ? 0 : array.stride(w - 1);
    view.column_stride = array.stride(w);
    const bool integer = view.dtype == DType::kUint8 || view.dtype == DType::kInt8;
    view.scale = integer ? stored.scale : 1.0F;
    view.zero_point = integer ? stored.zero_point : 0;
    const MapView said = frame_shape(manifest_, spec, view.dtype, stored.layout);
    if (view.channels != said.channels || view.height != said.height || view.width != said.width) {
      throw Error(Code::kUsage, spec.name,
                  "has " + shape(view.channels, view.height, view.width) +
                      " (channels x height x width, layout " + (planes ? "NCHW" : "NHWC") +
                      "), the manifest says " + shape(said.channels, said.height, said.width));
    }
    return view;
  }

  static std::string shape(int channels, int height, int width) {
    return std::to_string(channels) + " x " + std::to_string(height) + " x " +
           std::to_string(width);
  }

  Manifest manifest_;
  const Kernels& kernels_;
  std::vector<ArtifactOutput> artifact_;  // in the manifest's order
  std::unique_ptr<Decoder> decoder_;
};

// CPU time of the calling thread, microseconds.
double thread_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// What two readings of the clock take with nothing between them, about half a microsecond (the
// kernel keeps this clock): the median of some.
double clock_us() {
  std::array<double, 101> taken{};
  for (double& one : taken) {
    const double start = thread_us();
    one = thread_us() - start;
  }
  std::nth_element(taken.begin(), taken.begin() + taken.size() / 2, taken.end());
  return taken[taken.size() / 2];
}

// Times a decoder on frames in turn: a repeated frame would flatter the branch predictor and the
// caches. The views are made once, outside the clock. One thread at a time.
class DecoderBench {
 public:
  explicit DecoderBench(const PythonDecoder& decoder)
      : decoder_(decoder), scratch_(decoder.row().make_scratch()) {}

  void add(const nb::dict& outputs, bool same_frame) {
    if (same_frame && calls_.empty()) {
      throw Error(Code::kUsage, "same_frame", "there is no frame yet");
    }
    calls_.push_back(decoder_.frame(outputs));
    if (same_frame) {
      ends_.back() = calls_.size();
    } else {
      ends_.push_back(calls_.size());
    }
  }

  // Microseconds of this thread's CPU time without the clock's own, [rounds, frames].
  nb::ndarray<nb::numpy, double> run(int rounds) {
    if (rounds < 1) {
      throw Error(Code::kUsage, "rounds", "must be positive");
    }
    const auto count = static_cast<std::size_t>(rounds);
    auto [times, time] = new_array<double>({count, ends_.size()});
    const nb::gil_scoped_release release;
    const double clock = clock_us();
    for (std::size_t round = 0; round < count; ++round) {
      std::size_t call = 0;
      for (const std::size_t end : ends_) {
        const double start = thread_us();
        for (; call < end; ++call) {
          decoder_.row().decode(calls_[call].views, scratch_.get(), &poses_);
        }
        *time++ = std::max(thread_us() - start - clock, 0.0);
      }
    }
    return times;
  }

  nb::list poses() {
    nb::list all;
    for (const Frame& call : calls_) {
      decoder_.row().decode(call.views, scratch_.get(), &poses_);
      all.append(arrays_of(poses_, decoder_.keypoints()));
    }
    return all;
  }

 private:
  const PythonDecoder& decoder_;  // kept alive by Python
  std::unique_ptr<Decoder::Scratch> scratch_;
  std::vector<Frame> calls_;
  std::vector<std::size_t> ends_;  // of each frame: the call after its last
  Poses poses_;
};

}  // namespace

void bind_decode(nb::module_& module) {
  nb::class_<PythonDecoder>(module, "Decoder",
                            "Network outputs to poses. Pure and reentrant; releases the GIL.")
      .def(nb::init<const std::string&, int, const std::string&>(), nb::arg("manifest_json"),
           nb::arg("artifact") = 0, nb::arg("kernels") = "")
      .def("decode", &PythonDecoder::decode, nb::arg("outputs"),
           "One frame's maps by name -> (scores [N], keypoints [N, K, 3] of x, y, score), float32, "
           "network pixels.")
      .def_prop_ro("kernels", &PythonDecoder::kernels, "The instruction set in use.");
  nb::class_<DecoderBench>(module, "DecoderBench", "Times a decoder on frames in turn.")
      .def(nb::init<const PythonDecoder&>(), nb::arg("decoder"), nb::keep_alive<1, 2>())
      .def("add", &DecoderBench::add, nb::arg("outputs"), nb::arg("same_frame") = false,
           "Another call, as Decoder.decode's: a frame of its own, or more of the last one.")
      .def("run", &DecoderBench::run, nb::arg("rounds"),
           "Microseconds of one thread's CPU time, float64 [rounds, frames].")
      .def("poses", &DecoderBench::poses, "What is decoded in every call, in order.");
  module.def("decoder_kernels", &kernel_names,
             "The instruction sets that this machine runs, best first.");
  module.def("decoders", &decoder_names, "The known algorithms.");
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
#include "infer/tensorrt/slot.h"

#include <algorithm>
#include <cstring>

namespace posewire {
namespace {

// The first enqueue after a change of shape still sets TensorRT up and must not be captured; the
// second one shows that the shape repeats.
constexpr int kPlainBeforeCapture = 2;

std::size_t pixels_of(const NetworkPicture& picture) noexcept {
  return static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height) * 3;
}

std::size_t bytes_of(bool half) noexcept { return half ? 2 : sizeof(float); }

}  // namespace

TensorRtSlot::TensorRtSlot(Plan* plan, const PluginNetwork& network, int number)
    : plan_(plan),
      max_batch_(network.max_batch),
      query_(network.peaks),
      frames_(static_cast<std::size_t>(network.max_batch)),
      prepared_(static_cast<std::size_t>(network.max_batch), 0) {
  make_context(*plan, number);
  reserve(*plan, network);
  bind(*plan);
  cuda_check("cudaStreamSynchronize", cudaStreamSynchronize(stream_.get()));
}

void TensorRtSlot::make_context(const Plan& plan, int number) {
#ifdef TRT_MAJOR_RTX
  // Kernels that RTX specialises in the background would never reach a graph captured before.
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(plan.engine()->createRuntimeConfig());
  if (config != nullptr) {
    config->setDynamicShapesKernelSpecializationStrategy(
        nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
    context_.reset(plan.engine()->createExecutionContext(config.get()));
  }
#else
  context_.reset(plan.engine()->createExecutionContext());
#endif
  if (context_ == nullptr) {
    throw Error(Code::kUnavailable, plan_->path(),
                "no execution context for request " + std::to_string(number) + ": " +
                    plan_->last_complaint());
  }
  if (plan.profiles().empty()) {
    return;  // nothing in it is dynamic
  }
  const auto count = plan.profiles().size();
  const int profile = plan.profiles()[static_cast<std::size_t>(number) % count];
  if (!context_->setOptimizationProfileAsync(profile, stream_.get())) {
    throw Error(Code::kUnavailable, plan_->path(),
                "request " + std::to_string(number) + " cannot use profile " +
                    std::to_string(profile) + " of " + std::to_string(count) +
                    " (TensorRT before 10 lends each to one request): " + plan_->last_complaint());
  }
}

void TensorRtSlot::reserve(const Plan& plan, const PluginNetwork& network) {
  const auto batch = static_cast<std::size_t>(max_batch_);
  const auto most = std::max(batch, static_cast<std::size_t>(plan.fixed_batch()));
  const std::size_t pixels = pixels_of(plan.input());
  const bool is_float = plan.input().element == Element::kFloat32;
  pictures_ = PinnedMemory(batch * pixels);
  std::memset(pictures_.as<void>(), 0, pictures_.bytes());
  input_ = DeviceMemory(most * pixels * (is_float ? sizeof(float) : 1));
  cuda_check("cudaMemsetAsync",
             cudaMemsetAsync(input_.as<void>(), 0, input_.bytes(), stream_.get()));
  if (is_float) {
    staged_ = DeviceMemory(batch * pixels);
  }
  for (std::size_t i = 0; i < plan.outputs().size(); ++i) {
    const PlanOutput& output = plan.outputs()[i];
    Output memory;
    memory.device = DeviceMemory(most * output.elements * bytes_of(output.half_in_plan));
    if (static_cast<int>(i) == network.peaks.output) {
      const std::size_t planes = batch * static_cast<std::size_t>(output.channels);
      const std::size_t peaks = planes * static_cast<std::size_t>(network.peaks.max_peaks);
      counts_ = DeviceMemory(planes * sizeof(std::int32_t));
      peaks_ = DeviceMemory(peaks * sizeof(DevicePeak));
      host_counts_ = PinnedMemory(counts_.bytes());
      host_peaks_ = PinnedMemory(peaks_.bytes());
    } else {
      memory.host = PinnedMemory(batch * output.elements * bytes_of(output.half_out));
      if (output.half_out && !output.half_in_plan) {
        memory.half = DeviceMemory(memory.host.bytes());
      }
    }
    outputs_.push_back(std::move(memory));
  }
}

void TensorRtSlot::bind(const Plan& plan) {
#if NV_TENSORRT_MAJOR < 10 && !defined(TRT_MAJOR_RTX)
  if (plan.implicit_batch()) {
    bindings_.resize(static_cast<std::size_t>(plan.engine()->getNbBindings()));
    const auto at = [&](const std::string& name) -> void*& {
      const auto index = plan.engine()->getBindingIndex(name.c_str());
      return bindings_.at(static_cast<std::size_t>(index));
    };
    at(plan.input_name()) = input_.as<void>();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      at(plan.outputs()[i].name) = outputs_[i].device.as<void>();
    }
    return;
  }
#endif
  bool bound = context_->setTensorAddress(plan.input_name().c_str(), input_.as<void>());
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    bound = bound && context_->setTensorAddress(plan.outputs()[i].name.c_str(),
                                                outputs_[i].device.as<void>());
  }
  if (!bound) {
    throw Error(Code::kUnavailable, plan_->path(),
                "TensorRT refuses its memory: " + plan_->last_complaint());
  }
}

Status TensorRtSlot::failed(const std::string& what) const {
  const std::string why = plan_->last_complaint();
  return {Code::kUnavailable,
          std::string(kRuntimeName) + ": " + what + (why.empty() ? "" : ": " + why)};
}

NetworkPicture TensorRtSlot::picture(int index) const noexcept {
  NetworkPicture to = plan_->input();
  to.data = input_.as<std::uint8_t>() + static_cast<std::size_t>(index) * picture_bytes();
  return to;
}

std::size_t TensorRtSlot::picture_bytes() const noexcept {
  return pixels_of(plan_->input()) *
         (plan_->input().element == Element::kFloat32 ? sizeof(float) : 1);
}

// Only a frame larger than all before allocates.
Status TensorRtSlot::stage(int index, const PluginFrame& frame, LetterboxJob* job) {
  const auto width = static_cast<std::size_t>(frame.frame_width);
  const auto height = static_cast<std::size_t>(frame.frame_height);
  const bool nv12 = frame.nv12 != 0;
  std::size_t rows[2] = {height, nv12 ? (height + 1) / 2 : 0};
  const std::size_t row_bytes[2] = {nv12 ? width : width * 3, (width + 1) / 2 * 2};
  std::size_t bytes[2] = {0, 0};
  for (int plane = 0; plane < 2; ++plane) {
    bytes[plane] =
        rows[plane] == 0 ? 0 : frame.stride_bytes[plane] * (rows[plane] - 1) + row_bytes[plane];
  }
  Frame& memory = frames_[static_cast<std::size_t>(index)];
  const std::size_t second = (bytes[0] + 255) / 256 * 256, all = second + bytes[1];
  if (memory.host.bytes() < all) {
    try {
      memory.host = PinnedMemory(all);
      memory.device = DeviceMemory(all);
    } catch (const Error& error) {
      return failed(error.what());
    }
  }
  auto* const host = memory.host.as<std::uint8_t>();
  std::memcpy(host, frame.planes[0], bytes[0]);
  if (bytes[1] > 0) {
    std::memcpy(host + second, frame.planes[1], bytes[1]);
  }
  job->planes[0] = memory.device.as<std::uint8_t>();
  job->planes[1] = job->planes[0] + second;
  const cudaError_t error =
      cudaMemcpyAsync(memory.device.as<void>(), host, all, cudaMemcpyHostToDevice, stream_.get());
  return error == cudaSuccess ? Status{} : failed(cuda_text("upload of a frame", error));
}

Status TensorRtSlot::letterbox(int index, const PluginFrame& frame) {
  LetterboxJob job;
  job.pixels = frame.nv12 != 0 ? Pixels::kNv12 : Pixels::kBgr;
  job.frame_width = frame.frame_width;
  job.frame_height = frame.frame_height;
  job.left = frame.left;
  job.top = frame.top;
  job.width = frame.width;
  job.height = frame.height;
  job.to = picture(index);
  for (int plane = 0; plane < 2; ++plane) {
    job.planes[plane] = frame.planes[plane];
    job.stride_bytes[plane] = frame.stride_bytes[plane];
  }
  if (frame.on_device == 0) {
    Status status = stage(index, frame, &job);
    if (!status.ok()) {
      return status;
    }
  }
  const cudaError_t error = launch_letterbox(job, stream_.get());
  if (error != cudaSuccess) {
    return failed(cuda_text("letterbox", error));
  }
  prepared_[static_cast<std::size_t>(index)] = 1;
  return {};
}

Status TensorRtSlot::upload(int batch) {
  const bool is_float = plan_->input().element == Element::kFloat32;
  const std::size_t bytes = pixels_of(plan_->input());
  auto* const to = is_float ? staged_.as<std::uint8_t>() : input_.as<std::uint8_t>();
  // Runs of pictures that the CPU prepared: one copy where all of them are.
  for (int first = 0; first < batch;) {
    int end = first;
    while (end < batch && prepared_[static_cast<std::size_t>(end)] == 0) {
      ++end;
    }
    if (end > first) {
      const std::size_t at = bytes * static_cast<std::size_t>(first);
      cudaError_t error =
          cudaMemcpyAsync(to + at, input() + at, bytes * static_cast<std::size_t>(end - first),
                          cudaMemcpyHostToDevice, stream_.get());
      if (error == cudaSuccess && is_float) {
        error = launch_normalise(to + at, end - first, picture(first), stream_.get());
      }
      if (error != cudaSuccess) {
        return failed(cuda_text("upload", error));
      }
    }
    first = end + 1;
  }
  std::fill(prepared_.begin(), prepared_.end(), 0);
  return {};
}

Status TensorRtSlot::set_shape(int batch) {
  if (batch == shape_) {
    return {};
  }
  graph_.drop();
  repeats_ = 0;
  shape_ = 0;
  if (!plan_->profiles().empty() &&
      !context_->setInputShape(plan_->input_name().c_str(), plan_->input_shape(batch))) {
    return failed("refuses a batch of " + std::to_string(batch));
  }
  shape_ = batch;
  return {};
}

// A plan of a fixed batch always runs all of it; only `batch` of its pictures mean anything.
Status TensorRtSlot::enqueue(int batch) {
  bool started = false;
#if NV_TENSORRT_MAJOR < 10 && !defined(TRT_MAJOR_RTX)
  if (plan_->implicit_batch()) {
    started = context_->enqueue(batch, bindings_.data(), stream_.get(), nullptr);
  } else {
    started = context_->enqueueV3(stream_.get());
  }
#else
  started = context_->enqueueV3(stream_.get());
#endif
  if (!started) {
    return failed("the network did not start");
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (static_cast<int>(i) == query_.output) {
      continue;
    }
    const PlanOutput& output = plan_->outputs()[i];
    const Output& memory = outputs_[i];
    const std::size_t count = output.elements * static_cast<std::size_t>(batch);
    const void* from = memory.device.as<void>();
    cudaError_t error = cudaSuccess;
    if (memory.half.bytes() > 0) {
      error = launch_to_half(memory.device.as<float>(), memory.half.as<std::uint16_t>(), count,
                             stream_.get());
      from = memory.half.as<void>();
    }
    if (error == cudaSuccess) {
      error = cudaMemcpyAsync(memory.host.as<void>(), from, count * bytes_of(output.half_out),
                              cudaMemcpyDeviceToHost, stream_.get());
    }
    if (error != cudaSuccess) {
      return failed(cuda_text("download", error));
    }
  }
  return query_.output < 0 ? Status{} : find_peaks(batch);
}

Status TensorRtSlot::find_peaks(int batch) {
  const auto index = static_cast<std::size_t>(query_.output);
  const PlanOutput& output = plan_->outputs()[index];
  PeakJob job;
  job.maps = outputs_[index].device.as<void>();
  job.half = output.half_in_plan;
  job.planes = batch * output.channels;
  job.height = output.height;
  job.width = output.width;
  job.threshold = query_.threshold;
  job.max_peaks = query_.max_peaks;
  job.counts = counts_.as<std::int32_t>();
  job.peaks = peaks_.as<DevicePeak>();
  cudaError_t error = launch_peaks(job, stream_.get());
  const auto planes = static_cast<std::size_t>(job.planes);
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(host_counts_.as<void>(), job.counts, planes * sizeof(std::int32_t),
                            cudaMemcpyDeviceToHost, stream_.get());
  }
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(host_peaks_.as<void>(), job.peaks,
                            planes * static_cast<std::size_t>(job.max_peaks) * sizeof(DevicePeak),
                            cudaMemcpyDeviceToHost, stream_.get());
  }
  return error == cudaSuccess ? Status{} : failed(cuda_text("peaks", error));
}

// Only this thread's calls go into the graph: other slots work on meanwhile.
bool TensorRtSlot::capture(int batch) {
  if (cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  const bool enqueued = enqueue(batch).ok();
  cudaGraph_t graph = nullptr;
  const bool ended = cudaStreamEndCapture(stream_.get(), &graph) == cudaSuccess;
  const bool made = ended && graph != nullptr && graph_.take(graph) && enqueued;
  if (!made) {
    graph_.drop();
    cudaGetLastError();
  }
  return made;
}

Status TensorRtSlot::start(int batch) {
  if (batch < 1 || batch > max_batch_) {
    return {Code::kBug, std::string(kRuntimeName) + ": batch of " + std::to_string(batch) +
                            " pictures, at most " + std::to_string(max_batch_)};
  }
  Status status = set_shape(batch);
  if (status.ok()) {
    status = upload(batch);
  }
  if (!status.ok()) {
    return status;
  }
  if (graph_.get() == nullptr && graphs_work_ && repeats_ >= kPlainBeforeCapture) {
    graphs_work_ = capture(batch);  // some networks cannot be captured: they run without
  }
  cudaError_t error = cudaSuccess;
  if (graph_.get() != nullptr) {
    error = cudaGraphLaunch(graph_.get(), stream_.get());
    ++graphs_;
  } else {
    status = enqueue(batch);
    ++plain_;
    repeats_ = std::min(repeats_ + 1, kPlainBeforeCapture);
  }
  if (status.ok() && error == cudaSuccess) {
    error = cudaEventRecord(stream_.done(), stream_.get());
  }
  return error == cudaSuccess ? status : failed(cuda_text("start", error));
}

Status TensorRtSlot::wait() {
  const cudaError_t error = cudaEventSynchronize(stream_.done());
  return error == cudaSuccess ? Status{} : failed(cuda_text("the device", error));
}

void TensorRtSlot::peaks(int index, const std::int32_t** counts,
                         const DevicePeak** peaks) const noexcept {
  const auto channels =
      static_cast<std::size_t>(plan_->outputs()[static_cast<std::size_t>(query_.output)].channels);
  const std::size_t first = static_cast<std::size_t>(index) * channels;
  *counts = host_counts_.as<std::int32_t>() + first;
  *peaks = host_peaks_.as<DevicePeak>() + first * static_cast<std::size_t>(query_.max_peaks);
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// TFLite through LiteRT on the CPU (XNNPACK). Artifact (format "tflite"): ["model.tflite"] with one
// signature, whose tensors have the manifest's names: input uint8 NHWC [1, height, width, 3],
// outputs float32, or int8 with the artifact's scale and zero point.
//
// A stream is an interpreter with a thread of its own and its share of the threads; slots hold
// tensors and queue for the next free stream. So one request has all threads (least latency), and
// the default is a stream for every thread (most pictures per second). A batch is run one picture
// after the other: on CPUs larger batches gained nothing.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "infer/rows.h"
#include "infer/tflite_network.h"

namespace posewire {
namespace {

using litert::Aligned;
using litert::bytes_of;
using litert::CompiledModel;
using litert::Library;
using litert::Network;
using litert::Owned;
using litert::RankedType;
using litert::Result;
using litert::TensorBuffer;

constexpr int kMostStreams = 8;  // each packs the weights again

struct Memory {
  Aligned bytes;
  Owned<TensorBuffer> buffer;
};

struct Slot {
  std::unique_ptr<Aligned> input;               // [max_batch, height, width, 3]
  Owned<TensorBuffer> first{nullptr, nullptr};  // its first picture
  std::unique_ptr<Memory> later;                // where the others are copied to, one by one
  std::vector<Memory> maps;                     // [max_batch, outputs in the signature's order]
  int batch = 0;
  bool done = false;
  Status status;
};

class TfLite : public Runtime {
 public:
  TfLite(std::shared_ptr<const Library> library, const Bundle& bundle,
         const RuntimeOptions& options)
      : max_batch_(batch_of(bundle, options)), network_(std::move(library), bundle) {
    open_streams(options);
    pending_.reserve(slots_.size());
    for (const Owned<CompiledModel>& model : models_) {
      threads_.emplace_back([this, stream = model.get()] { work(stream); });
    }
  }

  ~TfLite() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  TfLite(const TfLite&) = delete;
  TfLite& operator=(const TfLite&) = delete;

  int requests() const noexcept override { return static_cast<int>(slots_.size()); }
  int max_batch() const noexcept override { return max_batch_; }
  void* input(int request) noexcept override { return at(request).input->data(); }

  Status start(int request, int batch) override {
    if (batch < 1 || batch > max_batch_) {
      return {Code::kBug, "tflite: batch of " + std::to_string(batch) + " pictures, at most " +
                              std::to_string(max_batch_)};
    }
    at(request).batch = batch;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      pending_.push_back(request);
    }
    wake_.notify_one();
    return {};
  }

  Status wait(int request) override {
    Slot& slot = at(request);
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [&slot] { return slot.done; });
    slot.done = false;
    return std::move(slot.status);
  }

  void outputs(int request, int index, std::vector<MapView>* views) const override {
    const Slot& slot = slots_[static_cast<std::size_t>(request)];
    const std::vector<MapView>& shapes = network_.shapes();
    views->clear();
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      views->push_back(shapes[i]);
      const std::size_t picture = static_cast<std::size_t>(index) * network_.outputs().size();
      views->back().data = slot.maps[picture + network_.tensor_of(i)].bytes.data();
    }
  }

 private:
  Slot& at(int request) noexcept { return slots_[static_cast<std::size_t>(request)]; }

  void open_streams(const RuntimeOptions& options) {
    const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    const int threads = options.threads > 0 ? options.threads : cores;
    int streams = std::min(threads, kMostStreams);
    if (options.requests > 0) {
      streams = std::min(streams, options.requests);
    }
    for (int stream = 0; stream < streams; ++stream) {
      models_.push_back(network_.compiled(threads / streams));
    }
    // One slot a stream keeps the cores busy; one more is filled or decoded meanwhile.
    slots_.resize(static_cast<std::size_t>(options.requests > 0 ? options.requests : streams + 1));
    for (Slot& slot : slots_) {
      prepare(&slot);
    }
  }

  Owned<TensorBuffer> buffer_over(const Aligned& memory, const RankedType& type) const {
    TensorBuffer buffer = nullptr;
    litert::need(network_.api().CreateTensorBufferFromHostMemory(&type, memory.data(),
                                                                 bytes_of(type), nullptr, &buffer),
                 Code::kUnavailable, "tflite", "tensor");
    return {buffer, network_.api().DestroyTensorBuffer};
  }

  Memory memory_for(const RankedType& type) const {
    Aligned bytes(bytes_of(type));
    Owned<TensorBuffer> buffer = buffer_over(bytes, type);
    return {std::move(bytes), std::move(buffer)};
  }

  void prepare(Slot* slot) const {
    const auto pictures = static_cast<std::size_t>(max_batch_);
    slot->input = std::make_unique<Aligned>(pictures * bytes_of(network_.input()));
    slot->first = buffer_over(*slot->input, network_.input());
    if (max_batch_ > 1) {
      slot->later = std::make_unique<Memory>(memory_for(network_.input()));
    }
    for (std::size_t picture = 0; picture < pictures; ++picture) {
      for (const RankedType& type : network_.outputs()) {
        slot->maps.push_back(memory_for(type));
      }
    }
  }

  void work(CompiledModel model) {
    std::vector<TensorBuffer> maps(network_.outputs().size());
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stop_ || !pending_.empty(); });
      if (pending_.empty()) {
        return;
      }
      Slot& slot = at(pending_.front());
      pending_.erase(pending_.begin());
      lock.unlock();
      Status status = run(model, slot, &maps);
      lock.lock();
      slot.status = std::move(status);
      slot.done = true;
      finished_.notify_all();
    }
  }

  Status run(CompiledModel model, const Slot& slot, std::vector<TensorBuffer>* maps) const {
    const std::size_t bytes = bytes_of(network_.input());
    for (int picture = 0; picture < slot.batch; ++picture) {
      const auto i = static_cast<std::size_t>(picture);
      TensorBuffer image = slot.first.get();
      if (picture > 0) {  // it need not lie where LiteRT takes a tensor
        std::memcpy(slot.later->bytes.data(), slot.input->data() + i * bytes, bytes);
        image = slot.later->buffer.get();
      }
      for (std::size_t tensor = 0; tensor < maps->size(); ++tensor) {
        (*maps)[tensor] = slot.maps[i * maps->size() + tensor].buffer.get();
      }
      const Result result =
          network_.api().RunCompiledModel(model, 0, 1, &image, maps->size(), maps->data());
      if (result != 0) {
        return {Code::kUnavailable, std::string("tflite: ") + litert::name_of(result)};
      }
    }
    return {};
  }

  int max_batch_;
  Network network_;
  std::vector<Slot> slots_;
  std::vector<Owned<CompiledModel>> models_;  // one a stream

  std::mutex mutex_;  // guards what follows, and slots' done and status
  std::condition_variable wake_, finished_;
  std::vector<int> pending_;  // slots that were started, oldest first
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Runtime> open_tflite(const Bundle& bundle, const RuntimeOptions& options) {
  std::string why;
  std::shared_ptr<const Library> library = litert::load(&why);
  if (library == nullptr) {
    throw Error(Code::kUnavailable, "tflite", why);
  }
  check_version(bundle, library->version);
  return std::make_unique<TfLite>(std::move(library), bundle, options);
}

RuntimeInfo tflite_info() {
  std::string why;
  const std::shared_ptr<const Library> library = litert::load(&why);
  if (library == nullptr) {
    return {"tflite", "", false, why};
  }
  return {"tflite", library->version, true, ""};
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
#include "pipeline/inference_stages.h"

#include <cmath>
#include <utility>

namespace posewire {
namespace {

using std::chrono::steady_clock;

double ms_between(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

Slots::Slots(Runtime* the_runtime)
    : runtime(the_runtime),
      slots(static_cast<std::size_t>(the_runtime->requests())),
      free(slots.size(), Policy::kBlock),
      busy(slots.size(), Policy::kBlock) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i].works.reserve(static_cast<std::size_t>(runtime->max_batch()));
    [[maybe_unused]] const bool fits = free.try_push(static_cast<int>(i));
  }
}

Slots::~Slots() {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].in_runtime) {
      // A failure was reported already, or does not matter any more.
      [[maybe_unused]] const Status status = runtime->wait(static_cast<int>(i));
    }
  }
}

PreprocessStage::PreprocessStage(const Manifest& manifest, Slots* slots, Batcher<FramePtr>* batcher,
                                 Pool<Work>* works, bool keep_pictures)
    : Operator("preprocess"),
      width_(manifest.input_width),
      height_(manifest.input_height),
      channels_(manifest.input_rgb ? Channels::kRGB : Channels::kBGR),
      keep_pictures_(keep_pictures),
      slots_(slots),
      device_(slots->runtime->device_letterbox()),
      batcher_(batcher),
      works_(works) {}

Status PreprocessStage::run() {
  const auto most = static_cast<std::size_t>(slots_->runtime->max_batch());
  std::vector<FramePtr> batch;
  batch.reserve(most);
  int number = 0;
  // First a free slot, then what waits: what waits meanwhile makes the batch.
  while (slots_->free.wait_pop(&number) && batcher_->wait_take(most, &batch)) {
    Slots::Slot& slot = slots_->slots[static_cast<std::size_t>(number)];
    {
      const BusyTimer timer(&stats());
      for (FramePtr& frame : batch) {
        WorkPtr work = works_->wait_take();
        if (work == nullptr) {
          return {};  // the engine ends
        }
        Status status =
            prepare(std::move(frame), work.get(), number, static_cast<int>(slot.works.size()));
        if (!status.ok()) {
          return status;
        }
        slot.works.push_back(std::move(work));
      }
      stats().add_frames(batch.size());
    }
    slot.started = steady_clock::now();
    Status status = slots_->runtime->start(number, static_cast<int>(batch.size()));
    if (!status.ok()) {
      return status;
    }
    slot.in_runtime = true;
    if (!slots_->busy.wait_push(int{number})) {
      return {};
    }
  }
  return {};
}

Status PreprocessStage::letterbox_into(const Image& image, const Letterbox& geometry, int number,
                                       int index) {
  if (device_ != nullptr) {
    return device_->letterbox(number, index, device_frame(image), geometry);
  }
  const auto picture_bytes =
      static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_) * 3;
  auto* input = static_cast<std::uint8_t*>(slots_->runtime->input(number));
  letterbox(image, geometry, width_, height_, channels_,
            input + picture_bytes * static_cast<std::size_t>(index));
  return {};
}

Status PreprocessStage::prepare(FramePtr frame, Work* work, int number, int index) {
  const Image& image = frame->image;
  work->letterbox = letterbox_of(image.width, image.height, width_, height_);
  Status status = letterbox_into(image, work->letterbox, number, index);
  if (!status.ok()) {
    return status;
  }
  work->frame.image.width = image.width;
  work->frame.image.height = image.height;
  work->frame.camera = frame->camera;
  work->frame.seq = frame->seq;
  work->frame.t_capture = frame->t_capture;
  work->frame.t_arrival = frame->t_arrival;
  work->frame.t_media_ms = frame->t_media_ms;
  if (keep_pictures_) {
    work->picture = std::move(frame);
  }
  return {};
}

DecodeStage::DecodeStage(const Decoder* decoder, double min_score, Slots* slots,
                         Channel<WorkPtr>* results)
    : Operator("decode"),
      decoder_(decoder),
      scratch_(decoder->make_scratch()),
      min_score_(static_cast<float>(min_score)),
      slots_(slots),
      results_(results) {
  done_.reserve(static_cast<std::size_t>(slots->runtime->max_batch()));
}

Status DecodeStage::run() {
  int number = 0;
  while (slots_->busy.wait_pop(&number)) {
    Slots::Slot& slot = slots_->slots[static_cast<std::size_t>(number)];
    Status status = slots_->runtime->wait(number);
    slot.in_runtime = false;
    if (!status.ok()) {
      return status;
    }
    const auto finished = steady_clock::now();
    infer_stats_.add_busy(finished - slot.started);
    infer_stats_.add_frames(slot.works.size());
    for (const WorkPtr& work : slot.works) {
      work->latency.infer_ms = ms_between(slot.started, finished);
    }
    decode(number);
    // The slot goes back before the results go on: it does not stand idle behind a slow sink.
    std::swap(done_, slot.works);
    // Refused only when the engine ends, and then nobody misses the slot.
    [[maybe_unused]] const bool taken = slots_->free.wait_push(int{number});
    for (WorkPtr& work : done_) {
      if (!results_->wait_push(std::move(work))) {
        return {};
      }
    }
    done_.clear();
  }
  return {};
}

void DecodeStage::decode(int number) {
  const BusyTimer timer(&stats());
  Slots::Slot& slot = slots_->slots[static_cast<std::size_t>(number)];
  for (std::size_t i = 0; i < slot.works.size(); ++i) {
    Work& work = *slot.works[i];
    slots_->runtime->outputs(number, static_cast<int>(i), &views_);
    decoder_->decode(views_, scratch_.get(), &work.poses);
    to_frame(work.letterbox, &work.poses);
    refuse_what_is_not_finite(&work.poses);
  }
  stats().add_frames(slot.works.size());
}

// The decoders promise finite numbers. What reaches subscribers does not rest on a promise.
void DecodeStage::refuse_what_is_not_finite(Poses* poses) {
  poses->keep_if([this, poses](int person) {
    bool finite = std::isfinite(poses->score(person));
    const Keypoint* keypoints = poses->keypoints_of(person);
    for (int k = 0; k < poses->keypoints_per_person(); ++k) {
      finite = finite && std::isfinite(keypoints[k].x) && std::isfinite(keypoints[k].y) &&
               std::isfinite(keypoints[k].score);
    }
    if (!finite) {
      poses_refused_.fetch_add(1, std::memory_order_relaxed);
    }
    return finite && poses->score(person) >= min_score_;
  });
}

}  // namespace posewire

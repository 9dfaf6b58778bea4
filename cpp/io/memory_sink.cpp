// SPDX-License-Identifier: Apache-2.0
#include "io/memory_sink.h"

namespace posewire {

void MemorySink::open(const Skeleton&) {
  const std::lock_guard<std::mutex> lock(mutex_);
  open_ = true;
}

Status MemorySink::write(const Result& result) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!open_ || closed_) {
    return Status(Code::kBug, "memory sink: written to while it is not open");
  }
  Item item;
  item.camera = result.frame->camera;
  item.seq = result.frame->seq;
  item.width = result.frame->image.width;
  item.height = result.frame->image.height;
  item.poses = *result.poses;
  item.payload = *result.payload;
  items_.push_back(std::move(item));
  if (with_pictures_) {
    pictures_.push_back(result.frame->image);
  }
  return Status();
}

Status MemorySink::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  return Status();
}

std::vector<MemorySink::Item> MemorySink::items() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return items_;
}

std::vector<Image> MemorySink::pictures() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return pictures_;
}

bool MemorySink::closed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return closed_;
}

std::unique_ptr<Sink> make_memory(const SinkOptions&) { return std::make_unique<MemorySink>(); }

}  // namespace posewire

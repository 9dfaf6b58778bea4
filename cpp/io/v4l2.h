// SPDX-License-Identifier: Apache-2.0
// The kernel's side of a camera, so that tests can play one: there is none on a build machine.
#pragma once

#include <cstddef>
#include <memory>

#include "io/source.h"

namespace posewire {

// System calls on one device, from the source's thread; results as the kernel's: -errno on failure.
class V4l2Device {
 public:
  virtual ~V4l2Device() = default;
  virtual int open(const char* path) = 0;
  virtual int control(unsigned long request, void* argument) = 0;  // ioctl
  virtual void* map(std::size_t bytes, std::size_t offset) = 0;    // null: failed
  virtual void unmap(void* memory, std::size_t bytes) = 0;
  virtual int wait(int timeout_ms) = 0;  // for a picture: > 0 there is one (or an error to read)
  virtual void close() = 0;
};

std::unique_ptr<Source> make_v4l2_on(const SourceOptions& options,
                                     std::unique_ptr<V4l2Device> device);

}  // namespace posewire

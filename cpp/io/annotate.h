// SPDX-License-Identifier: Apache-2.0
// A frame's copy with its poses and captions: what the video file and the window show.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "io/draw.h"
#include "io/sink.h"

namespace posewire {

class Annotate {
 public:
  explicit Annotate(std::string label) : label_(std::move(label)) {}

  void open(const Skeleton& skeleton) { skeleton_ = skeleton; }

  // The picture holds until the next call.
  Image& draw(const Result& result);

 private:
  double rate();  // frames a second that came here lately; 0: not known yet

  std::string label_;
  Skeleton skeleton_;
  Image canvas_;
  std::vector<PersonColors> colors_;  // by camera
  std::vector<std::chrono::steady_clock::time_point> times_;
  std::size_t next_ = 0;
};

}  // namespace posewire

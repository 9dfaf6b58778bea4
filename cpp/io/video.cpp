// SPDX-License-Identifier: Apache-2.0
// The annotated video: poses and captions drawn over the frames, at the frames' own times.
#include <algorithm>
#include <cstdio>
#include <optional>

#include "io/annotate.h"
#include "io/draw.h"
#include "io/mp4_writer.h"
#include "io/sink.h"

namespace posewire {
namespace {

// "out.mp4" and "door" -> "out-door.mp4".
std::string path_for(const SinkOptions& options) {
  if (options.camera.empty()) {
    return options.path;
  }
  const std::size_t slash = options.path.rfind('/');
  const std::size_t dot = options.path.rfind('.');
  const bool extension =
      dot != std::string::npos && (slash == std::string::npos || dot > slash + 1);
  const std::string stem = extension ? options.path.substr(0, dot) : options.path;
  return stem + "-" + options.camera + (extension ? options.path.substr(dot) : "");
}

class Video final : public Sink {
 public:
  explicit Video(const SinkOptions& options)
      : options_(options),
        annotate_(options.label.empty() ? options.camera : options.label),
        path_(path_for(options)) {}

  void open(const Skeleton& skeleton) override {
    annotate_.open(skeleton);
    writer_.open(path_);
  }

  bool wants_picture() const noexcept override { return true; }

  Status write(const Result& result) override {
    if (options_.camera_index >= 0 && result.frame->camera != options_.camera_index) {
      return Status();
    }
    if (failed_) {
      return Status(Code::kCannotWrite, path_ + ": has failed before");
    }
    const double position = position_ms(*result.frame);
    const Image* picture = &annotate_.draw(result);
    if (width_ == 0) {
      width_ = picture->width;
      height_ = picture->height;
    }
    if (picture->width != width_ || picture->height != height_) {
      // The container knows one size; a stream that changes its own is fitted into the first.
      fit_into(*picture, width_, height_, &fitted_);
      picture = &fitted_;
    }
    Status status = write_held(*picture, position);
    failed_ = !status.ok();
    return status;
  }

  void cut_off() noexcept override { cut_off_ = true; }

  Status close() override {
    Status held;
    if (held_position_ && !failed_) {
      held = flush_held(*held_position_ + 40.0);
    }
    Status finished = writer_.finish(!cut_off_);
    return held.ok() ? finished : held;
  }

 private:
  // The first picture waits for the second, whose distance tells the encoder the rate.
  Status write_held(const Image& picture, double position) {
    if (pictures_ == 0 && options_.fps <= 0.0) {
      held_ = picture;
      held_position_ = position;
      ++pictures_;
      return Status();
    }
    if (held_position_) {
      Status status = flush_held(position);
      if (!status.ok()) {
        return status;
      }
    }
    ++pictures_;
    return writer_.write(picture, position, options_.fps);
  }

  Status flush_held(double next_position) {
    const double step = std::min(1000.0, std::max(5.0, next_position - *held_position_));
    Status status = writer_.write(held_, *held_position_, 1000.0 / step);
    held_position_.reset();
    return status;
  }

  // From 0 and growing: the position in the file; for cameras the time of capture by the clock that
  // does not jump. A position that goes back is a file that starts again.
  double position_ms(const Frame& frame) {
    if (options_.fps > 0.0) {
      return static_cast<double>(pictures_) * 1000.0 / options_.fps;
    }
    const double now = frame.t_media_ms.value_or(
        std::chrono::duration<double, std::milli>(frame.t_arrival.time_since_epoch()).count());
    if (last_ms_) {
      const double step = now - *last_ms_;
      if (step > 0.0 && step < 60000.0) {
        step_ms_ = step;
      }
      position_ += step_ms_;
    }
    last_ms_ = now;
    return position_;
  }

  SinkOptions options_;
  Annotate annotate_;
  std::string path_;
  Mp4Writer writer_;
  Image fitted_, held_;
  std::optional<double> held_position_, last_ms_;
  double position_ = 0.0, step_ms_ = 40.0;
  int width_ = 0, height_ = 0;
  std::uint64_t pictures_ = 0;
  bool failed_ = false, cut_off_ = false;
};

}  // namespace

std::unique_ptr<Sink> make_video(const SinkOptions& options) {
  return std::make_unique<Video>(options);
}

}  // namespace posewire

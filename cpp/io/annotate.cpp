// SPDX-License-Identifier: Apache-2.0
#include "io/annotate.h"

#include <cstdio>

namespace posewire {

Image& Annotate::draw(const Result& result) {
  canvas_ = result.frame->image;  // keeps its memory; the frame goes on to other sinks
  const auto camera = static_cast<std::size_t>(result.frame->camera);
  if (colors_.size() <= camera) {
    colors_.resize(camera + 1);
  }
  const Poses& poses = *result.poses;
  draw_poses(&canvas_, poses, skeleton_, colors_[camera].assign(poses));
  std::vector<std::string> captions;
  if (!label_.empty()) {
    captions.push_back(label_);
  }
  captions.push_back(std::to_string(poses.size()) + (poses.size() == 1 ? " person" : " people"));
  if (const double fps = rate(); fps > 0.0) {
    char text[32];
    std::snprintf(text, sizeof text, fps < 9.95 ? "%.1f fps" : "%.0f fps", fps);
    captions.emplace_back(text);
  }
  draw_captions(&canvas_, captions);
  return canvas_;
}

double Annotate::rate() {
  constexpr std::size_t kLately = 30;
  const auto now = std::chrono::steady_clock::now();
  if (times_.size() < kLately) {
    times_.push_back(now);
    if (times_.size() < 10) {
      return 0.0;
    }
    const std::chrono::duration<double> span = now - times_.front();
    return static_cast<double>(times_.size() - 1) / span.count();
  }
  const std::chrono::duration<double> span = now - times_[next_];
  times_[next_] = now;
  next_ = (next_ + 1) % kLately;
  return static_cast<double>(kLately) / span.count();
}

}  // namespace posewire

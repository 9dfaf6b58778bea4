// SPDX-License-Identifier: Apache-2.0
// A window with the annotated frames, one per camera. Closing it, Escape or q only hides it: ending
// the run is Ctrl-C's business.
#include "io/sink.h"

#ifdef POSEWIRE_HIGHGUI
#include <cstdlib>
#include <map>
#include <opencv2/highgui.hpp>

#include "io/annotate.h"
#include "io/mat.h"
#endif

namespace posewire {
namespace {

#ifdef POSEWIRE_HIGHGUI

class Show final : public Sink {
 public:
  explicit Show(const SinkOptions& options)
      : options_(options), annotate_(options.label.empty() ? options.camera : options.label) {}

  void open(const Skeleton& skeleton) override {
    const auto set = [](const char* name) {
      const char* const value = std::getenv(name);
      return value != nullptr && *value != '\0';
    };
    if (!set("DISPLAY") && !set("WAYLAND_DISPLAY")) {
      throw Error(Code::kUnavailable, "show", "no screen here: DISPLAY is not set");
    }
    annotate_.open(skeleton);
  }

  bool wants_picture() const noexcept override { return true; }

  Status write(const Result& result) override {
    const int camera = result.frame->camera;
    if (hidden_ || (options_.camera_index >= 0 && camera != options_.camera_index)) {
      return Status();
    }
    try {
      std::string& window = windows_[camera];
      if (window.empty()) {
        window = "posewire" +
                 (options_.camera.empty() ? " " + std::to_string(camera) : " " + options_.camera);
        cv::namedWindow(window, cv::WINDOW_NORMAL | cv::WINDOW_KEEPRATIO);
        cv::resizeWindow(window, result.frame->image.width, result.frame->image.height);
      }
      cv::imshow(window, mat_of(&annotate_.draw(result)));
      const int key = cv::pollKey();
      hidden_ =
          key == 27 || key == 'q' || cv::getWindowProperty(window, cv::WND_PROP_VISIBLE) < 1.0;
      if (hidden_) {
        cv::destroyAllWindows();
      }
    } catch (const cv::Exception& error) {
      return Status(Code::kUnavailable, "show: the window failed (" + error.err + ")");
    }
    return Status();
  }

  Status close() override {
    if (!windows_.empty() && !hidden_) {
      try {
        cv::destroyAllWindows();
      } catch (const cv::Exception&) {  // the screen went away first
      }
    }
    return Status();
  }

 private:
  SinkOptions options_;
  Annotate annotate_;
  std::map<int, std::string> windows_;
  bool hidden_ = false;
};

#else

class Show final : public Sink {
 public:
  explicit Show(const SinkOptions&) {}
  void open(const Skeleton&) override {
    throw Error(Code::kUnavailable, "show",
                "this build has no windows: install libopencv-highgui-dev and build again");
  }
  bool wants_picture() const noexcept override { return false; }
  Status write(const Result&) override {
    return Status(Code::kUnavailable, "show: this build has no windows");
  }
  Status close() override { return Status(); }
};

#endif

}  // namespace

std::unique_ptr<Sink> make_show(const SinkOptions& options) {
  return std::make_unique<Show>(options);
}

}  // namespace posewire

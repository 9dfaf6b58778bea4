// SPDX-License-Identifier: Apache-2.0
// Walking stick people from a seed: a source without files, the same pictures on every machine with
// the same OpenCV. For tests and benches; no network was trained to like them.
//   synthetic:?people=5&width=640&height=480&frames=100&fps=25&seed=1
// frames=0 (the default) never ends. fps paces; without it frames come as fast as they are drawn
// and their positions are those of 25 a second.
#include <cmath>
#include <opencv2/imgproc.hpp>
#include <random>
#include <utility>

#include "io/mat.h"
#include "io/pacing.h"
#include "io/source.h"
#include "io/uri.h"

namespace posewire {
namespace {

struct Walker {
  double x, y, height, speed, phase;  // y: of the feet; speed in heights a second, signed
  cv::Scalar shirt, trousers, skin;
};

class Synthetic final : public Source {
 public:
  explicit Synthetic(const SourceOptions& options)
      : where_(address_place(options.camera, options.uri)), pacer_(0.0, false) {
    Query query(rest_of(options.uri), where_);
    people_ = query.integer("people", 3, 0, 1000);
    width_ = query.integer("width", 640, 16, 8192);
    height_ = query.integer("height", 480, 16, 8192);
    frames_ = query.integer("frames", 0, 0, 2000000000);
    seed_ = query.integer("seed", 1, 0, 2000000000);
    const double rate = query.number("fps", 0.0, 0.0, 10000.0);
    query.done();
    if (!query.path().empty()) {
      throw Error(Code::kConfig, where_, "\"" + query.path() + "\": only ?key=value may follow");
    }
    const double paced = options.fps > 0.0 ? options.fps : rate;
    fps_ = paced > 0.0 ? paced : 25.0;
    pacer_ = Pacer(paced, options.realtime);
    loop_ = options.loop;
  }

  void open() override {
    if (flag_.stopped()) {
      throw Error(Code::kSource, where_, "stopped");
    }
    next_ = 0;
    pacer_.restart();
    // Only the generator's raw numbers: the distributions differ between standard libraries.
    std::mt19937 random(static_cast<std::mt19937::result_type>(seed_));
    const auto uniform = [&random](double low, double high) {
      return low + (high - low) * static_cast<double>(random()) / 4294967296.0;
    };
    const auto colour = [&uniform](double low, double high) {
      const double b = uniform(low, high), g = uniform(low, high), r = uniform(low, high);
      return cv::Scalar(b, g, r);
    };
    paint_background(colour(165, 205), colour(85, 110));
    walkers_.clear();
    for (int i = 0; i < people_; ++i) {
      Walker walker{};
      walker.height = uniform(0.35, 0.7) * height_;
      walker.x = uniform(0.1, 0.9) * width_;
      walker.y = uniform(0.8, 0.98) * height_;
      walker.speed = uniform(0.2, 0.6) * (uniform(0, 1) < 0.5 ? -1.0 : 1.0);
      walker.phase = uniform(0.0, 6.28);
      walker.shirt = colour(30, 230);
      walker.trousers = colour(20, 120);
      const double tone = uniform(0.45, 1.0);
      walker.skin = cv::Scalar(150 * tone, 180 * tone, 225 * tone);
      walkers_.push_back(walker);
    }
  }

  Read read(Frame* frame, Status*) override {
    if (flag_.stopped()) {
      return Read::kStopped;
    }
    if (frames_ > 0 && next_ == frames_) {
      if (!loop_) {
        return Read::kEnd;
      }
      next_ = 0;
    }
    const double t = static_cast<double>(next_) / fps_;
    frame->image.resize(width_, height_);
    cv::Mat picture = mat_of(&frame->image);
    background_.copyTo(picture);
    for (const Walker& walker : walkers_) {
      draw(walker, t, &picture);
    }
    frame->t_media_ms = t * 1000.0;
    ++next_;
    if (!pacer_.wait(&flag_, frame->t_media_ms)) {
      return Read::kStopped;
    }
    frame->t_capture = std::chrono::system_clock::now();
    frame->t_arrival = std::chrono::steady_clock::now();
    return Read::kFrame;
  }

  void stop() noexcept override { flag_.stop(); }
  bool live() const noexcept override { return false; }

 private:
  void paint_background(const cv::Scalar& wall, const cv::Scalar& floor) {
    background_.create(height_, width_, CV_8UC3);
    for (int y = 0; y < height_; ++y) {
      const bool below = y > height_ * 6 / 10;
      const double shade = 0.75 + 0.25 * y / height_;
      background_.row(y).setTo((below ? floor : wall) * shade);
    }
  }

  // Capsules, back to front: the far arm and leg, the trunk, the head, the near ones.
  void draw(const Walker& w, double t, cv::Mat* picture) const {
    const double h = w.height, margin = 0.3 * h, span = width_ + 2 * margin;
    double x = std::fmod(w.x + w.speed * h * t + margin, span);
    x = (x < 0 ? x + span : x) - margin;
    const double swing = w.phase + 6.28 * t * (0.8 + std::fabs(w.speed));
    const double facing = w.speed < 0 ? -1.0 : 1.0;
    const double bob = 0.01 * h * std::cos(2 * swing);
    using Point = cv::Point2d;
    const Point hip(x, w.y - 0.48 * h + bob), neck(x, w.y - 0.82 * h + bob);
    const auto limb = [&](Point from, double length, double angle, double thick,
                          const cv::Scalar& colour) {
      const Point to = from + Point(std::sin(angle) * length * facing, std::cos(angle) * length);
      capsule(picture, from, to, thick * h, colour);
      return to;
    };
    const auto leg = [&](double side, double shade) {
      const double angle = 0.5 * std::sin(swing) * side;
      const Point knee = limb(hip, 0.24 * h, angle, 0.085, w.trousers * shade);
      limb(knee, 0.23 * h, angle - 0.45 * (0.5 - 0.5 * std::cos(swing) * side), 0.07,
           w.trousers * shade);
    };
    const auto arm = [&](double side, double shade) {
      const double angle = 0.55 * std::sin(swing) * side;
      const Point shoulder = neck + Point(0, 0.04 * h);
      const Point elbow = limb(shoulder, 0.17 * h, angle, 0.06, w.shirt * shade);
      limb(elbow, 0.16 * h, angle + 0.5, 0.045, w.skin * shade);
    };
    leg(-1, 0.7);
    arm(1, 0.7);
    capsule(picture, hip, neck + Point(0, 0.05 * h), 0.17 * h, w.shirt);
    capsule(picture, neck - Point(0, 0.04 * h), neck - Point(0, 0.1 * h), 0.11 * h, w.skin);
    leg(1, 1.0);
    arm(-1, 1.0);
  }

  static void capsule(cv::Mat* picture, cv::Point2d a, cv::Point2d b, double thick,
                      const cv::Scalar& colour) {
    constexpr int kShift = 4;  // sixteenths of a pixel: slow movement stays smooth
    const auto fixed = [](cv::Point2d p) {
      return cv::Point(cvRound(p.x * (1 << kShift)), cvRound(p.y * (1 << kShift)));
    };
    cv::line(*picture, fixed(a), fixed(b), colour, std::max(1, cvRound(thick)), cv::LINE_AA,
             kShift);
  }

  std::string where_;
  int people_ = 0, width_ = 0, height_ = 0, frames_ = 0, seed_ = 0, next_ = 0;
  double fps_ = 25.0;
  bool loop_ = false;
  Pacer pacer_;
  StopFlag flag_;
  cv::Mat background_;
  std::vector<Walker> walkers_;
};

}  // namespace

std::unique_ptr<Source> make_synthetic(const SourceOptions& options) {
  return std::make_unique<Synthetic>(options);
}

}  // namespace posewire

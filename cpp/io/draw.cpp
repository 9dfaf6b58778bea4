// SPDX-License-Identifier: Apache-2.0
#include "io/draw.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "io/mat.h"

namespace posewire {
namespace {

constexpr float kFaint = 0.3F;  // keypoints below are drawn, but faintly
constexpr int kShift = 4;       // OpenCV's fixed point: sixteenths of a pixel
constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;

// Bright enough for a dark street, apart from each other in hue; BGR.
const cv::Scalar kPalette[] = {
    {53, 140, 255}, {168, 210, 0},   {255, 170, 60}, {110, 80, 245},  {70, 225, 255},
    {70, 220, 140}, {255, 130, 190}, {240, 230, 60}, {150, 150, 255}, {60, 255, 200},
};
constexpr int kColors = static_cast<int>(sizeof kPalette / sizeof kPalette[0]);
const cv::Scalar kDark(24, 20, 18), kWhite(255, 255, 255);

struct Box {
  float left = 0.0F, top = 0.0F, right = 0.0F, bottom = 0.0F;
  bool empty = true;
  float width() const noexcept { return right - left; }
  float height() const noexcept { return bottom - top; }
};

// The extent of the keypoints that are there; a score or a place that is no number is not.
bool present(const Keypoint& k) noexcept {
  constexpr float kFar = 1.0e5F;  // beyond it the fixed point would overflow
  return k.score > 0.0F && std::fabs(k.x) < kFar && std::fabs(k.y) < kFar;
}

Box box_of(const Poses& poses, int person) {
  Box box;
  const Keypoint* const keypoints = poses.keypoints_of(person);
  for (int k = 0; k < poses.keypoints_per_person(); ++k) {
    const Keypoint& p = keypoints[k];
    if (!present(p)) {
      continue;
    }
    box.left = box.empty ? p.x : std::min(box.left, p.x);
    box.right = box.empty ? p.x : std::max(box.right, p.x);
    box.top = box.empty ? p.y : std::min(box.top, p.y);
    box.bottom = box.empty ? p.y : std::max(box.bottom, p.y);
    box.empty = false;
  }
  return box;
}

cv::Point fixed(float x, float y) {
  return cv::Point(cvRound(x * (1 << kShift)), cvRound(y * (1 << kShift)));
}

cv::Scalar mix(const cv::Scalar& a, const cv::Scalar& b, double share) {
  return a * (1.0 - share) + b * share;
}

// One size for all text of a picture: its lines stay readable when the video is scaled down.
double text_scale(const cv::Mat& picture) {
  const double diagonal = std::hypot(picture.cols, picture.rows);
  return std::min(1.6, std::max(0.32, diagonal / 2000.0));
}

int text_weight(double scale) { return scale > 0.8 ? 2 : 1; }

void line(cv::Mat* picture, const Keypoint& a, const Keypoint& b, const cv::Scalar& color,
          float thick) {
  cv::line(*picture, fixed(a.x, a.y), fixed(b.x, b.y), color, std::max(1, cvRound(thick)),
           cv::LINE_AA, kShift);
}

void dot(cv::Mat* picture, const Keypoint& k, const cv::Scalar& color, float radius) {
  cv::circle(*picture, fixed(k.x, k.y), cvRound(radius * (1 << kShift)), color, cv::FILLED,
             cv::LINE_AA, kShift);
}

// What one person is drawn with.
struct Brush {
  const Keypoint* keypoints;
  int count;
  cv::Scalar color;
  float thick;
  Box box;  // a little larger than the keypoints
};

Brush brush_for(const cv::Mat& picture, const Poses& poses, int person, int color) {
  Brush brush{poses.keypoints_of(person), poses.keypoints_per_person(),
              kPalette[static_cast<std::size_t>(((color % kColors) + kColors) % kColors)], 1.0F,
              box_of(poses, person)};
  const float extent = std::max(brush.box.width(), brush.box.height());
  const float diagonal =
      std::hypot(static_cast<float>(picture.cols), static_cast<float>(picture.rows));
  brush.thick = std::max(1.0F, std::min(diagonal / 330.0F, extent / 42.0F));
  const float margin = 0.06F * extent + brush.thick;
  brush.box.left -= margin;
  brush.box.right += margin;
  brush.box.top -= margin;
  brush.box.bottom += margin;
  return brush;
}

// Names are data, but sides are called left and right in all of them.
cv::Scalar shade(const Brush& brush, const Skeleton& skeleton, int a, int b) {
  const auto right = [&skeleton](int k) {
    return skeleton.keypoints[static_cast<std::size_t>(k)].compare(0, 5, "right") == 0;
  };
  return right(a) || right(b) ? brush.color * 0.75 : brush.color;
}

// Calls draw(a, b, colour) for the limbs whose weaker end is faint, or for those where it is not.
template <typename Draw>
void for_limbs(const Brush& brush, const Skeleton& skeleton, bool faint, Draw&& draw) {
  for (const auto& [a, b] : skeleton.limbs) {
    const int known = std::min(brush.count, skeleton.count());
    if (a < 0 || b < 0 || a >= known || b >= known) {
      continue;
    }
    const Keypoint &from = brush.keypoints[a], &to = brush.keypoints[b];
    if (present(from) && present(to) && (std::min(from.score, to.score) < kFaint) == faint) {
      draw(from, to, shade(brush, skeleton, a, b));
    }
  }
}

// What is blended: dark edges that keep lines visible on any ground, and all that is faint.
void draw_under(cv::Mat* layer, const Brush& brush, const Skeleton& skeleton) {
  const float edge = std::max(1.0F, 0.45F * brush.thick);
  for_limbs(brush, skeleton, false, [&](const Keypoint& a, const Keypoint& b, const cv::Scalar&) {
    line(layer, a, b, kDark, brush.thick + 2.0F * edge);
  });
  for_limbs(brush, skeleton, true,
            [&](const Keypoint& a, const Keypoint& b, const cv::Scalar& color) {
              line(layer, a, b, color, brush.thick);
            });
  for (int k = 0; k < brush.count; ++k) {
    const Keypoint& keypoint = brush.keypoints[k];
    if (present(keypoint)) {
      const bool faint = keypoint.score < kFaint;
      dot(layer, keypoint, faint ? brush.color : kDark, 1.15F * brush.thick + (faint ? 0 : edge));
    }
  }
  const Box& box = brush.box;
  cv::rectangle(*layer, fixed(box.left, box.top), fixed(box.right, box.bottom), brush.color, 1,
                cv::LINE_AA, kShift);
}

void draw_corners(cv::Mat* picture, const Brush& brush) {
  const Box& box = brush.box;
  const float reach = 0.18F * std::min(box.width(), box.height());
  const int thick = std::max(1, cvRound(0.6F * brush.thick));
  for (const float x : {box.left, box.right}) {
    for (const float y : {box.top, box.bottom}) {
      const float inwards_x = x == box.left ? reach : -reach;
      const float inwards_y = y == box.top ? reach : -reach;
      cv::line(*picture, fixed(x, y), fixed(x + inwards_x, y), brush.color, thick, cv::LINE_AA,
               kShift);
      cv::line(*picture, fixed(x, y), fixed(x, y + inwards_y), brush.color, thick, cv::LINE_AA,
               kShift);
    }
  }
}

// The score on a tab of the person's colour, above the box or, at the edge, inside it.
void draw_score(cv::Mat* picture, const Brush& brush, float score) {
  const double scale = 0.8 * text_scale(*picture);
  const std::string text =
      std::to_string(cvRound(100.0F * std::min(1.0F, std::max(0.0F, score)))) + "%";
  int below = 0;
  const cv::Size size = cv::getTextSize(text, kFont, scale, 1, &below);
  const int pad = std::max(2, size.height / 3);
  if (brush.box.height() < 4.0F * static_cast<float>(size.height)) {
    return;  // the tab would hide a small person
  }
  cv::Rect tab(cvRound(brush.box.left), 0, size.width + 2 * pad, size.height + 2 * pad);
  tab.y = cvRound(brush.box.top) - tab.height;
  if (tab.y < 0) {
    tab.y = cvRound(brush.box.top);
  }
  cv::rectangle(*picture, tab, brush.color, cv::FILLED);
  cv::putText(*picture, text, cv::Point(tab.x + pad, tab.y + pad + size.height), kFont, scale,
              kDark, 1, cv::LINE_AA);
}

void draw_over(cv::Mat* picture, const Brush& brush, const Skeleton& skeleton) {
  for_limbs(brush, skeleton, false,
            [&](const Keypoint& a, const Keypoint& b, const cv::Scalar& color) {
              line(picture, a, b, color, brush.thick);
            });
  for (int k = 0; k < brush.count; ++k) {
    const Keypoint& keypoint = brush.keypoints[k];
    if (present(keypoint) && keypoint.score >= kFaint) {
      dot(picture, keypoint, mix(brush.color, kWhite, 0.25), 1.15F * brush.thick);
      if (brush.thick > 1.5F) {  // small people would be all white
        dot(picture, keypoint, kWhite, 0.5F * brush.thick);
      }
    }
  }
}

}  // namespace

void draw_poses(Image* image, const Poses& poses, const Skeleton& skeleton,
                const std::vector<int>& colors) {
  cv::Mat picture = mat_of(image);
  std::vector<Brush> brushes;
  std::vector<int> people;
  cv::Rect touched;
  for (int person = 0; person < poses.size(); ++person) {
    const auto index = static_cast<std::size_t>(person);
    const Brush brush =
        brush_for(picture, poses, person, index < colors.size() ? colors[index] : person);
    if (brush.box.empty) {
      continue;
    }
    const int margin = cvCeil(2.0F * brush.thick) + 3;
    touched |=
        cv::Rect(cvFloor(brush.box.left) - margin, cvFloor(brush.box.top) - margin,
                 cvCeil(brush.box.width()) + 2 * margin, cvCeil(brush.box.height()) + 2 * margin);
    brushes.push_back(brush);
    people.push_back(person);
  }
  touched &= cv::Rect(0, 0, picture.cols, picture.rows);
  if (touched.empty()) {
    return;
  }
  cv::Mat layer = picture.clone();
  for (const Brush& brush : brushes) {
    draw_under(&layer, brush, skeleton);
  }
  cv::Mat part = picture(touched);
  cv::addWeighted(layer(touched), 0.45, part, 0.55, 0.0, part);
  for (std::size_t i = 0; i < brushes.size(); ++i) {
    draw_corners(&picture, brushes[i]);
    draw_over(&picture, brushes[i], skeleton);
    draw_score(&picture, brushes[i], poses.score(people[i]));
  }
}

void draw_captions(Image* image, const std::vector<std::string>& texts) {
  cv::Mat picture = mat_of(image);
  const double scale = text_scale(picture);
  const int weight = text_weight(scale);
  int x = cvRound(20 * scale);
  for (const std::string& text : texts) {
    int below = 0;
    const cv::Size size = cv::getTextSize(text, kFont, scale, weight, &below);
    const int pad = std::max(3, cvRound(0.55 * size.height));
    cv::Rect plate(x, cvRound(20 * scale), size.width + 2 * pad, size.height + 2 * pad);
    x = plate.br().x + pad;
    if ((plate & cv::Rect(0, 0, picture.cols, picture.rows)) != plate) {
      return;  // no room: better none than half of one
    }
    cv::Mat part = picture(plate);
    cv::addWeighted(part, 0.35, cv::Mat(part.size(), part.type(), kDark), 0.65, 0.0, part);
    cv::putText(picture, text, cv::Point(plate.x + pad, plate.y + pad + size.height), kFont, scale,
                kWhite, weight, cv::LINE_AA);
  }
}

void fit_into(const Image& image, int width, int height, Image* out) {
  out->resize(width, height);
  cv::Mat target = mat_of(out);
  const cv::Mat picture = mat_of(image);
  if (image.width == width && image.height == height) {
    picture.copyTo(target);
    return;
  }
  const double scale = std::min(static_cast<double>(width) / image.width,
                                static_cast<double>(height) / image.height);
  const cv::Size size(std::min(width, std::max(1, cvRound(image.width * scale))),
                      std::min(height, std::max(1, cvRound(image.height * scale))));
  target.setTo(cv::Scalar::all(0));
  cv::Mat part = target(
      cv::Rect((width - size.width) / 2, (height - size.height) / 2, size.width, size.height));
  cv::resize(picture, part, size, 0, 0, scale < 1.0 ? cv::INTER_AREA : cv::INTER_LINEAR);
}

const std::vector<int>& PersonColors::assign(const Poses& poses) {
  constexpr int kForgotten = 15;  // frames
  for (Seen& seen : seen_) {
    ++seen.age;
  }
  colors_.clear();
  for (int person = 0; person < poses.size(); ++person) {
    const Box box = box_of(poses, person);
    Seen* best = nullptr;
    float nearest = 0.5F;  // in heights: further is somebody else
    for (Seen& seen : seen_) {
      const float height = std::max(1.0F, std::max(box.height(), seen.bottom - seen.top));
      const float away = std::hypot(box.left + box.right - seen.left - seen.right,
                                    box.top + box.bottom - seen.top - seen.bottom) /
                         (2.0F * height);
      if (seen.age > 0 && away < nearest) {
        nearest = away;
        best = &seen;
      }
    }
    if (best == nullptr) {
      seen_.push_back(Seen{0, 0, 0, 0, next_, 0});
      next_ = (next_ + 1) % kColors;
      best = &seen_.back();
    }
    *best = Seen{box.left, box.top, box.right, box.bottom, best->color, 0};
    colors_.push_back(best->color);
  }
  seen_.erase(std::remove_if(seen_.begin(), seen_.end(),
                             [](const Seen& seen) { return seen.age > kForgotten; }),
              seen_.end());
  return colors_;
}

}  // namespace posewire

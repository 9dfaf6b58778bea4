// SPDX-License-Identifier: Apache-2.0
#include "pipeline/payload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

namespace posewire {
namespace {

constexpr int kPlaces = 5;  // of a normalised coordinate: 0.04 pixels of a 4K picture

constexpr std::uint64_t kPowers[] = {1,      10,      100,      1000,      10000,
                                     100000, 1000000, 10000000, 100000000, 1000000000};

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_unsigned(std::uint64_t value, std::size_t least_digits, std::string* out) {
  char digits[20];
  std::size_t count = 0;
  for (; value > 0 || count < least_digits; value /= 10) {
    digits[count++] = static_cast<char>('0' + value % 10);
  }
  while (count > 0) {
    out->push_back(digits[--count]);
  }
}

void append_person(const Keypoint* keypoints, int count, float score, double width, double height,
                   std::string* out) {
  double left = 0, right = 0, top = 0, bottom = 0;
  bool any = false;
  for (int k = 0; k < count; ++k) {
    const Keypoint& point = keypoints[k];
    if (point.score > 0) {
      left = any ? std::min<double>(left, point.x) : point.x;
      right = any ? std::max<double>(right, point.x) : point.x;
      top = any ? std::min<double>(top, point.y) : point.y;
      bottom = any ? std::max<double>(bottom, point.y) : point.y;
      any = true;
    }
  }
  *out += "{\"score\":";
  append_number(score, kPlaces, out);
  *out += ",\"box\":[";
  append_number(any ? (left + 0.5) / width : 0.0, kPlaces, out);
  out->push_back(',');
  append_number(any ? (top + 0.5) / height : 0.0, kPlaces, out);
  out->push_back(',');
  append_number((right - left) / width, kPlaces, out);
  out->push_back(',');
  append_number((bottom - top) / height, kPlaces, out);
  *out += "],\"kp\":[";
  for (int k = 0; k < count; ++k) {
    const Keypoint& point = keypoints[k];
    if (k > 0) {
      out->push_back(',');
    }
    if (point.score > 0) {
      append_number((static_cast<double>(point.x) + 0.5) / width, kPlaces, out);
      out->push_back(',');
      append_number((static_cast<double>(point.y) + 0.5) / height, kPlaces, out);
      out->push_back(',');
      append_number(point.score, kPlaces, out);
    } else {
      *out += "0,0,0";
    }
  }
  *out += "]}";
}

}  // namespace

void append_number(double value, int decimals, std::string* out) {
  const std::uint64_t power = kPowers[std::clamp(decimals, 0, 9)];
  if (!std::isfinite(value)) {
    value = 0.0;
  }
  // 1e8 with nine places is still below 2^63.
  const double limit = decimals > 5 ? 1e8 : 1e12;
  const double magnitude = std::min(std::fabs(value), limit) * static_cast<double>(power);
  const auto scaled = static_cast<std::uint64_t>(std::llround(magnitude));
  if (value < 0 && scaled > 0) {
    out->push_back('-');
  }
  append_unsigned(scaled / power, 1, out);
  std::uint64_t fraction = scaled % power;
  if (fraction == 0) {
    return;
  }
  std::size_t places = static_cast<std::size_t>(std::clamp(decimals, 0, 9));
  for (; fraction % 10 == 0; fraction /= 10) {
    --places;
  }
  out->push_back('.');
  append_unsigned(fraction, places, out);
}

void append_time(std::chrono::system_clock::time_point time, std::string* out) {
  using std::chrono::milliseconds;
  const auto ms = std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
  std::int64_t seconds = ms / 1000;
  std::int64_t rest = ms % 1000;
  if (rest < 0) {
    --seconds;
    rest += 1000;
  }
  // Years 1970 … 9999: a camera's broken clock does not break the message.
  const auto clamped = static_cast<std::time_t>(std::clamp<std::int64_t>(seconds, 0, 253402300799));
  std::tm utc = {};
  ::gmtime_r(&clamped, &utc);
  append_unsigned(static_cast<std::uint64_t>(utc.tm_year) + 1900, 4, out);
  for (const auto& [mark, value] : {std::pair<char, int>{'-', utc.tm_mon + 1},
                                    {'-', utc.tm_mday},
                                    {'T', utc.tm_hour},
                                    {':', utc.tm_min},
                                    {':', utc.tm_sec}}) {
    out->push_back(mark);
    append_unsigned(static_cast<std::uint64_t>(value), 2, out);
  }
  out->push_back('.');
  append_unsigned(static_cast<std::uint64_t>(rest), 3, out);
  out->push_back('Z');
}

PayloadWriter::PayloadWriter(const std::string& node, const std::vector<std::string>& cameras,
                             const Bundle& bundle) {
  for (const std::string& camera : cameras) {
    heads_.push_back("{\"schema\":\"posewire.poses/1\",\"node\":" + quoted(node) +
                     ",\"camera\":" + quoted(camera) + ",\"seq\":");
  }
  const Manifest& manifest = bundle.manifest;
  const std::string precision = manifest.target ? manifest.target->precision : "";
  model_ = ",\"skeleton\":" + quoted(manifest.skeleton.name) +
           ",\"model\":{\"id\":" + quoted(manifest.name + "@" + manifest.version) +
           ",\"sha256\":" + quoted(bundle.sha256) + ",\"precision\":" + quoted(precision) + "}";
}

void PayloadWriter::write(const Frame& frame, int width, int height, const Poses& poses,
                          const Latency& latency, std::string* out) const {
  out->assign(heads_[static_cast<std::size_t>(frame.camera)]);
  append_unsigned(frame.seq, 1, out);
  *out += ",\"t_capture\":\"";
  append_time(frame.t_capture, out);
  out->push_back('"');
  if (frame.t_media_ms) {
    *out += ",\"t_media_ms\":";
    append_number(std::max(*frame.t_media_ms, 0.0), 3, out);
  }
  *out += ",\"image\":{\"width\":";
  append_unsigned(static_cast<std::uint64_t>(width), 1, out);
  *out += ",\"height\":";
  append_unsigned(static_cast<std::uint64_t>(height), 1, out);
  out->push_back('}');
  *out += model_;
  *out += ",\"lat_ms\":{\"infer\":";
  append_number(latency.infer_ms, 3, out);
  *out += ",\"total\":";
  append_number(latency.total_ms, 3, out);
  *out += "},\"people\":[";
  for (int person = 0; person < poses.size(); ++person) {
    if (person > 0) {
      out->push_back(',');
    }
    append_person(poses.keypoints_of(person), poses.keypoints_per_person(), poses.score(person),
                  width, height, out);
  }
  *out += "]}";
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// The message of one frame, as it goes on the wire (MQTT topic …/poses, DESIGN 3.5):
//
//   {"schema":"posewire.poses/1","node":"n1","camera":"door","seq":812,
//    "t_capture":"2026-01-02T03:04:05.123Z","t_media_ms":32480,       (t_media_ms: files)
//    "image":{"width":1280,"height":720},"skeleton":"coco17",
//    "model":{"id":"name@version","sha256":"ab12…","precision":"int8"},
//    "lat_ms":{"infer":7.1,"total":31},
//    "people":[{"score":0.91,"box":[left,top,width,height],"kp":[x,y,score, …]}]}
//
// x = (x_frame + 0.5) / width, not clamped; box: the extent of the keypoints with score > 0,
// normalised too; an absent keypoint is 0,0,0. Five decimals. Every number is finite.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/image.h"
#include "core/pose.h"

namespace posewire {

struct Latency {
  double infer_ms = 0.0;  // of the batch that the frame was in
  double total_ms = 0.0;  // from arrival to this message
};

class PayloadWriter {
 public:
  PayloadWriter(const std::string& node, const std::vector<std::string>& cameras,
                const Bundle& bundle);

  // Replaces *out, which keeps its memory. Poses are in frame pixels. Reentrant.
  void write(const Frame& frame, int width, int height, const Poses& poses, const Latency& latency,
             std::string* out) const;

 private:
  std::vector<std::string> heads_;  // per camera: from '{' to "seq":
  std::string model_;               // from "skeleton" to the model's end
};

// Appends the shortest form of `value` rounded to `decimals` (0 … 9) places; 0 for NaN and Inf.
// Numbers of more than 12 digits before the point are clamped. Knows no locale.
void append_number(double value, int decimals, std::string* out);

// Appends RFC 3339 in UTC with milliseconds.
void append_time(std::chrono::system_clock::time_point time, std::string* out);

}  // namespace posewire

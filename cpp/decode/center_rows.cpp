// SPDX-License-Identifier: Apache-2.0
// The row `center`, its form with rows: every row is a whole person. YOLO-pose (Maji et al.,
// CVPRW 2022, arXiv 2204.06806) as Ultralytics exports it, RTMO (Lu et al., CVPR 2024, arXiv
// 2312.07526) as MMDeploy does.
//
// Outputs, sequences of N rows, coordinates in network pixels, scores 0 … 1 (sigmoid applied):
//   rows       5 + 3 K channels: box centre x, y, width, height, detection score, then x, y, score
//              of every keypoint (YOLOv8, YOLO11: [1, 56, 8400] NCW, K = 17)
//              5 + 2 K: keypoints without scores; theirs is the detection's
//              6 + 3 K: box corners x1, y1, x2, y2, detection score, class (not read), keypoints
//              (end-to-end exports with NMS inside, NWC)
// or boxes     5 channels: x1, y1, x2, y2, detection score
//    keypoints 3 K (or 2 K) channels: x, y, score of every keypoint
// or, of a detector, boxes alone. A pose is then the box: its top left and its bottom right corner,
// each with the detection's score, which the pose's score therefore is. nms_oks is not read.
//
// Parameters (manifest "decode"; every one optional), besides those of center.cpp:
//   nms_iou         0.7    a box that overlaps a better one more is its duplicate; 1: none is
//   max_candidates  1024   rows that enter the NMS, the highest
//   corners         bool   boxes are corners, not centre and size; from the outputs (see above)
//
// The scores are one row of the sequence: a vector pass over them where they are contiguous (NCW),
// a strided one otherwise; only rows over the threshold are read any further.
//
// Worst case, any input: C = max_candidates, P = max_people. Time O(N + C log C + C P K), memory
// O(N + P K), all allocated by make_scratch(): 1024 candidates that are all tested against 100
// people of 17 keypoints cost 1.7 million exponentials. A frame allocates nothing once `poses` has
// grown.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "decode/box.h"
#include "decode/center.h"
#include "decode/planes.h"

namespace posewire {
namespace {

constexpr int kBoxValues = 4, kScoreAt = 4;
constexpr int kLongest = 1 << 20;  // rows

struct RowsSettings {
  CenterSettings both;
  float nms_iou;
  int max_candidates;
  bool corners;
};

class RowsScratch : public Decoder::Scratch {
 public:
  RowsScratch(int length, int keypoint_values, int keypoints, int max_people)
      : scores(static_cast<std::size_t>(length) + kLanes),
        flags(static_cast<std::size_t>(length) + 8),
        candidates(static_cast<std::size_t>(length)),
        values(static_cast<std::size_t>(std::max(keypoint_values, kBoxValues))),
        people(keypoints, max_people) {
    boxes.reserve(static_cast<std::size_t>(max_people));
  }

  std::vector<float> scores;        // only where they are not contiguous float32
  std::vector<std::uint8_t> flags;  // per row: over the threshold; eight more of 0
  std::vector<int> candidates;      // rows
  std::vector<float> values;        // of one row
  std::vector<Box> boxes;           // of the kept people
  KeptPeople people;
};

class CenterRows : public Decoder {
 public:
  CenterRows(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<RowsScratch>(length_, per_keypoint_ * keypoints_, keypoints_,
                                         settings_.both.max_people);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void find_outputs(const Manifest& manifest);
  void find_boxes(const Manifest& manifest);
  void check_frame(const std::vector<MapView>& outputs) const;
  const float* scores_of(const MapView& boxes, RowsScratch* s) const;
  int find_candidates(const float* scores, RowsScratch* s) const;
  bool read_box(const MapView& boxes, int row, RowsScratch* s, Box* box) const;
  void read_keypoints(const MapView& keypoints, int row, float score, RowsScratch* s,
                      Keypoint* to) const;

  const Kernels& kernels_;
  RowsSettings settings_{};
  int keypoints_ = 0, length_ = 0;
  int box_channels_ = 0, keypoint_channels_ = 0;
  int first_keypoint_ = 0;                       // channel
  int per_keypoint_ = 3;                         // values
  std::size_t boxes_at_ = 0, keypoints_at_ = 0;  // indices among the outputs; the same for `rows`
  KeypointRules rules_;
  OksNms nms_;
};

CenterSettings settings_of(const Manifest& manifest, RowsSettings* settings, bool corners) {
  Params params(manifest.decode);
  settings->both = read_center_settings(&params);
  settings->nms_iou = params.number("nms_iou", 0.7F, 0.0F, 1.0F);
  settings->max_candidates = params.integer("max_candidates", 1024, 1, 16384);
  settings->corners = params.boolean("corners").value_or(corners);
  params.done();
  return settings->both;
}

// Corners have none; the value does not matter where no pose is compared.
std::vector<float> sigmas_of(const Manifest& manifest) {
  return manifest.mode == Mode::kDetector ? std::vector<float>(2, 0.1F) : manifest.skeleton.sigmas;
}

CenterRows::CenterRows(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.keypoints()),
      rules_(manifest, 0.0F),
      nms_(sigmas_of(manifest), 1.0F) {
  const bool detector = manifest.mode == Mode::kDetector;
  if (detector) {
    find_boxes(manifest);
  } else {
    find_outputs(manifest);
  }
  const bool corners = detector || boxes_at_ != keypoints_at_ || first_keypoint_ == 6;
  const CenterSettings both = settings_of(manifest, &settings_, corners);
  if (detector && !settings_.corners) {
    refuse_center("decode.corners", "a detector's boxes are corners");
  }
  rules_ = KeypointRules(manifest, both.keypoint_threshold);
  nms_ = OksNms(sigmas_of(manifest), detector ? 1.0F : both.nms_oks);
}

// A detector's one output, whose corners are its keypoints.
void CenterRows::find_boxes(const Manifest& manifest) {
  const OutputSpec& boxes = manifest.outputs[0];
  if (manifest.outputs.size() != 1 || boxes.name != "boxes" || boxes.channels != 5) {
    refuse_center("outputs", "a detector needs boxes alone, of 5 channels");
  }
  if (boxes.length < 1 || boxes.length > kLongest) {
    refuse_center("outputs.boxes.length", "must be 1 … " + std::to_string(kLongest));
  }
  length_ = boxes.length;
  box_channels_ = keypoint_channels_ = boxes.channels;
  first_keypoint_ = 0;
  per_keypoint_ = 2;
}

// The outputs' places and what their channels are.
void CenterRows::find_outputs(const Manifest& manifest) {
  const OutputSpec* rows = nullptr;
  const OutputSpec* boxes = nullptr;
  const OutputSpec* keypoints = nullptr;
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    const OutputSpec& output = manifest.outputs[i];
    const std::string where = "outputs." + output.name;
    if (output.name == "rows") {
      rows = &output;
      boxes_at_ = keypoints_at_ = i;
    } else if (output.name == "boxes") {
      boxes = &output;
      boxes_at_ = i;
    } else if (output.name == "keypoints") {
      keypoints = &output;
      keypoints_at_ = i;
    } else {
      refuse_center(where, "is none of center's (rows, or boxes and keypoints)");
    }
    if (output.length < 1 || output.length > kLongest) {
      refuse_center(where + ".length", "must be 1 … " + std::to_string(kLongest));
    }
    if (output.length != manifest.outputs[0].length) {
      refuse_center(where + ".length", "must be that of " + manifest.outputs[0].name + " (" +
                                           std::to_string(manifest.outputs[0].length) + ")");
    }
  }
  if ((rows != nullptr) == (boxes != nullptr && keypoints != nullptr) ||
      (rows != nullptr && manifest.outputs.size() > 1)) {
    refuse_center("outputs", "center needs rows alone, or boxes and keypoints");
  }
  length_ = manifest.outputs[0].length;
  const int k = keypoints_;
  const auto wrong = [k](const OutputSpec& output, const std::string& needed) {
    refuse_center("outputs." + output.name + ".channels", "is " + std::to_string(output.channels) +
                                                              ", but " + std::to_string(k) +
                                                              " keypoints need " + needed);
  };
  if (rows != nullptr) {
    const int channels = rows->channels;
    if (channels != 5 + 3 * k && channels != 5 + 2 * k && channels != 6 + 3 * k) {
      wrong(*rows, std::to_string(5 + 3 * k) + ", " + std::to_string(5 + 2 * k) + " or " +
                       std::to_string(6 + 3 * k));
    }
    box_channels_ = keypoint_channels_ = channels;
    first_keypoint_ = channels == 6 + 3 * k ? 6 : 5;
    per_keypoint_ = channels == 5 + 2 * k ? 2 : 3;
    return;
  }
  if (boxes->channels != 5) {
    refuse_center("outputs.boxes.channels",
                  "is " + std::to_string(boxes->channels) + ", but must be 5");
  }
  if (keypoints->channels != 3 * k && keypoints->channels != 2 * k) {
    wrong(*keypoints, std::to_string(3 * k) + " or " + std::to_string(2 * k));
  }
  box_channels_ = boxes->channels;
  keypoint_channels_ = keypoints->channels;
  per_keypoint_ = keypoints->channels / k;
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void CenterRows::check_frame(const std::vector<MapView>& outputs) const {
  const auto fits = [this, &outputs](std::size_t at, int channels) {
    return at < outputs.size() && outputs[at].data != nullptr && outputs[at].height == 1 &&
           outputs[at].width == length_ && outputs[at].channels == channels;
  };
  if (!fits(boxes_at_, box_channels_) || !fits(keypoints_at_, keypoint_channels_)) {
    throw Error(Code::kBug, "decode", "a frame's rows differ in shape from the manifest's");
  }
}

const float* CenterRows::scores_of(const MapView& boxes, RowsScratch* s) const {
  const std::ptrdiff_t first = kScoreAt * boxes.channel_stride;
  if (boxes.dtype == DType::kFloat32 && boxes.column_stride == 1) {
    return static_cast<const float*>(boxes.data) + first;
  }
  read_values(boxes, first, boxes.column_stride, length_, kernels_, s->scores.data());
  return s->scores.data();
}

// Fills `candidates` with the rows over the threshold, best first; returns how many.
int CenterRows::find_candidates(const float* scores, RowsScratch* s) const {
  kernels_.flag_over(scores, length_, settings_.both.score_threshold, s->flags.data());
  int found = 0;
  int* rows = s->candidates.data();
  for (int i = 0; i < length_; i += 8) {  // few are: eight flags are looked at together
    std::uint64_t eight;
    std::memcpy(&eight, s->flags.data() + i, sizeof eight);
    for (int k = i; eight != 0 && k < i + 8; ++k) {
      if (s->flags[static_cast<std::size_t>(k)] != 0) {
        rows[found++] = k;
      }
    }
  }
  const auto better = [scores](int a, int b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  };
  if (found > settings_.max_candidates) {
    std::nth_element(rows, rows + settings_.max_candidates, rows + found, better);
    found = settings_.max_candidates;
  }
  std::sort(rows, rows + found, better);
  return found;
}

// False for a box without an area or with a number that is none.
bool CenterRows::read_box(const MapView& boxes, int row, RowsScratch* s, Box* box) const {
  float* v = s->values.data();
  read_values(boxes, row * boxes.column_stride, boxes.channel_stride, kBoxValues, kernels_, v);
  *box = settings_.corners
             ? Box{v[0], v[1], v[2], v[3]}
             : Box{v[0] - 0.5F * v[2], v[1] - 0.5F * v[3], v[0] + 0.5F * v[2], v[1] + 0.5F * v[3]};
  return std::isfinite(box->right - box->left) && std::isfinite(box->bottom - box->top) &&
         box->right > box->left && box->bottom > box->top;
}

void CenterRows::read_keypoints(const MapView& keypoints, int row, float score, RowsScratch* s,
                                Keypoint* to) const {
  const float* v = s->values.data();
  read_values(keypoints, first_keypoint_ * keypoints.channel_stride + row * keypoints.column_stride,
              keypoints.channel_stride, per_keypoint_ * keypoints_, kernels_, s->values.data());
  for (int k = 0; k < keypoints_; ++k, v += per_keypoint_) {
    to[k] = rules_(v[0], v[1], per_keypoint_ == 3 ? v[2] : score);
  }
}

void CenterRows::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  check_frame(outputs);
  auto* s = static_cast<RowsScratch*>(scratch);
  s->people.clear();
  s->boxes.clear();
  const MapView& boxes = outputs[boxes_at_];
  const float* scores = scores_of(boxes, s);
  const int found = find_candidates(scores, s);
  for (int i = 0; i < found && !s->people.full(); ++i) {
    const int row = s->candidates[static_cast<std::size_t>(i)];
    Box box{};
    const auto repeats = [this, &box](const Box& kept) {
      return iou(kept, box) > settings_.nms_iou;
    };
    if (!read_box(boxes, row, s, &box) || std::any_of(s->boxes.begin(), s->boxes.end(), repeats)) {
      continue;
    }
    read_keypoints(outputs[keypoints_at_], row, scores[row], s, s->people.next());
    if (s->people.keep(nms_)) {
      s->boxes.push_back(box);
    }
  }
  s->people.report(settings_.both.person_threshold, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_center_rows(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<CenterRows>(manifest, kernels);
}

}  // namespace posewire

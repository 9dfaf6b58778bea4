// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <fstream>
#include <iterator>

#include "app/python.h"
#include "app/python_arrays.h"
#include "core/error.h"
#include "infer/preprocess.h"
#include "pipeline/ceiling.h"
#include "pipeline/estimator.h"

namespace nb = nanobind;

namespace posewire {
namespace {

using Points = nb::ndarray<const float, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

constexpr int kMaxSide = 1 << 15;

Image image_of(const Picture& picture) {
  if (picture.shape(0) < 1 || picture.shape(1) < 1 || picture.shape(0) > kMaxSide ||
      picture.shape(1) > kMaxSide) {
    throw Error(Code::kUsage, "image", "must be 1 to 32768 pixels wide and high");
  }
  Image image;
  const nb::gil_scoped_release release;
  copy_picture(picture, &image);
  return image;
}

FloatArray mapped(const Points& points, const Letterbox& box,
                  void (Letterbox::*map)(float*, float*) const noexcept) {
  auto [result, values] = new_array<float>({points.shape(0), 2});
  std::copy(points.data(), points.data() + points.size(), values);
  for (std::size_t i = 0; i < points.shape(0); ++i) {
    (box.*map)(values + 2 * i, values + 2 * i + 1);
  }
  return result;
}

nb::tuple letterboxed(const Picture& picture, int width, int height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    throw Error(Code::kUsage, "width, height", "must be 1 to 32768");
  }
  const Image image = image_of(picture);
  const Letterbox box = letterbox_of(image.width, image.height, width, height);
  auto [result, pixels] = new_array<std::uint8_t>(
      {static_cast<std::size_t>(height), static_cast<std::size_t>(width), 3});
  {
    const nb::gil_scoped_release release;
    letterbox(image, box, width, height, Channels::kBGR, pixels);  // the order is kept
  }
  return nb::make_tuple(result, box);
}

class PythonEstimator {
 public:
  PythonEstimator(const std::string& bundle_dir, int requests, int threads) {
    const nb::gil_scoped_release release;
    estimator_ = Estimator::open(bundle_dir, {requests, threads, 1});
    std::ifstream file(bundle_dir + "/manifest.json", std::ios::binary);
    manifest_json_.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    keypoints_ = estimator_->bundle().manifest.keypoints();
  }

  nb::tuple estimate(const Picture& picture) {
    const Image image = image_of(picture);
    Poses poses;
    {
      const nb::gil_scoped_release release;
      poses = estimator_->estimate(image);
    }
    return arrays_of(poses, keypoints_);
  }

  nb::list estimate_files(const std::vector<std::string>& paths) {
    std::vector<Poses> results;
    {
      const nb::gil_scoped_release release;
      results = estimator_->estimate_files(paths);
    }
    nb::list list;
    for (const Poses& poses : results) {
      list.append(arrays_of(poses, keypoints_));
    }
    return list;
  }

  nb::dict network(const Picture& picture) {
    const Image image = image_of(picture);
    std::vector<RawMap> maps;
    {
      const nb::gil_scoped_release release;
      maps = estimator_->network(image);
    }
    nb::dict result;
    for (const RawMap& map : maps) {
      auto [array, values] = new_array<float>({static_cast<std::size_t>(map.channels),
                                               static_cast<std::size_t>(map.height),
                                               static_cast<std::size_t>(map.width)});
      std::copy(map.values.begin(), map.values.end(), values);
      result[map.name.c_str()] = array;
    }
    return result;
  }

  const std::string& manifest_json() const { return manifest_json_; }
  int requests() const { return estimator_->requests(); }

 private:
  std::unique_ptr<Estimator> estimator_;
  std::string manifest_json_;
  int keypoints_ = 0;
};

nb::object picture_of(const std::string& path) {
  Image image;
  {
    const nb::gil_scoped_release release;
    image = read_picture(path);
  }
  return array_of(image);
}

nb::list runtime_list() {
  nb::list list;
  for (const RuntimeInfo& info : runtimes()) {
    nb::dict row;
    row["name"] = info.name;
    row["version"] = info.version;
    row["available"] = info.available;
    row["why"] = info.why;
    list.append(row);
  }
  return list;
}

nb::dict bench_inference(const std::string& bundle_dir, double seconds, int requests, int threads,
                         const std::vector<Picture>& pictures) {
  std::vector<Image> images;
  images.reserve(pictures.size());
  for (const Picture& picture : pictures) {
    images.push_back(image_of(picture));
  }
  Ceiling ceiling;
  {
    const nb::gil_scoped_release release;
    ceiling = measure_ceiling(bundle_dir, {requests, threads, 0}, seconds, images);
  }
  nb::dict result;
  result["fps"] = ceiling.fps;
  result["seconds"] = ceiling.seconds;
  result["pictures"] = ceiling.pictures;
  result["requests"] = ceiling.requests;
  result["max_batch"] = ceiling.max_batch;
  return result;
}

}  // namespace

void bind_infer(nb::module_& module) {
  nb::class_<Letterbox>(module, "Letterbox", "Where a picture lies in the network's input.")
      .def_prop_ro("scale_x",
                   [](const Letterbox& box) { return 1.0 / static_cast<double>(box.scale_x); })
      .def_prop_ro("scale_y",
                   [](const Letterbox& box) { return 1.0 / static_cast<double>(box.scale_y); })
      .def_ro("left", &Letterbox::left)
      .def_ro("top", &Letterbox::top)
      .def_ro("width", &Letterbox::width)
      .def_ro("height", &Letterbox::height)
      .def(
          "to_frame",
          [](const Letterbox& box, const Points& points) {
            return mapped(points, box, &Letterbox::to_frame);
          },
          nb::arg("points").noconvert(), "Network pixels [N, 2] -> frame pixels [N, 2], float32.")
      .def(
          "to_network",
          [](const Letterbox& box, const Points& points) {
            return mapped(points, box, &Letterbox::to_network);
          },
          nb::arg("points").noconvert(), "Frame pixels [N, 2] -> network pixels [N, 2], float32.");
  module.def(
      "letterbox", &letterboxed, nb::arg("image").noconvert(), nb::arg("width"), nb::arg("height"),
      "uint8 [H, W, 3] -> (uint8 [height, width, 3], Letterbox); keeps the channels' order.");

  nb::class_<PythonEstimator>(
      module, "Estimator",
      "A compiled bundle, opened: pictures in, poses out. Any thread may call it.")
      .def(nb::init<const std::string&, int, int>(), nb::arg("bundle_dir"), nb::arg("requests") = 0,
           nb::arg("threads") = 0)
      .def("estimate", &PythonEstimator::estimate, nb::arg("image").noconvert(),
           "BGR uint8 [H, W, 3] -> (scores [N], keypoints [N, K, 3]), float32, frame pixels.")
      .def("estimate_files", &PythonEstimator::estimate_files, nb::arg("paths"),
           "The same for picture files (EXIF applied), several at once, in order.")
      .def("network", &PythonEstimator::network, nb::arg("image").noconvert(),
           "The network's raw outputs by name, float32 [C, H, W].")
      .def_prop_ro("requests", &PythonEstimator::requests)
      .def_prop_ro("manifest_json", &PythonEstimator::manifest_json);
  module.def("read_picture", &picture_of, nb::arg("path"),
             "A picture file as BGR uint8 [H, W, 3], EXIF orientation applied.");
  module.def("runtimes", &runtime_list, "Every runtime that the engine knows.");
  module.def("bench_inference", &bench_inference, nb::arg("bundle_dir"), nb::arg("seconds") = 2.0,
             nb::arg("requests") = 0, nb::arg("threads") = 0,
             nb::arg("pictures") = std::vector<Picture>(),
             "Inference alone with the pictures (BGR) in turn, every request busy.");
}

}  // namespace posewire

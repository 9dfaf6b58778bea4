// SPDX-License-Identifier: Apache-2.0
// A folder of pictures in natural order of their names (a2 before a10), or one picture. Other files
// in it are passed over; a picture that cannot be read ends the run with its name.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <opencv2/imgcodecs.hpp>
#include <utility>

#include "core/log.h"
#include "io/jpeg.h"
#include "io/mat.h"
#include "io/pacing.h"
#include "io/source.h"
#include "io/uri.h"

namespace posewire {

bool is_picture_name(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  std::string extension = dot == std::string::npos ? "" : path.substr(dot + 1);
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* known : {"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm"}) {
    if (extension == known) {
      return true;
    }
  }
  return false;
}

namespace {

// Runs of digits compare as numbers, whatever their length; equal ones by the plain text.
bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      while (i < a.size() && a[i] == '0') ++i;
      while (j < b.size() && b[j] == '0') ++j;
      std::size_t m = i, n = j;
      while (m < a.size() && digit(a[m])) ++m;
      while (n < b.size() && digit(b[n])) ++n;
      if (m - i != n - j) {
        return m - i < n - j;
      }
      const int order = a.compare(i, m - i, b, j, n - j);
      if (order != 0) {
        return order < 0;
      }
      i = m;
      j = n;
    } else if (a[i] != b[j]) {
      return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    } else {
      ++i;
      ++j;
    }
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

// Returns what is wrong, or "" with the whole file in bytes.
std::string slurp(const std::string& path, std::vector<unsigned char>* bytes) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return "is not a regular file";  // opening a pipe would wait for a writer
  }
  std::FILE* const file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) {
    return std::strerror(errno);
  }
  bytes->clear();
  unsigned char block[1 << 16];
  std::size_t got = 0;
  while ((got = std::fread(block, 1, sizeof block, file)) > 0) {
    bytes->insert(bytes->end(), block, block + got);
  }
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  return failed ? "cannot be read" : bytes->empty() ? "is empty" : "";
}

class Folder final : public Source {
 public:
  explicit Folder(const SourceOptions& options)
      : options_(options),
        where_(camera_place(options.camera)),
        pacer_(options.fps, options.realtime) {}

  void open() override {
    if (flag_.stopped()) {
      throw Error(Code::kSource, where_, "stopped");
    }
    path_ = path_of(options_.uri);
    names_.clear();
    next_ = 0;
    pacer_.restart();
    struct stat info {};
    if (::stat(path_.c_str(), &info) != 0) {
      throw Error(Code::kSource, where_, path_ + ": " + std::strerror(errno));
    }
    if (S_ISREG(info.st_mode)) {
      names_.push_back(path_);
    } else if (S_ISDIR(info.st_mode)) {
      list();
    } else {
      throw Error(Code::kSource, where_, path_ + ": is neither a file nor a folder");
    }
  }

  Read read(Frame* frame, Status* status) override {
    if (next_ == names_.size() && options_.loop) {
      next_ = 0;
    }
    if (flag_.stopped()) {
      return Read::kStopped;
    }
    if (next_ == names_.size()) {
      return Read::kEnd;
    }
    const std::string& name = names_[next_];
    if (!decode(name, frame, status)) {
      return Read::kFailed;
    }
    // A picture has no time stamp of its own: its place at the rate asked for.
    frame->t_media_ms.reset();
    if (options_.fps > 0.0) {
      frame->t_media_ms = static_cast<double>(next_) * 1000.0 / options_.fps;
    }
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
  void list() {
    DIR* const folder = ::opendir(path_.c_str());
    if (folder == nullptr) {
      throw Error(Code::kSource, where_, path_ + ": " + std::strerror(errno));
    }
    std::vector<std::string> found;
    while (const dirent* entry = ::readdir(folder)) {
      const std::string name = entry->d_name;
      if (name[0] != '.' && is_picture_name(name)) {
        found.push_back(name);
      }
    }
    ::closedir(folder);
    if (found.empty()) {
      throw Error(Code::kSource, where_, path_ + ": no pictures in this folder");
    }
    std::sort(found.begin(), found.end(), natural_less);
    for (const std::string& name : found) {
      names_.push_back(path_.back() == '/' ? path_ + name : path_ + "/" + name);
    }
  }

  // imdecode, not imread: an unreadable file and an undecodable one are told apart.
  bool decode(const std::string& name, Frame* frame, Status* status) {
    std::string wrong = slurp(name, &bytes_);
    if (wrong.empty() && !jpeg_is_whole(bytes_.data(), bytes_.size())) {
      wrong = "is cut off";
    }
    if (wrong.empty()) {
      try {
        // Turns by EXIF orientation. Not into picture_'s memory: after a failure it holds the last.
        picture_ = cv::imdecode(bytes_, cv::IMREAD_COLOR);
      } catch (const cv::Exception& error) {
        picture_.release();
      }
      wrong = picture_.empty() ? "is not a picture that can be decoded" : "";
    }
    if (!wrong.empty()) {
      *status = Status(Code::kSource, sentence(where_, name + ": " + wrong));
      return false;
    }
    frame->image.resize(picture_.cols, picture_.rows);
    picture_.copyTo(mat_of(&frame->image));
    return true;
  }

  SourceOptions options_;
  std::string where_, path_;
  Pacer pacer_;
  StopFlag flag_;
  std::vector<std::string> names_;
  std::size_t next_ = 0;
  std::vector<unsigned char> bytes_;
  cv::Mat picture_;
};

}  // namespace

std::unique_ptr<Source> make_folder(const SourceOptions& options) {
  return std::make_unique<Folder>(options);
}

}  // namespace posewire

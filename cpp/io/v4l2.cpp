// SPDX-License-Identifier: Apache-2.0
// A camera by Video4Linux2's streaming calls: v4l2:/dev/video0?width=1280&height=720&fps=30
// Without a size the camera keeps the one it has. Not through OpenCV's VideoCapture, whose read()
// waits ten seconds for a silent camera and hides buffers in error, unplugging and time stamps.
#include "io/v4l2.h"

#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "io/jpeg.h"
#include "io/mat.h"
#include "io/pacing.h"
#include "io/uri.h"

namespace posewire {
namespace {

using Clock = std::chrono::steady_clock;

class KernelDevice final : public V4l2Device {
 public:
  ~KernelDevice() override { KernelDevice::close(); }

  int open(const char* path) override {
    fd_ = ::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return fd_ < 0 ? -errno : 0;
  }
  int control(unsigned long request, void* argument) override {
    int result = 0;
    do {
      result = ::ioctl(fd_, request, argument);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
  }
  void* map(std::size_t bytes, std::size_t offset) override {
    void* const memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(offset));
    return memory == MAP_FAILED ? nullptr : memory;
  }
  void unmap(void* memory, std::size_t bytes) override { ::munmap(memory, bytes); }
  int wait(int timeout_ms) override {
    pollfd entry{fd_, POLLIN, 0};
    const int ready = ::poll(&entry, 1, timeout_ms);
    return ready < 0 ? (errno == EINTR ? 0 : -errno) : ready;
  }
  void close() override {
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
  }

 private:
  int fd_ = -1;
};

// Pixel formats that are read, dear ones last: MJPG costs a decoder, but USB 2 carries no HD
// without it, so that it comes first for large pictures. cv: the conversion to BGR.
struct Format {
  std::uint32_t fourcc;
  int conversion;
  int halves, type;  // rows of memory per two rows of picture (0: compressed), of this type
};
constexpr Format kFormats[] = {
    {V4L2_PIX_FMT_YUYV, cv::COLOR_YUV2BGR_YUYV, 2, CV_8UC2},
    {V4L2_PIX_FMT_UYVY, cv::COLOR_YUV2BGR_UYVY, 2, CV_8UC2},
    {V4L2_PIX_FMT_NV12, cv::COLOR_YUV2BGR_NV12, 3, CV_8UC1},
    {V4L2_PIX_FMT_BGR24, -1, 2, CV_8UC3},
    {V4L2_PIX_FMT_RGB24, cv::COLOR_RGB2BGR, 2, CV_8UC3},
    {V4L2_PIX_FMT_GREY, cv::COLOR_GRAY2BGR, 2, CV_8UC1},
    {V4L2_PIX_FMT_MJPEG, -1, 0, 0},
    {V4L2_PIX_FMT_JPEG, -1, 0, 0},
};

bool compressed(const Format& format) { return format.halves == 0; }

class V4l2 final : public Source {
 public:
  V4l2(const SourceOptions& options, std::unique_ptr<V4l2Device> device)
      : where_(camera_place(options.camera)),
        timeout_ms_(options.timeout_ms),
        device_(std::move(device)) {
    const std::string address = address_place(options.camera, options.uri);
    Query query(rest_of(options.uri), address);
    width_ = query.integer("width", 0, 1, 16384);
    height_ = query.integer("height", 0, 1, 16384);
    fps_ = query.number("fps", options.fps, 0.0, 1000.0);
    query.done();
    path_ = query.path();
    if (path_.empty() || (width_ > 0) != (height_ > 0)) {
      throw Error(Code::kConfig, address,
                  path_.empty() ? "needs a device, as in v4l2:/dev/video0"
                                : "width and height are given together");
    }
  }

  ~V4l2() override { release(); }

  void open() override {
    if (flag_.stopped()) {
      throw Error(Code::kSource, where_, "stopped");
    }
    release();
    damaged_.store(0);
    const int error = device_->open(path_.c_str());
    if (error < 0) {
      const bool absent = error == -ENOENT || error == -ENODEV || error == -ENXIO;
      const std::string why = absent             ? "no such device"
                              : error == -EACCES ? "permission denied (join the group video)"
                                                 : std::strerror(-error);
      throw Error(Code::kSource, where_, path_ + ": " + why);
    }
    open_ = true;
    try {
      check_device();
      choose_format();
      set_rate();
      start_stream();
    } catch (const Error&) {
      release();
      throw;
    }
  }

  Read read(Frame* frame, Status* status) override {
    if (!open_) {
      return fail(status, "is not open");
    }
    const auto due = Clock::now() + std::chrono::milliseconds(timeout_ms_);
    for (;;) {
      if (flag_.stopped()) {
        return Read::kStopped;
      }
      // In slices: stop() needs no descriptor of its own.
      const int ready = device_->wait(100);
      if (ready < 0) {
        return fail(status, std::strerror(-ready));
      }
      if (ready == 0) {
        if (Clock::now() > due) {
          return fail(status, "no picture for " + std::to_string(timeout_ms_) + " ms");
        }
        continue;
      }
      v4l2_buffer buffer = blank();
      const int error = device_->control(VIDIOC_DQBUF, &buffer);
      if (error == -EAGAIN && Clock::now() <= due) {
        flag_.wait_until(Clock::now() + std::chrono::milliseconds(5));  // POLLERR without a reason
        continue;
      }
      if (error < 0) {
        return fail(status, error == -ENODEV ? "was unplugged" : std::strerror(-error));
      }
      const bool good = (buffer.flags & V4L2_BUF_FLAG_ERROR) == 0 && buffer.bytesused > 0 &&
                        buffer.index < buffers_.size() && decode(buffer, &frame->image);
      if (good) {
        stamp(buffer, frame);
      } else {
        damaged_.fetch_add(1);
      }
      const int queued = device_->control(VIDIOC_QBUF, &buffer);
      if (good) {
        return Read::kFrame;  // what became of the buffer shows at the next call
      }
      if (queued < 0) {
        return fail(status, queued == -ENODEV ? "was unplugged" : std::strerror(-queued));
      }
      if (Clock::now() > due) {
        return fail(status, "only damaged pictures for " + std::to_string(timeout_ms_) + " ms");
      }
    }
  }

  void stop() noexcept override { flag_.stop(); }
  bool live() const noexcept override { return true; }
  std::uint64_t damaged() const noexcept override { return damaged_.load(); }

 private:
  struct Buffer {
    void* memory;
    std::size_t bytes;
  };

  static v4l2_buffer blank() {
    v4l2_buffer buffer{};
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = V4L2_MEMORY_MMAP;
    return buffer;
  }

  void demand(unsigned long request, void* argument, const char* doing) {
    const int error = device_->control(request, argument);
    if (error < 0) {
      const std::string why =
          error == -EBUSY ? "is used by another program" : std::strerror(-error);
      throw Error(Code::kSource, where_, path_ + ": " + doing + ": " + why);
    }
  }

  void check_device() {
    v4l2_capability capability{};
    if (device_->control(VIDIOC_QUERYCAP, &capability) < 0) {
      throw Error(Code::kSource, where_, path_ + ": is not a camera");
    }
    const std::uint32_t can = (capability.capabilities & V4L2_CAP_DEVICE_CAPS) != 0
                                  ? capability.device_caps
                                  : capability.capabilities;
    if ((can & V4L2_CAP_VIDEO_CAPTURE) == 0 || (can & V4L2_CAP_STREAMING) == 0) {
      throw Error(Code::kSource, where_, path_ + ": does not deliver video (a metadata node?)");
    }
  }

  void choose_format() {
    std::vector<std::uint32_t> offered;
    v4l2_fmtdesc entry{};
    entry.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    for (entry.index = 0; entry.index < 64 && device_->control(VIDIOC_ENUM_FMT, &entry) >= 0;
         ++entry.index) {
      offered.push_back(entry.pixelformat);
    }
    v4l2_format format{};
    format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    demand(VIDIOC_G_FMT, &format, "format");
    v4l2_pix_format& pix = format.fmt.pix;
    if (width_ > 0) {
      pix.width = static_cast<std::uint32_t>(width_);
      pix.height = static_cast<std::uint32_t>(height_);
    }
    const bool large = static_cast<std::uint64_t>(pix.width) * pix.height > 640 * 480;
    format_ = nullptr;
    for (const bool wanted : {large, !large}) {
      for (const Format& known : kFormats) {
        const bool there = std::find(offered.begin(), offered.end(), known.fourcc) != offered.end();
        if (format_ == nullptr && there && compressed(known) == wanted) {
          format_ = &known;
        }
      }
    }
    if (format_ == nullptr) {
      throw Error(Code::kSource, where_, path_ + ": offers no pixel format that is read here");
    }
    pix.pixelformat = format_->fourcc;
    pix.field = V4L2_FIELD_ANY;
    demand(VIDIOC_S_FMT, &format, "format");
    // The driver answers with what it can do: another size is taken, another format is not.
    if (pix.pixelformat != format_->fourcc || pix.width == 0 || pix.height == 0) {
      throw Error(Code::kSource, where_, path_ + ": refuses the pixel format that it offers");
    }
    width_now_ = static_cast<int>(pix.width);
    height_now_ = static_cast<int>(pix.height);
    stride_ = pix.bytesperline;
  }

  void set_rate() {
    if (fps_ <= 0.0) {
      return;
    }
    v4l2_streamparm parameter{};
    parameter.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    parameter.parm.capture.timeperframe.numerator = 1000;
    parameter.parm.capture.timeperframe.denominator =
        static_cast<std::uint32_t>(std::lround(fps_ * 1000.0));
    // A camera of one rate does not know this call; its rate is what it is.
    (void)device_->control(VIDIOC_S_PARM, &parameter);
  }

  void start_stream() {
    v4l2_requestbuffers request{};
    request.count = 4;
    request.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    request.memory = V4L2_MEMORY_MMAP;
    demand(VIDIOC_REQBUFS, &request, "buffers");
    for (std::uint32_t i = 0; i < request.count; ++i) {
      v4l2_buffer buffer = blank();
      buffer.index = i;
      demand(VIDIOC_QUERYBUF, &buffer, "buffers");
      void* const memory = device_->map(buffer.length, buffer.m.offset);
      if (memory == nullptr) {
        throw Error(Code::kSource, where_, path_ + ": its memory cannot be mapped");
      }
      buffers_.push_back(Buffer{memory, buffer.length});
      demand(VIDIOC_QBUF, &buffer, "buffers");
    }
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    demand(VIDIOC_STREAMON, &type, "start");
  }

  void release() {
    if (!open_) {
      return;
    }
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    (void)device_->control(VIDIOC_STREAMOFF, &type);
    for (const Buffer& buffer : buffers_) {
      device_->unmap(buffer.memory, buffer.bytes);
    }
    buffers_.clear();
    device_->close();
    open_ = false;
  }

  // False: the picture is damaged or shorter than its size says.
  bool decode(const v4l2_buffer& buffer, Image* image) {
    try {
      return convert(buffer, image);
    } catch (const cv::Exception&) {  // a broken JPEG, a size that the format does not allow
      return false;
    }
  }

  bool convert(const v4l2_buffer& buffer, Image* image) {
    const Buffer& from = buffers_[buffer.index];
    const std::size_t bytes = std::min<std::size_t>(buffer.bytesused, from.bytes);
    if (compressed(*format_)) {
      const cv::Mat data(1, static_cast<int>(bytes), CV_8UC1, from.memory);
      if (!jpeg_is_whole(data.ptr<std::uint8_t>(), bytes)) {
        return false;
      }
      // Not into picture_'s memory: after a failure it would hold the last picture.
      picture_ = cv::imdecode(data, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
      if (picture_.empty()) {
        return false;
      }
      image->resize(picture_.cols, picture_.rows);
      picture_.copyTo(mat_of(image));
      return true;
    }
    const int rows = height_now_ * format_->halves / 2;
    const std::size_t tight = static_cast<std::size_t>(width_now_) *
                              static_cast<std::size_t>(CV_ELEM_SIZE(format_->type));
    const std::size_t stride = std::max<std::size_t>(stride_, tight);
    if (bytes < stride * static_cast<std::size_t>(rows - 1) + tight) {
      return false;
    }
    const cv::Mat raw(rows, width_now_, format_->type, from.memory, stride);
    image->resize(width_now_, height_now_);
    cv::Mat out = mat_of(image);
    if (format_->conversion < 0) {
      raw.copyTo(out);
    } else {
      cv::cvtColor(raw, out, format_->conversion);
    }
    return true;
  }

  // The driver's time of capture, where it is of the clock that does not jump (on Linux that of
  // steady_clock) and believable.
  static void stamp(const v4l2_buffer& buffer, Frame* frame) {
    const auto now = Clock::now();
    Clock::time_point taken = now;
    if ((buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK) == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC) {
      const Clock::time_point told{std::chrono::seconds(buffer.timestamp.tv_sec) +
                                   std::chrono::microseconds(buffer.timestamp.tv_usec)};
      if (told <= now && now - told < std::chrono::seconds(5)) {
        taken = told;
      }
    }
    frame->t_arrival = taken;
    frame->t_capture = std::chrono::system_clock::now() -
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(now - taken);
    frame->t_media_ms.reset();
  }

  Read fail(Status* status, const std::string& what) {
    *status = Status(Code::kSource, sentence(where_, path_ + ": " + what));
    release();
    return Read::kFailed;
  }

  const std::string where_;
  const int timeout_ms_;
  std::unique_ptr<V4l2Device> device_;
  StopFlag flag_;
  std::string path_;
  int width_ = 0, height_ = 0;  // asked for
  double fps_ = 0.0;
  int width_now_ = 0, height_now_ = 0;
  std::size_t stride_ = 0;
  const Format* format_ = nullptr;
  bool open_ = false;
  std::vector<Buffer> buffers_;
  cv::Mat picture_;
  std::atomic<std::uint64_t> damaged_{0};
};

}  // namespace

std::unique_ptr<Source> make_v4l2_on(const SourceOptions& options,
                                     std::unique_ptr<V4l2Device> device) {
  return std::make_unique<V4l2>(options, std::move(device));
}

std::unique_ptr<Source> make_v4l2(const SourceOptions& options) {
  return make_v4l2_on(options, std::make_unique<KernelDevice>());
}

}  // namespace posewire

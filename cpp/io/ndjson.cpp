// SPDX-License-Identifier: Apache-2.0
// The payloads, one a line, exactly as they go on the wire. Every line is handed to the kernel at
// once: a crash of the engine loses none, and the file gets its name when it is complete.
#include <string>
#include <utility>

#include "io/aside_file.h"
#include "io/sink.h"

namespace posewire {
namespace {

class Ndjson final : public Sink {
 public:
  explicit Ndjson(SinkOptions options) : options_(std::move(options)) {}

  void open(const Skeleton&) override { file_.open(options_.path); }
  bool wants_picture() const noexcept override { return false; }

  Status write(const Result& result) override {
    if (options_.camera_index >= 0 && result.frame->camera != options_.camera_index) {
      return Status();
    }
    if (!file_.is_open() || failed_) {
      return Status(Code::kCannotWrite, options_.path + ": is not open for writing");
    }
    line_.assign(*result.payload);
    line_ += '\n';
    Status status = file_.write(line_.data(), line_.size());
    failed_ = !status.ok();
    return status;
  }

  void cut_off() noexcept override { cut_off_ = true; }

  Status close() override {
    if (!file_.is_open()) {
      return Status();
    }
    if (failed_ || cut_off_) {
      file_.close();
      return Status(failed_ ? Code::kCannotWrite : Code::kSource,
                    options_.path + ": is incomplete; what was written is in " + file_.part());
    }
    return file_.commit();
  }

 private:
  SinkOptions options_;
  AsideFile file_;
  std::string line_;
  bool failed_ = false, cut_off_ = false;
};

}  // namespace

std::unique_ptr<Sink> make_ndjson(const SinkOptions& options) {
  return std::make_unique<Ndjson>(options);
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// The fake of the sinks: keeps what it gets, for tests and for programs that link the library.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "io/sink.h"

namespace posewire {

class MemorySink final : public Sink {
 public:
  struct Item {
    int camera = 0;
    std::uint64_t seq = 0;
    int width = 0, height = 0;
    Poses poses;
    std::string payload;
  };

  explicit MemorySink(bool with_pictures = false) : with_pictures_(with_pictures) {}

  void open(const Skeleton& skeleton) override;
  bool wants_picture() const noexcept override { return with_pictures_; }
  Status write(const Result& result) override;
  Status close() override;

  // Any thread, also while the engine runs.
  std::vector<Item> items() const;
  std::vector<Image> pictures() const;  // empty unless asked for
  bool closed() const;

 private:
  const bool with_pictures_;
  mutable std::mutex mutex_;
  bool open_ = false, closed_ = false;
  std::vector<Item> items_;
  std::vector<Image> pictures_;
};

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// What a graph knows of a channel, whatever it carries.
#pragma once

#include <cstddef>
#include <cstdint>

namespace posewire {

enum class Policy : std::uint8_t {
  kBlock,      // a full channel makes the producer wait: nothing is lost
  kDropOldest  // a full channel loses its oldest item, which is counted: the producer never waits
};

struct ChannelCounts {
  std::uint64_t pushed = 0, popped = 0, dropped = 0;  // pushed = popped + dropped + depth, always
  std::size_t depth = 0;
};

// Every method: any thread.
class AnyChannel {
 public:
  virtual ~AnyChannel() = default;
  virtual void close() = 0;  // no more pushes; what is inside can still be popped
  virtual void abort() = 0;  // close, and drop what is inside
  virtual ChannelCounts counts() const = 0;
};

}  // namespace posewire

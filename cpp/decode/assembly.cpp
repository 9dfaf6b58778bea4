// SPDX-License-Identifier: Apache-2.0
#include "decode/assembly.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace posewire {
namespace {

constexpr std::size_t kFew = 48;  // connections that are sorted by comparing

bool better(const Connection& left, const Connection& right) {
  return left.score != right.score ? left.score > right.score
         : left.a != right.a       ? left.a < right.a
                                   : left.b < right.b;
}

// Scores in (0, 1], highest first: 256 buckets for each halving, down to 1/16 and the rest.
constexpr std::size_t kBuckets = 1024;
std::size_t bucket_of(float score) {
  std::int32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  const std::int32_t below = (0x3F800000 - bits) >> 15;
  return static_cast<std::size_t>(std::min(std::max(below, 0), 1023));
}

}  // namespace

Assembly::Assembly(int types, int per_type, int connections)
    : per_type_(per_type),
      words_((types + 63) / 64),
      parent_(static_cast<std::size_t>(types * per_type), -1),
      owned_(parent_.size() * static_cast<std::size_t>(words_)),
      touched_((parent_.size() + 63) / 64),
      group_(parent_.size()),
      buckets_(kBuckets + 1) {
  order_.reserve(parent_.size());
  nodes_.reserve(parent_.size());
  sorted_.reserve(static_cast<std::size_t>(connections));
  starts_.reserve(parent_.size() + 1);
  starts_.push_back(0);
}

int Assembly::root_of(int node) noexcept {
  auto at = static_cast<std::size_t>(node);
  while (parent_[at] != static_cast<int>(at)) {
    const int above = parent_[static_cast<std::size_t>(parent_[at])];
    parent_[at] = above;
    at = static_cast<std::size_t>(above);
  }
  return static_cast<int>(at);
}

void Assembly::touch(int node) {
  const auto at = static_cast<std::size_t>(node);
  if (parent_[at] >= 0) {
    return;
  }
  parent_[at] = node;
  std::uint64_t* owned = owned_.data() + at * static_cast<std::size_t>(words_);
  std::fill(owned, owned + words_, 0);
  const int type = node / per_type_;
  owned[type / 64] = std::uint64_t{1} << (type % 64);
  touched_[at / 64] |= std::uint64_t{1} << at % 64;
}

bool Assembly::join(int a, int b) noexcept {
  int keep = root_of(a), drop = root_of(b);
  if (keep == drop) {
    return true;
  }
  if (drop < keep) {
    std::swap(keep, drop);
  }
  const auto words = static_cast<std::size_t>(words_);
  std::uint64_t* kept = owned_.data() + static_cast<std::size_t>(keep) * words;
  const std::uint64_t* dropped = owned_.data() + static_cast<std::size_t>(drop) * words;
  for (std::size_t w = 0; w < words; ++w) {
    if ((kept[w] & dropped[w]) != 0) {
      return false;
    }
  }
  for (std::size_t w = 0; w < words; ++w) {
    kept[w] |= dropped[w];
  }
  parent_[static_cast<std::size_t>(drop)] = keep;
  return true;
}

void Assembly::sort(std::vector<Connection>* connections) {
  if (connections->size() <= kFew) {
    std::sort(connections->begin(), connections->end(), better);
    return;
  }
  // By buckets of nearly the same score first: a comparison sort's branches cannot be foreseen.
  std::fill(buckets_.begin(), buckets_.end(), 0);
  for (const Connection& connection : *connections) {
    ++buckets_[bucket_of(connection.score) + 1];
  }
  for (std::size_t n = 1; n < buckets_.size(); ++n) {
    buckets_[n] += buckets_[n - 1];
  }
  sorted_.resize(connections->size());
  for (const Connection& connection : *connections) {
    sorted_[buckets_[bucket_of(connection.score)]++] = connection;
  }
  std::size_t begin = 0;
  for (std::size_t n = 0; n + 1 < buckets_.size(); ++n) {
    const std::size_t end = buckets_[n];
    if (end > begin + 1) {
      std::sort(sorted_.begin() + static_cast<std::ptrdiff_t>(begin),
                sorted_.begin() + static_cast<std::ptrdiff_t>(end), better);
    }
    begin = end;
  }
  connections->swap(sorted_);
}

void Assembly::run(std::vector<Connection>* connections) {
  for (const int node : nodes_) {
    parent_[static_cast<std::size_t>(node)] = -1;
  }
  nodes_.clear();
  starts_.clear();
  starts_.push_back(0);
  sort(connections);
  for (const Connection& connection : *connections) {
    touch(connection.a);
    touch(connection.b);
    join(connection.a, connection.b);
  }
  // A group's root is its smallest node: numbered in the order of the nodes, then filled.
  order_.clear();
  for (std::size_t w = 0; w < touched_.size(); ++w) {
    for (std::uint64_t left = touched_[w]; left != 0; left &= left - 1) {
      order_.push_back(static_cast<int>(64 * w) + __builtin_ctzll(left));
    }
    touched_[w] = 0;
  }
  for (const int node : order_) {
    const auto root = static_cast<std::size_t>(root_of(node));
    if (static_cast<int>(root) == node) {
      group_[root] = static_cast<int>(starts_.size()) - 1;
      starts_.push_back(0);
    }
    group_[static_cast<std::size_t>(node)] = group_[root];
    ++starts_[static_cast<std::size_t>(group_[root]) + 1];
  }
  for (std::size_t g = 1; g < starts_.size(); ++g) {
    starts_[g] += starts_[g - 1];
  }
  nodes_.resize(order_.size());
  for (const int node : order_) {
    const auto group = static_cast<std::size_t>(group_[static_cast<std::size_t>(node)]);
    nodes_[static_cast<std::size_t>(starts_[group]++)] = node;
  }
  for (std::size_t g = starts_.size() - 1; g > 0; --g) {
    starts_[g] = starts_[g - 1];
  }
  starts_[0] = 0;
}

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
#include "decode/assembly.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace posewire {

Assembly::Assembly(int types, int per_type)
    : per_type_(per_type),
      words_((types + 63) / 64),
      parent_(static_cast<std::size_t>(types * per_type), -1),
      owned_(parent_.size() * static_cast<std::size_t>(words_)),
      group_(parent_.size()) {
  touched_.reserve(parent_.size());
  nodes_.reserve(parent_.size());
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
  touched_.push_back(node);
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

void Assembly::run(std::vector<Connection>* connections) {
  for (const int node : touched_) {
    parent_[static_cast<std::size_t>(node)] = -1;
  }
  touched_.clear();
  nodes_.clear();
  starts_.clear();
  starts_.push_back(0);
  std::sort(connections->begin(), connections->end(),
            [](const Connection& left, const Connection& right) {
              return left.score != right.score ? left.score > right.score
                     : left.a != right.a       ? left.a < right.a
                                               : left.b < right.b;
            });
  for (const Connection& connection : *connections) {
    touch(connection.a);
    touch(connection.b);
    join(connection.a, connection.b);
  }
  // A group's root is its smallest node: numbered in the order of the nodes, then filled.
  std::sort(touched_.begin(), touched_.end());
  for (const int node : touched_) {
    const int root = root_of(node);
    if (root == node) {
      group_[static_cast<std::size_t>(node)] = static_cast<int>(starts_.size()) - 1;
      starts_.push_back(0);
    }
    ++starts_[static_cast<std::size_t>(group_[static_cast<std::size_t>(root)]) + 1];
  }
  for (std::size_t g = 1; g < starts_.size(); ++g) {
    starts_[g] += starts_[g - 1];
  }
  nodes_.resize(touched_.size());
  for (const int node : touched_) {
    const auto group = static_cast<std::size_t>(group_[static_cast<std::size_t>(root_of(node))]);
    nodes_[static_cast<std::size_t>(starts_[group]++)] = node;
  }
  for (std::size_t g = starts_.size() - 1; g > 0; --g) {
    starts_[g] = starts_[g - 1];
  }
  starts_[0] = 0;
}

}  // namespace posewire

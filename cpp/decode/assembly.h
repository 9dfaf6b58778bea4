// SPDX-License-Identifier: Apache-2.0
// Joins limbs into people: a union of connections in the order of their scores, not a walk along a
// tree. A missing neck or hip only removes the limbs that end there; any other limb still joins
// what it touches, so skeletons with redundant limbs survive. Two fragments that both own the same
// keypoint type are different people and are never joined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace posewire {

// One accepted limb between two nodes (keypoint candidates).
struct Connection {
  float score = 0.0F;
  int a = 0, b = 0;  // nodes
};

class Assembly {
 public:
  // Nodes are type * per_type + index; `connections` is the most that run() will be given.
  Assembly(int types, int per_type, int connections);

  // Forms the groups. Scores are in (0, 1]. Sorts `connections` (best first; equal ones by node, so
  // that the result does not depend on the order given). O(C log C) for C connections.
  void run(std::vector<Connection>* connections);

  // Nodes of each group with at least one connection: group g is nodes()[starts()[g] …
  // starts()[g + 1]), in the order of the nodes.
  const std::vector<int>& nodes() const noexcept { return nodes_; }
  const std::vector<int>& starts() const noexcept { return starts_; }
  int groups() const noexcept { return static_cast<int>(starts_.size()) - 1; }

 private:
  int root_of(int node) noexcept;
  bool join(int a, int b) noexcept;
  void touch(int node);
  void sort(std::vector<Connection>* connections);

  int per_type_, words_;
  std::vector<int> parent_;             // per node; -1: not touched in this run
  std::vector<std::uint64_t> owned_;    // per node, `words_` each: types that a root's group owns
  std::vector<std::uint64_t> touched_;  // per node one bit: in this run
  std::vector<int> order_;              // the touched nodes
  std::vector<int> group_;              // per node
  std::vector<int> nodes_, starts_;
  std::vector<std::size_t> buckets_;  // of scores
  std::vector<Connection> sorted_;
};

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
// The cheapest one-to-one assignment of rows to columns, exactly: shortest augmenting paths with
// potentials (Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse
// Linear Assignment Problems", Computing 38, 1987), without their initialisation by reduction.
#pragma once

#include <vector>

namespace posewire {

class Assignment {
 public:
  static constexpr int kUnassigned = -1;

  Assignment(int max_rows, int max_columns);

  // column_of()[r] for r in [0, rows): the column of row r, or kUnassigned. Minimises the sum of
  // costs[r * columns + c] over the pairs made plus `none` for every row without a column, so that
  // a pair costing `none` or more is never made. Costs and `none` are finite.
  // Time O(rows² columns), O(rows columns) where no two rows want one column; no allocation.
  void solve(const float* costs, int rows, int columns, float none);
  const std::vector<int>& column_of() const noexcept { return column_of_; }

 private:
  void pair_the_isolated(const float* costs, int rows, int columns, float none);
  void augment(const float* costs, int row, int columns, float none);

  std::vector<int> column_of_, row_of_;
  std::vector<int> wanted_;                      // per column: rows that may take it
  std::vector<float> row_price_, column_price_;  // the dual variables
  std::vector<float> distance_;                  // per column: of the shortest path to it
  std::vector<int> before_;                      // per column: the one before it on that path
  std::vector<char> settled_;
};

}  // namespace posewire

// SPDX-License-Identifier: Apache-2.0
#include "decode/assignment.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace posewire {
namespace {

constexpr float kFar = std::numeric_limits<float>::infinity();
constexpr int kStart = -1;  // before the first column of a path stands the row that it starts at

std::size_t at(int index) { return static_cast<std::size_t>(index); }

}  // namespace

Assignment::Assignment(int max_rows, int max_columns)
    : column_of_(at(max_rows)),
      row_of_(at(max_columns)),
      wanted_(at(max_columns)),
      row_price_(at(max_rows)),
      column_price_(at(max_columns)),
      distance_(at(max_columns)),
      before_(at(max_columns)),
      settled_(at(max_columns)) {}

void Assignment::solve(const float* costs, int rows, int columns, float none) {
  std::fill_n(column_of_.begin(), rows, kUnassigned);
  std::fill_n(row_of_.begin(), columns, kUnassigned);
  std::fill_n(row_price_.begin(), rows, 0.0F);
  std::fill_n(column_price_.begin(), columns, 0.0F);
  pair_the_isolated(costs, rows, columns, none);
  for (int row = 0; row < rows; ++row) {
    if (column_of_[at(row)] == kUnassigned) {
      augment(costs, row, columns, none);
    }
  }
}

// A row and a column that want only each other are a pair of every solution: with the pair's cost
// as the row's price, all reduced costs stay >= 0. Rows that want no column stay without.
void Assignment::pair_the_isolated(const float* costs, int rows, int columns, float none) {
  std::fill_n(wanted_.begin(), columns, 0);
  for (int row = 0; row < rows; ++row) {
    const float* cost = costs + row * columns;
    for (int column = 0; column < columns; ++column) {
      wanted_[at(column)] += cost[column] < none ? 1 : 0;
    }
  }
  for (int row = 0; row < rows; ++row) {
    const float* cost = costs + row * columns;
    int choices = 0, choice = 0;
    for (int column = 0; column < columns; ++column) {
      choices += cost[column] < none ? 1 : 0;
      choice = cost[column] < none ? column : choice;
    }
    if (choices == 1 && wanted_[at(choice)] == 1) {
      column_of_[at(row)] = choice;
      row_of_[at(choice)] = row;
      row_price_[at(row)] = cost[choice];
    }
  }
}

// Gives `row` a column by the cheapest alternating path (Dijkstra over reduced costs). A path ends
// at a free column, or where a row on it gives its column up and stays without, for `none`.
void Assignment::augment(const float* costs, int row, int columns, float none) {
  std::fill_n(distance_.begin(), columns, kFar);
  std::fill_n(settled_.begin(), columns, char{0});
  int last = kStart;  // the column that the path ends at, or whose row ends without one
  int here = kStart, from = row;
  float reached = 0.0F;                      // the length of the path to `from`
  float total = none - row_price_[at(row)];  // the shortest whole path so far
  for (;;) {
    const float* cost = costs + from * columns;
    const float start = reached - row_price_[at(from)];
    int nearest = kStart;
    float length = kFar;
    for (int column = 0; column < columns; ++column) {
      const std::size_t c = at(column);
      if (settled_[c] != 0) {
        continue;
      }
      const float through = start + cost[column] - column_price_[c];
      if (through < distance_[c]) {
        distance_[c] = through;
        before_[c] = here;
      }
      if (distance_[c] < length) {
        length = distance_[c];
        nearest = column;
      }
    }
    if (nearest == kStart || total <= length) {
      break;
    }
    settled_[at(nearest)] = 1;
    reached = length;
    here = nearest;
    from = row_of_[at(nearest)];
    if (from == kUnassigned) {
      last = nearest;
      total = reached;
      break;
    }
    const float without = reached + none - row_price_[at(from)];
    if (without < total) {
      total = without;
      last = nearest;
    }
  }
  row_price_[at(row)] += total;
  for (int column = 0; column < columns; ++column) {
    const std::size_t c = at(column);
    if (settled_[c] != 0 && row_of_[c] != kUnassigned) {
      column_price_[c] += distance_[c] - total;
      row_price_[at(row_of_[c])] += total - distance_[c];
    }
  }
  if (last != kStart && row_of_[at(last)] != kUnassigned) {
    column_of_[at(row_of_[at(last)])] = kUnassigned;
  }
  while (last != kStart) {
    const int earlier = before_[at(last)];
    const int owner = earlier == kStart ? row : row_of_[at(earlier)];
    row_of_[at(last)] = owner;
    column_of_[at(owner)] = last;
    last = earlier;
  }
}

}  // namespace posewire

// SPDX-License-Identifier: MIT
// The simplices of the points of one strip, and the strip's vertices in order of first touch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "buffer.h"
#include "cpu/dispatch.h"
#include "cpu/features.h"
#include "cpu/key_table.h"
#include "cpu/simplex_frame.h"
#include "lattice.h"
#include "math/key_layout.h"

namespace crfseg {

// Calls f(first, batch) with the simplices of all points from begin to end, batch by batch, which
// have their weights in the lattice and their vertices, where the frame wants them, in `vertices`.
template <class F>
void each_batch(const kernels::SimplexFrame& frame, const Features& features, std::int64_t begin,
                std::int64_t end, Lattice* lattice, std::uint32_t* vertices, F&& f) {
  kernels::SimplexBatch batch;
  std::memset(batch.feature, 0, sizeof(batch.feature));
  const int corners = frame.dim + 1;
  for (std::int64_t first = begin; first < end; first += kernels::simplex_batch) {
    batch.count = static_cast<int>(std::min<std::int64_t>(kernels::simplex_batch, end - first));
    batch.weight = lattice->corner_weight.data() + first * corners;
    batch.vertex = vertices + (first - begin) * corners;
    features.load(first, batch.count, batch.feature);
    active_kernels().find_simplices(frame, &batch);
    f(first, batch);
  }
}

// A simplex whose name does not fit 64 bits.
struct WideName {
  WideKey origin{};
  std::uint64_t order = 0;
  bool operator==(const WideName& other) const {
    return origin == other.origin && order == other.order;
  }
};
inline std::uint64_t hash_key(const WideName& name) {
  return hash_key(name.origin ^ hash_key(name.order));
}

// Neighbouring points often share a simplex, so simplices are looked up whole before their vertices
// are.
template <class Key>
class StripBuilder {
 public:
  StripBuilder(const KeyRanges& ranges, Lattice* lattice, GrowingBuffer<Key>* keys)
      : dim_(ranges.dim),
        order_bits_(order_bits(ranges)),
        remainder_bits_(ranges.remainder_bits),
        layout_(ranges),
        frame_(simplex_frame(ranges, false)),
        lattice_(*lattice),
        keys_(*keys) {}

  // rows: (points, dim + 1) gets the strip's own numbers of their vertices.
  void build(const Features& features, std::int64_t begin, std::int64_t end, std::uint32_t* rows) {
    simplices_ = KeyTable<Name>(end - begin);
    vertices_ = KeyTable<Key>(end - begin);
    names_.reserve(static_cast<std::size_t>((end - begin) / 2));
    each_batch(frame_, features, begin, end, &lattice_, rows,
               [&](std::int64_t first, const kernels::SimplexBatch& batch) {
                 place(batch, rows + (first - begin) * (dim_ + 1));
               });
  }

 private:
  static constexpr bool is_narrow = std::is_same_v<Key, NarrowKey>;
  using Name = std::conditional_t<is_narrow, NarrowKey, WideName>;

  void place(const kernels::SimplexBatch& batch, std::uint32_t* row) {
    std::uint32_t simplex[kernels::simplex_batch];
    for (int i = 0; i < batch.count; ++i) {
      const auto n_known = static_cast<std::uint32_t>(names_.size());
      const Name name = name_of(batch, i);
      simplex[i] = simplices_.find_or_append(&names_, name, hash_key(name));
      if (simplex[i] == n_known) add_corners(name, batch, i);
    }
    const int corners = dim_ + 1;
    switch (corners) {
      case 3:
        return copy_rows<3>(simplex, batch.count, row);
      case 4:
        return copy_rows<4>(simplex, batch.count, row);
      case 6:
        return copy_rows<6>(simplex, batch.count, row);
      default:
        for (int i = 0; i < batch.count; ++i) {
          std::copy_n(corner_rows_.data() + std::size_t(simplex[i]) * corners, corners,
                      row + i * corners);
        }
    }
  }

  template <int corners>
  void copy_rows(const std::uint32_t* simplex, int count, std::uint32_t* row) const {
    for (int i = 0; i < count; ++i) {
      std::memcpy(row + i * corners, corner_rows_.data() + std::size_t(simplex[i]) * corners,
                  corners * sizeof(std::uint32_t));
    }
  }

  Name name_of(const kernels::SimplexBatch& batch, int i) const {
    if constexpr (is_narrow) {
      return batch.name[i];
    } else {
      std::int64_t quotient[permutohedral::max_corners];
      for (int k = 0; k <= dim_; ++k) quotient[k] = batch.quotient[k][i];
      return {layout_.origin(quotient), batch.name[i]};
    }
  }

  Key origin(const Name& name) const {
    if constexpr (is_narrow) {
      return name >> order_bits_ << remainder_bits_;
    } else {
      return name.origin;
    }
  }

  void add_corners(const Name& name, const kernels::SimplexBatch& batch, int i) {
    int coordinate_of_rank[permutohedral::max_corners];
    for (int k = 0; k <= dim_; ++k) coordinate_of_rank[batch.rank[k][i]] = k;
    Key corner = origin(name);
    for (int k = 0; k <= dim_; ++k) {
      if (k > 0) corner = layout_.next_corner(corner, coordinate_of_rank[dim_ - k + 1]);
      corner_rows_.push_back(vertices_.find_or_append(&keys_, corner, hash_key(corner)));
    }
  }

  int dim_, order_bits_, remainder_bits_;
  KeyLayout<Key> layout_;
  kernels::SimplexFrame frame_;
  Lattice& lattice_;
  GrowingBuffer<Key>& keys_;  // the strip's vertices in order of first touch
  GrowingBuffer<Name> names_;
  KeyTable<Name> simplices_;
  KeyTable<Key> vertices_;
  GrowingBuffer<std::uint32_t> corner_rows_;  // (simplices, dim + 1)
};

}  // namespace crfseg

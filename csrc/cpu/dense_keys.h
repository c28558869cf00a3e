// SPDX-License-Identifier: MIT
// Vertices whose keys are so few that they can be looked up directly, as those of a lattice over
// positions in an image: no hashes, no simplices. The numbering is that of the tables
// (vertex_index.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "cpu/strip_builder.h"
#include "cpu/vertex_index.h"
#include "parallel.h"

namespace crfseg {

// Whether arrays over all keys, and over those of each strip, stay small next to the points.
inline bool keys_are_dense(const KeyRanges& ranges, const std::vector<KeyRanges>& of_strips,
                           const Strips& strips) {
  constexpr std::int64_t small = 16384;
  if (ranges.total_bits > 30) return false;
  if (ranges.end_of_keys() > std::max(small, 12 * strips.n_points)) return false;
  return std::all_of(of_strips.begin(), of_strips.end(), [&](const KeyRanges& part) {
    return ranges.span_of_keys(part) <= std::max(small, 128 * strips.size);
  });
}

// As StripBuilder::build.
inline void build_dense_strip(const KeyRanges& ranges, const Features& features, std::int64_t begin,
                              std::int64_t end, Lattice* lattice, std::uint32_t* rows,
                              GrowingBuffer<NarrowKey>* keys) {
  each_batch(simplex_frame(ranges, true), features, begin, end, lattice, rows,
             [](std::int64_t, const kernels::SimplexBatch&) {});
  const int corners = ranges.dim + 1;
  std::uint32_t* first = rows;
  std::uint32_t* last = rows + (end - begin) * corners;
  std::uint32_t lowest = ~0U, highest = 0;
  for (const std::uint32_t* key = first; key < last; ++key) {
    lowest = std::min(lowest, *key);
    highest = std::max(highest, *key);
  }
  Buffer<std::uint32_t> row_of(std::int64_t{highest} - lowest + 1);
  std::fill(row_of.begin(), row_of.end(), no_vertex);
  for (std::uint32_t* corner = first; corner < last; ++corner) {
    const std::uint32_t key = *corner;
    std::uint32_t& row = row_of[key - lowest];
    if (row == no_vertex) {
      row = static_cast<std::uint32_t>(keys->size());
      keys->push_back(key);
    }
    *corner = row;
  }
}

// As VertexIndex.
class DenseIndex {
 public:
  DenseIndex(const KeyChunks<NarrowKey>& chunks, std::int64_t end_of_keys, std::uint32_t* numbers)
      : number_(end_of_keys) {
    std::fill(number_.begin(), number_.end(), no_vertex);
    GrowingBuffer<NarrowKey> keys;
    for (const GrowingBuffer<NarrowKey>& chunk : chunks) {
      for (const NarrowKey key : chunk) {
        std::uint32_t& number = number_[static_cast<std::int64_t>(key)];
        if (number == no_vertex) {
          number = static_cast<std::uint32_t>(keys.size());
          keys.push_back(key);
        }
        *numbers++ = number;
      }
    }
    keys_ = Buffer<NarrowKey>(static_cast<std::int64_t>(keys.size()));
    std::copy(keys.begin(), keys.end(), keys_.begin());
  }

  void append(const Buffer<NarrowKey>& added) {
    const std::int64_t first = keys_.size();
    keys_ = appended(keys_, added);
    for (std::int64_t v = first; v < keys_.size(); ++v) {
      number_[static_cast<std::int64_t>(keys_[v])] = static_cast<std::uint32_t>(v);
    }
  }

  void find(const NarrowKey* keys, int n, std::uint32_t* found) const {
    for (int i = 0; i < n; ++i) found[i] = number_[static_cast<std::int64_t>(keys[i])];
  }

  const Buffer<NarrowKey>& keys() const { return keys_; }
  std::int64_t size() const { return keys_.size(); }

 private:
  Buffer<std::uint32_t> number_;  // by key
  Buffer<NarrowKey> keys_;        // by number
};

}  // namespace crfseg

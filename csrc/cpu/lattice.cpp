// SPDX-License-Identifier: MIT
// Building the lattice: simplices of all points, strip by strip; then the strips' vertices are
// numbered together and neighbours looked up once, for the plan that all blurs follow. Every step
// runs on several threads and none depends on how many.
#include "lattice.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/blur_plan.h"
#include "cpu/dense_keys.h"
#include "cpu/features.h"
#include "cpu/simplex_frame.h"
#include "cpu/strip_builder.h"
#include "cpu/vertex_index.h"
#include "error.h"
#include "math/key_layout.h"
#include "parallel.h"

namespace crfseg {

namespace {

// What a round of filling may hold at once, all told, for every neighbour that is missing: its key,
// the key and its place as they are dealt to a shard, its owner; and, if no two are the same, the
// shard's copy, its first place, its count and its share of a table.
template <class Key>
std::int64_t bytes_of_missing(std::int64_t n_missing) {
  return n_missing * static_cast<std::int64_t>(4 * sizeof(Key) + 24);
}

// Who neighbours whom among vertices to which rounds of filling add.
template <class Key, class Index>
class Neighbours {
 public:
  Neighbours(const KeyLayout<Key>& layout, int dim, int threads)
      : layout_(layout), dim_(dim), threads_(threads) {}

  // Looks up what is not known from before the vertices of `index` became more.
  void update(const Index& index) {
    make_room(index.size());
    parallel_ranges(n_, 2048, threads_, [&](std::int64_t begin, std::int64_t end) {
      std::uint32_t wanted[key_batch];
      for (int axis = 0; axis <= dim_; ++axis) {
        const std::uint32_t* forth = of(axis);
        int count = 0;
        for (std::int64_t v = begin; v < end; ++v) {
          wanted[count] = static_cast<std::uint32_t>(v);
          count += forth[2 * v] == n_ ? 1 : 0;
          if (count < key_batch && v + 1 < end) continue;
          link(index, axis, wanted, count);
          count = 0;
        }
      }
    });
  }

  // Lists the keys that vertices from begin to end have no neighbour at.
  void list_missing(const Index& index, std::int64_t begin, std::int64_t end,
                    GrowingBuffer<Key>* missing) {
    for (std::int64_t v = begin; v < end; ++v) {
      // All are written and those that count are kept: which ones is past predicting.
      Key key[2 * permutohedral::max_corners] = {};
      int count = 0;
      for (int axis = 0; axis <= dim_; ++axis) {
        const std::uint32_t* pair = of(axis) + 2 * v;
        key[count] = layout_.forth(index.keys()[v], axis);
        count += pair[0] == n_ ? 1 : 0;
        key[count] = layout_.back(index.keys()[v], axis);
        count += pair[1] == n_ ? 1 : 0;
      }
      missing->insert(missing->end(), key, key + count);
    }
  }

  // (dim + 1, n_vertices, 2), as Lattice has it.
  Buffer<std::uint32_t> take() { return std::move(table_); }

 private:
  std::uint32_t* of(int axis) { return table_.data() + axis * n_ * 2; }

  void make_room(std::int64_t n) {
    Buffer<std::uint32_t> larger((dim_ + 1) * n * 2);
    const auto absent = static_cast<std::uint32_t>(n);
    parallel_for(dim_ + 1, threads_, [&](std::int64_t axis) {
      const std::uint32_t* from = of(static_cast<int>(axis));
      std::uint32_t* to = larger.data() + axis * n * 2;
      for (std::int64_t i = 0; i < 2 * n_; ++i) to[i] = from[i] == n_ ? absent : from[i];
      std::fill(to + 2 * n_, to + 2 * n, absent);
    });
    table_ = std::move(larger);
    n_ = n;
  }

  void link(const Index& index, int axis, const std::uint32_t* vertex, int count) {
    Key next[key_batch] = {};
    std::uint32_t found[key_batch];
    for (int i = 0; i < count; ++i) next[i] = layout_.forth(index.keys()[vertex[i]], axis);
    index.find(next, count, found);
    std::uint32_t* pairs = of(axis);
    for (int i = 0; i < count; ++i) {
      // No branch: where there is no neighbour, what is written to it goes to v's own entry first.
      const std::int64_t v = vertex[i], is_there = -std::int64_t{found[i] != no_vertex};
      pairs[2 * v + (is_there & (2 * (std::int64_t{found[i]} - v) + 1))] = vertex[i];
      pairs[2 * v] = std::min(found[i], static_cast<std::uint32_t>(n_));
    }
  }

  KeyLayout<Key> layout_;
  int dim_, threads_;
  std::int64_t n_ = 0;
  Buffer<std::uint32_t> table_;
};

template <class Key, class Index>
void add_missing(Neighbours<Key, Index>* neighbours, int at_least, int threads,
                 std::int64_t max_bytes, Index* index) {
  const std::int64_t grain = 4096;
  KeyChunks<Key> missing(static_cast<std::size_t>((index->size() + grain - 1) / grain));
  std::atomic<std::int64_t> n_missing{0};
  parallel_ranges(index->size(), grain, threads, [&](std::int64_t begin, std::int64_t end) {
    GrowingBuffer<Key>& found = missing[begin / grain];
    neighbours->list_missing(*index, begin, end, &found);
    const std::int64_t bytes =
        bytes_of_missing<Key>(n_missing += static_cast<std::int64_t>(found.size()));
    if (max_bytes > 0 && bytes > max_bytes) throw TooLarge(bytes);
  });
  index->append(frequent_keys(missing, at_least, threads));
}

void keep_rows(Buffer<std::uint32_t> rows, std::size_t n_local, std::int64_t strip,
               Lattice* lattice) {
  if (n_local > std::size_t{std::numeric_limits<std::uint16_t>::max()} + 1) {
    lattice->wide_corner_row[strip] = std::move(rows);
    return;
  }
  std::uint16_t* to =
      lattice->corner_row.data() + lattice->strips.begin(strip) * (lattice->dim + 1);
  for (std::int64_t i = 0; i < rows.size(); ++i) to[i] = static_cast<std::uint16_t>(rows[i]);
}

// Returns the table of neighbours (see BlurPlan).
template <class Key, class BuildStrip, class MakeIndex>
Buffer<std::uint32_t> build(const KeyRanges& ranges, int threads, std::int64_t max_bytes,
                            Lattice* lattice, BuildStrip&& build_strip, MakeIndex&& make_index) {
  const Strips& strips = lattice->strips;
  KeyChunks<Key> keys(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = strips.begin(s), end = strips.end(s);
    Buffer<std::uint32_t> rows((end - begin) * (lattice->dim + 1));
    build_strip(begin, end, rows.data(), &keys[s]);
    keep_rows(std::move(rows), keys[s].size(), s, lattice);
  });
  lattice->local_begin = chunk_begins(keys);
  lattice->local_vertex.resize(lattice->n_local());
  auto index = make_index(keys, lattice->local_vertex.data());
  keys = KeyChunks<Key>();

  Neighbours<Key, decltype(index)> neighbours(KeyLayout<Key>(ranges), lattice->dim, threads);
  neighbours.update(index);
  for (const int at_least : lattice->fill) {
    add_missing(&neighbours, at_least, threads, max_bytes, &index);
    neighbours.update(index);
  }
  lattice->n_vertices = index.size();
  return neighbours.take();
}

template <class Key>
Buffer<std::uint32_t> build_hashed(const KeyRanges& ranges, const Features& features, int threads,
                                   std::int64_t max_bytes, Lattice* lattice) {
  return build<Key>(
      ranges, threads, max_bytes, lattice,
      [&](std::int64_t begin, std::int64_t end, std::uint32_t* rows, GrowingBuffer<Key>* keys) {
        StripBuilder<Key>(ranges, lattice, keys).build(features, begin, end, rows);
      },
      [&](const KeyChunks<Key>& keys, std::uint32_t* numbers) {
        return VertexIndex<Key>(keys, threads, numbers);
      });
}

Buffer<std::uint32_t> build_dense(const KeyRanges& ranges, const Features& features, int threads,
                                  std::int64_t max_bytes, Lattice* lattice) {
  return build<NarrowKey>(
      ranges, threads, max_bytes, lattice,
      [&](std::int64_t begin, std::int64_t end, std::uint32_t* rows,
          GrowingBuffer<NarrowKey>* keys) {
        build_dense_strip(ranges, features, begin, end, lattice, rows, keys);
      },
      [&](const KeyChunks<NarrowKey>& keys, std::uint32_t* numbers) {
        return DenseIndex(keys, ranges.end_of_keys(), numbers);
      });
}

FeatureRange joined(const std::vector<FeatureRange>& parts, int dim) {
  const auto size = static_cast<std::size_t>(dim);
  FeatureRange range{std::vector<float>(size, 0.0F), std::vector<float>(size, 0.0F)};
  if (!parts.empty()) range = parts.front();
  for (const FeatureRange& part : parts) {
    for (std::size_t axis = 0; axis < size; ++axis) {
      range.lo[axis] = std::min(range.lo[axis], part.lo[axis]);
      range.hi[axis] = std::max(range.hi[axis], part.hi[axis]);
    }
  }
  return range;
}

}  // namespace

Lattice::Lattice(const float* features, std::int64_t points, int dimension,
                 std::vector<int> fill_rounds, int blur_passes, int threads, std::int64_t max_bytes)
    : Lattice(Features(features, dimension), points, std::move(fill_rounds), blur_passes, threads,
              max_bytes) {}

Lattice::Lattice(const PixelGrid& pixels, std::vector<int> fill_rounds, int blur_passes,
                 int threads, std::int64_t max_bytes)
    : Lattice(Features(pixels), pixels.n_points(), std::move(fill_rounds), blur_passes, threads,
              max_bytes) {}

Lattice::Lattice(const Features& features, std::int64_t points, std::vector<int> fill_rounds,
                 int blur_passes, int threads, std::int64_t max_bytes)
    : n_points(points),
      dim(features.dim()),
      passes(blur_passes),
      fill(std::move(fill_rounds)),
      strips(Strips::of(points)),
      local_begin{0} {
  const int rounds = static_cast<int>(fill.size());
  const auto key_ranges = [&](const FeatureRange& range) {
    return KeyRanges::of(dim, passes, rounds, range.lo.data(), range.hi.data());
  };
  const std::vector<FeatureRange> parts = features.ranges(strips, threads);
  const KeyRanges ranges = key_ranges(joined(parts, dim));
  std::vector<KeyRanges> of_strips;
  for (const FeatureRange& part : parts) of_strips.push_back(key_ranges(part));
  corner_row.resize(n_points * (dim + 1));
  corner_weight.resize(n_points * (dim + 1));
  wide_corner_row.resize(static_cast<std::size_t>(strips.count));
  Buffer<std::uint32_t> neighbours;
  if (keys_are_dense(ranges, of_strips, strips)) {
    neighbours = build_dense(ranges, features, threads, max_bytes, this);
  } else if (names_fit(ranges)) {
    neighbours = build_hashed<NarrowKey>(ranges, features, threads, max_bytes, this);
  } else {
    neighbours = build_hashed<WideKey>(ranges, features, threads, max_bytes, this);
  }
  blur_plan_ = std::make_shared<BlurPlan>(*this, neighbours, threads);
  neighbours = Buffer<std::uint32_t>();
  release_free_memory();
}

std::int64_t Lattice::nbytes() const {
  const std::lock_guard<std::mutex> lock(normalizer_mutex_);
  std::int64_t wide = 0;
  for (const Buffer<std::uint32_t>& rows : wide_corner_row) wide += rows.nbytes();
  return corner_row.nbytes() + wide + corner_weight.nbytes() + local_vertex.nbytes() +
         blur_plan_->nbytes() + inverse_.nbytes() + root_of_inverse_.nbytes() +
         static_cast<std::int64_t>(local_begin.size() * sizeof(std::int64_t));
}

}  // namespace crfseg

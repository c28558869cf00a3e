// SPDX-License-Identifier: MIT
// Building the lattice: simplices of all points, strip by strip; then the strips' vertices are
// numbered together, neighbours looked up once for all blurs, and the way back (which rows add up
// to a vertex) is laid out. Every step runs on several threads and none depends on how many.
#include "lattice.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "cpu/dense_keys.h"
#include "cpu/features.h"
#include "cpu/key_layout.h"
#include "cpu/strip_builder.h"
#include "cpu/vertex_index.h"
#include "error.h"
#include "parallel.h"

namespace crfseg {

namespace {

// What a round of filling may hold at once, all told, for every neighbour that is missing: the key
// among its candidates, its place and count, and a slot in a table half full.
template <class Key>
std::int64_t bytes_of_missing(std::int64_t n_missing) {
  return n_missing * static_cast<std::int64_t>(5 * sizeof(Key) + 8);
}

// Writes (dim + 1, n_vertices, 2) neighbours.
template <class Key, class Index>
void find_neighbours(const KeyLayout<Key>& layout, const Index& index, int dim, int threads,
                     Buffer<std::uint32_t>* neighbours) {
  const std::int64_t n = index.size();
  const auto absent = static_cast<std::uint32_t>(n);
  neighbours->resize((dim + 1) * n * 2);
  std::uint32_t* table = neighbours->data();
  parallel_ranges(neighbours->size(), 65536, threads, [&](std::int64_t begin, std::int64_t end) {
    std::fill(table + begin, table + end, absent);
  });
  parallel_ranges(n, 2048, threads, [&](std::int64_t begin, std::int64_t end) {
    Key next[key_batch];
    std::uint32_t found[key_batch];
    std::uint32_t nowhere = 0;  // written instead of a branch
    for (int axis = 0; axis <= dim; ++axis) {
      std::uint32_t* pairs = table + axis * n * 2;
      for (std::int64_t first = begin; first < end; first += key_batch) {
        const int count = static_cast<int>(std::min<std::int64_t>(key_batch, end - first));
        for (int i = 0; i < count; ++i) next[i] = layout.forth(index.keys()[first + i], axis);
        index.find(next, count, found);
        for (int i = 0; i < count; ++i) {
          const auto v = static_cast<std::uint32_t>(first + i);
          const bool is_there = found[i] != no_vertex;
          pairs[2 * std::int64_t{v}] = is_there ? found[i] : absent;
          *(is_there ? &pairs[2 * std::int64_t{found[i]} + 1] : &nowhere) = v;
        }
      }
    }
  });
}

template <class Key, class Index>
void add_missing_neighbours(const KeyLayout<Key>& layout, int dim, int at_least, int threads,
                            std::int64_t max_bytes, Index* index) {
  const std::int64_t grain = 4096, n = index->size();
  Buffer<std::uint32_t> neighbours;
  find_neighbours(layout, *index, dim, threads, &neighbours);
  KeyChunks<Key> missing(static_cast<std::size_t>((n + grain - 1) / grain));
  std::atomic<std::int64_t> n_missing{0};
  parallel_ranges(n, grain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Key>& found = missing[begin / grain];
    for (std::int64_t v = begin; v < end; ++v) {
      for (int axis = 0; axis <= dim; ++axis) {
        const std::uint32_t* pair = neighbours.data() + (axis * n + v) * 2;
        if (pair[0] == n) found.push_back(layout.forth(index->keys()[v], axis));
        if (pair[1] == n) found.push_back(layout.back(index->keys()[v], axis));
      }
    }
    const std::int64_t bytes =
        bytes_of_missing<Key>(n_missing += static_cast<std::int64_t>(found.size()));
    if (max_bytes > 0 && bytes > max_bytes) throw TooLarge(bytes);
  });
  neighbours = Buffer<std::uint32_t>();
  index->append(frequent_keys(missing, at_least, threads));
}

// The inverse of local_vertex: for each vertex its rows, in order.
void find_gathers(Lattice* lattice) {
  std::uint32_t* begin = lattice->gather_begin.data();
  std::fill(lattice->gather_begin.begin(), lattice->gather_begin.end(), 0U);
  const std::uint32_t* vertex = lattice->local_vertex.data();
  const std::int64_t n_local = lattice->n_local();
  for (std::int64_t row = 0; row < n_local; ++row) ++begin[vertex[row]];
  std::uint32_t sum = 0;
  for (std::int64_t v = 0; v <= lattice->n_vertices; ++v) sum += std::exchange(begin[v], sum);
  for (std::int64_t row = 0; row < n_local; ++row) {
    lattice->gather_row[begin[vertex[row]]++] = static_cast<std::uint32_t>(row);
  }
  for (std::int64_t v = lattice->n_vertices; v > 0; --v) begin[v] = begin[v - 1];
  begin[0] = 0;
}

template <class Key, class BuildStrip, class MakeIndex>
void build(const KeyRanges& ranges, int threads, std::int64_t max_bytes, Lattice* lattice,
           BuildStrip&& build_strip, MakeIndex&& make_index) {
  const Strips& strips = lattice->strips;
  KeyChunks<Key> keys(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads,
               [&](std::int64_t s) { build_strip(strips.begin(s), strips.end(s), &keys[s]); });
  lattice->local_begin = chunk_begins(keys);
  lattice->local_vertex.resize(lattice->n_local());
  auto index = make_index(keys, lattice->local_vertex.data());
  keys = KeyChunks<Key>();

  const KeyLayout<Key> layout(ranges);
  for (const int at_least : lattice->fill) {
    add_missing_neighbours(layout, lattice->dim, at_least, threads, max_bytes, &index);
  }
  lattice->n_vertices = index.size();
  find_neighbours(layout, index, lattice->dim, threads, &lattice->neighbours);
  lattice->gather_begin.resize(lattice->n_vertices + 1);
  lattice->gather_row.resize(lattice->n_local());
  find_gathers(lattice);
}

template <class Key>
void build_hashed(const KeyRanges& ranges, const Features& features, int threads,
                  std::int64_t max_bytes, Lattice* lattice) {
  build<Key>(
      ranges, threads, max_bytes, lattice,
      [&](std::int64_t begin, std::int64_t end, std::vector<Key>* keys) {
        StripBuilder<Key>(ranges, lattice, keys).build(features, begin, end);
      },
      [&](const KeyChunks<Key>& keys, std::uint32_t* numbers) {
        return VertexIndex<Key>(keys, threads, numbers);
      });
}

void build_dense(const KeyRanges& ranges, const Features& features, int threads,
                 std::int64_t max_bytes, Lattice* lattice) {
  build<NarrowKey>(
      ranges, threads, max_bytes, lattice,
      [&](std::int64_t begin, std::int64_t end, std::vector<NarrowKey>* keys) {
        build_dense_strip(ranges, features, begin, end, lattice, keys);
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
    : n_points(points),
      dim(dimension),
      passes(blur_passes),
      fill(std::move(fill_rounds)),
      strips(Strips::of(points)),
      local_begin{0} {
  const Features source(features, dim);
  const int rounds = static_cast<int>(fill.size());
  const auto key_ranges = [&](const FeatureRange& range) {
    return KeyRanges::of(dim, passes, rounds, range.lo.data(), range.hi.data());
  };
  const std::vector<FeatureRange> parts = source.ranges(strips, threads);
  const KeyRanges ranges = key_ranges(joined(parts, dim));
  std::vector<KeyRanges> of_strips;
  for (const FeatureRange& part : parts) of_strips.push_back(key_ranges(part));
  corner_row.resize(n_points * (dim + 1));
  corner_weight.resize(n_points * (dim + 1));
  if (keys_are_dense(ranges, of_strips, strips)) {
    build_dense(ranges, source, threads, max_bytes, this);
  } else if (ranges.names_fit()) {
    build_hashed<NarrowKey>(ranges, source, threads, max_bytes, this);
  } else {
    build_hashed<WideKey>(ranges, source, threads, max_bytes, this);
  }
}

std::int64_t Lattice::nbytes() const {
  return corner_row.nbytes() + corner_weight.nbytes() + local_vertex.nbytes() +
         gather_begin.nbytes() + gather_row.nbytes() + neighbours.nbytes() +
         static_cast<std::int64_t>(local_begin.size() * sizeof(std::int64_t));
}

}  // namespace crfseg

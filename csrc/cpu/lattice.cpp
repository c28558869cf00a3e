// SPDX-License-Identifier: MIT
// Building the lattice: simplices of all points, strip by strip; then the strips' vertices are
// numbered together, neighbours looked up once for all blurs, and the way back (which rows add up
// to a vertex) is laid out. Every step runs on several threads and none depends on how many.
#include "lattice.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/key_layout.h"
#include "cpu/vertex_index.h"
#include "error.h"
#include "parallel.h"

namespace crfseg {

namespace {

struct FeatureRange {
  std::vector<float> lo, hi;
  std::int64_t bad = -1;  // place of the first feature that is not finite
};

FeatureRange feature_range(const float* features, const Strips& strips, int dim, int threads) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<FeatureRange> parts(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    FeatureRange part{std::vector<float>(dim, infinity), std::vector<float>(dim, -infinity), -1};
    for (std::int64_t p = strips.begin(s); p < strips.end(s); ++p) {
      for (int axis = 0; axis < dim; ++axis) {
        const float value = features[p * dim + axis];
        if (part.bad < 0 && !std::isfinite(value)) part.bad = p * dim + axis;
        part.lo[axis] = std::min(part.lo[axis], value);
        part.hi[axis] = std::max(part.hi[axis], value);
      }
    }
    parts[s] = std::move(part);
  });
  FeatureRange range{std::vector<float>(dim, 0.0F), std::vector<float>(dim, 0.0F), -1};
  if (!parts.empty()) range = parts.front();
  for (const FeatureRange& part : parts) {
    if (part.bad >= 0) {
      throw NonFiniteFeature(part.bad / dim, static_cast<int>(part.bad % dim), features[part.bad]);
    }
    for (int axis = 0; axis < dim; ++axis) {
      range.lo[axis] = std::min(range.lo[axis], part.lo[axis]);
      range.hi[axis] = std::max(range.hi[axis], part.hi[axis]);
    }
  }
  return range;
}

// Finds the simplices of the points of one strip. Neighbouring points often share one, so simplices
// are looked up whole before their vertices are.
template <class Key>
class StripBuilder {
 public:
  StripBuilder(const KeyRanges& ranges, Lattice* lattice, std::vector<Key>* keys)
      : dim_(ranges.dim),
        layout_(ranges),
        frame_(ranges.frame()),
        lattice_(*lattice),
        keys_(*keys) {}

  void build(const float* features, std::int64_t begin, std::int64_t end) {
    const kernels::Table& kernels = active_kernels();
    kernels::Simplices simplices;
    table_ = KeyTable<SimplexKey>((end - begin) / 4);
    vertices_ = KeyTable<Key>((end - begin) / 8);
    for (std::int64_t first = begin; first < end; first += kernels::simplex_lanes) {
      const int count =
          static_cast<int>(std::min<std::int64_t>(kernels::simplex_lanes, end - first));
      kernels.find_simplices(frame_, features + first * dim_, count, &simplices);
      place(simplices, count, first);
    }
  }

 private:
  struct SimplexKey {
    Key origin{};
    std::uint64_t order = 0;
    bool operator!=(const SimplexKey& other) const {
      return origin != other.origin || order != other.order;
    }
  };
  friend std::uint64_t hash_key(const SimplexKey& key) {
    constexpr std::uint64_t spread = 0xD6E8FEB86659FD93ULL;
    return hash_key(Key{key.origin + key.order * spread});
  }

  void place(const kernels::Simplices& simplices, int count, std::int64_t first) {
    const int corners = dim_ + 1;
    SimplexKey key[kernels::simplex_lanes];
    std::uint64_t hash[kernels::simplex_lanes];
    for (int lane = 0; lane < count; ++lane) {
      key[lane] = {origin(simplices, lane), simplices.order[lane]};
      hash[lane] = hash_key(key[lane]);
      table_.prefetch(hash[lane]);
    }
    float* weight = lattice_.corner_weight.data() + first * corners;
    std::uint32_t* row = lattice_.corner_row.data() + first * corners;
    for (int lane = 0; lane < count; ++lane, weight += corners, row += corners) {
      const auto fresh = static_cast<std::uint32_t>(corner_rows_.size());
      const std::uint32_t known = table_.find_or_insert(key[lane], hash[lane], fresh);
      if (known == fresh) add_simplex(key[lane].origin, simplices, lane);
      for (int k = 0; k < corners; ++k) {
        row[k] = corner_rows_[known + k];
        weight[k] = simplices.weight[k][lane];
      }
    }
  }

  Key origin(const kernels::Simplices& simplices, int lane) const {
    if constexpr (std::is_same_v<Key, NarrowKey>) {
      return simplices.origin[lane];
    } else {
      std::int64_t quotient[permutohedral::max_dim];
      for (int i = 0; i < dim_; ++i) quotient[i] = simplices.quotient[i][lane];
      return layout_.origin(quotient);
    }
  }

  void add_simplex(Key origin, const kernels::Simplices& simplices, int lane) {
    const int dim = dim_;
    int coordinate_of_rank[permutohedral::max_corners];
    for (int i = 0; i <= dim; ++i) coordinate_of_rank[simplices.rank[i][lane]] = i;
    Key corner = origin;
    for (int k = 0; k <= dim; ++k) {
      if (k > 0) corner = layout_.next_corner(corner, coordinate_of_rank[dim - k + 1]);
      const auto fresh = static_cast<std::uint32_t>(keys_.size());
      const std::uint32_t row = vertices_.find_or_insert(corner, hash_key(corner), fresh);
      if (row == fresh) keys_.push_back(corner);
      corner_rows_.push_back(row);
    }
  }

  int dim_;
  KeyLayout<Key> layout_;
  kernels::SimplexFrame frame_;
  Lattice& lattice_;
  std::vector<Key>& keys_;      // the strip's vertices in order of first touch
  KeyTable<SimplexKey> table_;  // simplex -> its first entry in corner_rows_
  KeyTable<Key> vertices_;
  std::vector<std::uint32_t> corner_rows_;
};

// What a round of filling may hold at once, all told, for every neighbour that is missing: the key
// among its candidates, its place and count, and a slot in a table half full.
template <class Key>
std::int64_t bytes_of_missing(std::int64_t n_missing) {
  return n_missing * static_cast<std::int64_t>(5 * sizeof(Key) + 8);
}

template <class Key>
void add_missing_neighbours(const KeyLayout<Key>& layout, int dim, int at_least, int threads,
                            std::int64_t max_bytes, VertexIndex<Key>* index) {
  const std::int64_t grain = 4096;
  KeyChunks<Key> missing(static_cast<std::size_t>((index->size() + grain - 1) / grain));
  std::atomic<std::int64_t> n_missing{0};
  parallel_ranges(index->size(), grain, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Key>& found = missing[begin / grain];
    for (std::int64_t v = begin; v < end; ++v) {
      for (int axis = 0; axis <= dim; ++axis) {
        for (const Key key :
             {layout.forth(index->keys()[v], axis), layout.back(index->keys()[v], axis)}) {
          if (index->find(key) == KeyTable<Key>::none) found.push_back(key);
        }
      }
    }
    const std::int64_t bytes =
        bytes_of_missing<Key>(n_missing += static_cast<std::int64_t>(found.size()));
    if (max_bytes > 0 && bytes > max_bytes) throw TooLarge(bytes);
  });
  VertexIndex<Key> candidates(threads);
  candidates.number(missing, at_least, nullptr);
  index->append(candidates.keys());
}

template <class Key>
void find_neighbours(const KeyLayout<Key>& layout, const VertexIndex<Key>& index, int threads,
                     Lattice* lattice) {
  const std::int64_t n = index.size();
  const auto absent = static_cast<std::uint32_t>(n);
  lattice->neighbours.resize((lattice->dim + 1) * n * 2);
  std::uint32_t* table = lattice->neighbours.data();
  std::fill(lattice->neighbours.begin(), lattice->neighbours.end(), absent);
  parallel_ranges(n, 2048, threads, [&](std::int64_t begin, std::int64_t end) {
    for (int axis = 0; axis <= lattice->dim; ++axis) {
      std::uint32_t* pairs = table + axis * n * 2;
      for (std::int64_t v = begin; v < end; ++v) {
        const std::uint32_t next = index.find(layout.forth(index.keys()[v], axis));
        if (next == KeyTable<Key>::none) continue;
        pairs[2 * v] = next;
        pairs[2 * static_cast<std::int64_t>(next) + 1] = static_cast<std::uint32_t>(v);
      }
    }
  });
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

template <class Key>
void build(const KeyRanges& ranges, const float* features, int threads, std::int64_t max_bytes,
           Lattice* lattice) {
  const Strips& strips = lattice->strips;
  KeyChunks<Key> keys(static_cast<std::size_t>(strips.count));
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    StripBuilder<Key>(ranges, lattice, &keys[s]).build(features, strips.begin(s), strips.end(s));
  });

  for (const auto& chunk : keys) {
    lattice->local_begin.push_back(lattice->local_begin.back() +
                                   static_cast<std::int64_t>(chunk.size()));
  }
  VertexIndex<Key> index(threads);
  std::vector<std::uint32_t> vertex;
  index.number(keys, 1, &vertex);
  lattice->local_vertex.resize(lattice->n_local());
  std::copy(vertex.begin(), vertex.end(), lattice->local_vertex.begin());

  const KeyLayout<Key> layout(ranges);
  for (const int at_least : lattice->fill) {
    add_missing_neighbours(layout, lattice->dim, at_least, threads, max_bytes, &index);
  }
  lattice->n_vertices = index.size();
  find_neighbours(layout, index, threads, lattice);
  lattice->gather_begin.resize(lattice->n_vertices + 1);
  lattice->gather_row.resize(lattice->n_local());
  find_gathers(lattice);
}

}  // namespace

KeyRanges KeyRanges::of(int dim, int passes, int rounds, const float* lo, const float* hi) {
  KeyRanges ranges;
  ranges.dim = dim;
  const int corners = dim + 1;
  const BlurShape shape = BlurShape::of(passes);
  const double deviation =
      corners * shape.stretch * std::sqrt(2.0 * shape.side * passes + 1.0 / 6.0);
  double low[permutohedral::max_corners] = {};
  double high[permutohedral::max_corners] = {};
  double reach = 0.0;
  int widest = 0;
  double below = 0.0, above = 0.0;  // range of the sum over the coordinates behind j
  for (int j = dim; j >= 0; --j) {
    low[j] = below;
    high[j] = above;
    if (j == 0) break;
    const int axis = j - 1;
    ranges.scale[axis] = static_cast<float>(deviation / std::sqrt(double(j) * (j + 1)));
    const double from = double(lo[axis]) * ranges.scale[axis];
    const double to = double(hi[axis]) * ranges.scale[axis];
    low[j] -= j * to;
    high[j] -= j * from;
    below += from;
    above += to;
    const double span = j * std::max(std::abs(from), std::abs(to));
    if (span > reach) {
      reach = span;
      widest = axis;
    }
  }
  ranges.remainder_bits = 1;
  while ((1 << ranges.remainder_bits) < corners) ++ranges.remainder_bits;
  ranges.total_bits = ranges.remainder_bits;
  // Room for rounding, for the corners of the simplex, and for the neighbours of filled rings.
  const int margin = 4 + rounds;
  for (int j = 0; j < corners; ++j) {
    if (std::max(-low[j], high[j]) > permutohedral::max_elevated) {
      throw KeyRange(widest, lo[widest], hi[widest]);
    }
    if (j == dim) break;
    ranges.lowest[j] = static_cast<std::int64_t>(std::floor(low[j] / corners)) - margin;
    const auto highest = static_cast<std::int64_t>(std::ceil(high[j] / corners)) + margin;
    ranges.bits[j] = 1;
    while ((std::int64_t{1} << ranges.bits[j]) <= highest - ranges.lowest[j]) ++ranges.bits[j];
    ranges.total_bits += ranges.bits[j];
  }
  if (ranges.total_bits > 128) throw KeyRange(widest, lo[widest], hi[widest]);
  return ranges;
}

kernels::SimplexFrame KeyRanges::frame() const {
  kernels::SimplexFrame frame{};
  frame.dim = dim;
  int shift = remainder_bits;
  for (int i = 0; i < dim; ++i) {
    frame.scale[i] = scale[i];
    // Shifts of 64 and more belong to wide keys, which are packed elsewhere.
    frame.shift[i] = std::min(shift, 63);
    frame.lowest += static_cast<std::uint64_t>(lowest[i]) << frame.shift[i];
    shift += bits[i];
  }
  return frame;
}

Lattice::Lattice(const float* features, std::int64_t points, int dimension,
                 std::vector<int> fill_rounds, int blur_passes, int threads, std::int64_t max_bytes)
    : n_points(points),
      dim(dimension),
      passes(blur_passes),
      fill(std::move(fill_rounds)),
      strips(Strips::of(points)),
      local_begin{0} {
  const FeatureRange range = feature_range(features, strips, dim, threads);
  const KeyRanges ranges =
      KeyRanges::of(dim, passes, static_cast<int>(fill.size()), range.lo.data(), range.hi.data());
  corner_row.resize(n_points * (dim + 1));
  corner_weight.resize(n_points * (dim + 1));
  if (ranges.total_bits <= 64) {
    build<NarrowKey>(ranges, features, threads, max_bytes, this);
  } else {
    build<WideKey>(ranges, features, threads, max_bytes, this);
  }
}

std::int64_t Lattice::nbytes() const {
  return corner_row.nbytes() + corner_weight.nbytes() + local_vertex.nbytes() +
         gather_begin.nbytes() + gather_row.nbytes() + neighbours.nbytes() +
         static_cast<std::int64_t>(local_begin.size() * sizeof(std::int64_t));
}

}  // namespace crfseg

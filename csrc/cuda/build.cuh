// SPDX-License-Identifier: MIT
// Kernels that build a lattice.
#pragma once

#include "cuda/device.h"
#include "cuda/lattice.h"
#include "math/key_layout.h"
#include "math/permutohedral.h"

namespace crfseg {
namespace cuda {

// What the build finds out on the device.
struct BuildReport {
  std::uint32_t bad_from_end;  // the first point out of its bounds, n - its place among all; or 0
  std::uint32_t rows_left_out, vertices_left_out;  // beyond the bounds that were given
};

// What is found about the points of every tile.
template <class Key>
struct TileOutput {
  KeyLayout<Key> layout;
  float scale[permutohedral::max_dim];
  int item_shift;  // the item's place in a key
  std::uint32_t* corner_row;
  float* corner_weight;
  std::uint16_t* entry_slot;
  float* entry_weight;
  std::uint32_t* tile_rows;  // (tiles)
  Key* keys;                 // (tiles, (dim + 1) slots) of a tile's rows
  std::uint16_t* row_entry;  // likewise
  BuildReport* report;
};

// The number of corners that a block sorts, a power of two.
CRFSEG_HD int sorted_size(int corners) {
  int size = 1;
  while (size < corners) size *= 2;
  return size;
}

template <class Key>
std::size_t tile_shared_bytes(int corners, int threads) {
  return static_cast<std::size_t>(sorted_size(corners)) * (sizeof(Key) + sizeof(std::uint16_t)) +
         static_cast<std::size_t>(threads) * sizeof(std::uint32_t);
}

CRFSEG_DEVICE float channel(const Points& points, std::int64_t at) {
  switch (points.type) {
    case ChannelType::uint8:
      return static_cast<float>(static_cast<const std::uint8_t*>(points.channels)[at]);
    case ChannelType::uint16:
      return static_cast<float>(static_cast<const std::uint16_t*>(points.channels)[at]);
    default:
      return static_cast<const float*>(points.channels)[at];
  }
}

// The features of a point, within their bounds; false if one had to be moved there.
template <int dim>
CRFSEG_DEVICE bool load_features(const Points& points, std::int64_t item, std::int64_t point,
                                 float* feature) {
  const std::int64_t at = item * points.n_points + point;
  if (points.features != nullptr) {
    CRFSEG_UNROLL
    for (int axis = 0; axis < dim; ++axis) feature[axis] = points.features[at * dim + axis];
  } else {
    const std::int64_t row = point / points.width;
    const std::int64_t height = points.height > 0 ? points.height : points.n_points;
    const float position[3] = {static_cast<float>(point % points.width),
                               static_cast<float>(row % height), static_cast<float>(row / height)};
    const int n_positions = points.height > 0 ? 3 : 2;
    CRFSEG_UNROLL
    for (int axis = 0; axis < dim; ++axis) {
      const float value = axis < 3 && axis < n_positions
                              ? position[axis]
                              : channel(points, at * points.n_channels + axis - n_positions);
      feature[axis] = value * points.inverse_sigmas[axis];
    }
  }
  bool within = true;
  CRFSEG_UNROLL
  for (int axis = 0; axis < dim; ++axis) {
    const bool is_within = feature[axis] >= points.lo[axis] && feature[axis] <= points.hi[axis];
    if (!is_within) feature[axis] = points.lo[axis];
    within = within && is_within;
  }
  return within;
}

// The key of each corner of a simplex: that of remainder k has lost 1 in the quotients of the k
// coordinates of highest rank.
template <int dim, class Key>
CRFSEG_DEVICE void corner_keys(const KeyLayout<Key>& layout, const int* quotient, const int* rank,
                               Key* key) {
  Key origin = 0;
  CRFSEG_UNROLL
  for (int i = 0; i <= dim; ++i) {
    origin += static_cast<Key>(quotient[i] - layout.lowest(i)) * layout.unit(i);
  }
  CRFSEG_UNROLL
  for (int k = 0; k <= dim; ++k) {
    key[k] = origin + static_cast<Key>(k);
    CRFSEG_UNROLL
    for (int i = 0; i <= dim; ++i) {
      if (rank[i] > dim - k) key[k] -= layout.unit(i);
    }
  }
}

// Sorts `size` keys, and what belongs to them, which breaks ties: bitonic, in shared memory.
template <class Key>
CRFSEG_DEVICE void sort_in_block(Key* key, std::uint16_t* entry, int size) {
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = thread_index(); i < size / 2; i += block_size()) {
        const int left = 2 * step * (i / step) + i % step, right = left + step;
        const bool ascends = (left & run) == 0;
        const Key a = key[left], b = key[right];
        const bool is_behind = b < a || (b == a && entry[right] < entry[left]);
        if (is_behind == ascends) {
          key[left] = b;
          key[right] = a;
          const std::uint16_t own = entry[left];
          entry[left] = entry[right];
          entry[right] = own;
        }
      }
      block_barrier();
    }
  }
}

// Simplices of a tile's points, their corners sorted by vertex: a block per tile.
template <int dim, class Key>
CRFSEG_KERNEL build_tiles(CRFSEG_CONSTANT Points points, CRFSEG_CONSTANT Tiling tiling,
                          CRFSEG_CONSTANT TileOutput<Key> out) {
  CRFSEG_SHARED(shared);
  const int slots = tiling.size(), corners = dim + 1, size = sorted_size(slots * corners);
  Key* key = reinterpret_cast<Key*>(shared);
  std::uint32_t* room = reinterpret_cast<std::uint32_t*>(key + size);
  std::uint16_t* entry = reinterpret_cast<std::uint16_t*>(room + block_size());
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    const std::int64_t item = tile / tiling.per_item, first = tile * slots * corners;
    for (int i = slots * corners + thread_index(); i < size; i += block_size()) {
      key[i] = ~Key{0};
      entry[i] = static_cast<std::uint16_t>(i);
    }
    for (int slot = thread_index(); slot < slots; slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      float feature[dim], elevated[dim + 1], weight[dim + 1];
      int quotient[dim + 1], rank[dim + 1];
      Key vertex[dim + 1];
      if (point >= 0) {
        if (!load_features<dim>(points, item, point, feature)) {
          const std::int64_t all = points.n_items * points.n_points;
          atomic_max(&out.report->bad_from_end,
                     static_cast<std::uint32_t>(all - item * points.n_points - point));
        }
        permutohedral::elevate(feature, dim, out.scale, elevated);
        permutohedral::find_simplex(elevated, dim, quotient, rank, weight);
        corner_keys<dim>(out.layout, quotient, rank, vertex);
      }
      CRFSEG_UNROLL
      for (int k = 0; k <= dim; ++k) {
        const int i = k * slots + slot;
        key[i] = point >= 0 ? vertex[k] | static_cast<Key>(item) << out.item_shift : ~Key{0};
        entry[i] = static_cast<std::uint16_t>(i);
        out.corner_weight[first + i] = point >= 0 ? weight[k] : 0.0F;
      }
    }
    block_barrier();
    sort_in_block(key, entry, size);
    // Every thread numbers the rows that begin among its entries.
    const int n = tiling.count(tile) * corners;
    const int share = (n + block_size() - 1) / block_size();
    const int begin = thread_index() * share, end = begin + share < n ? begin + share : n;
    std::uint32_t heads = 0, n_rows = 0;
    for (int i = begin; i < end; ++i) heads += i == 0 || key[i] != key[i - 1] ? 1U : 0U;
    std::uint32_t row = sum_before(heads, room, &n_rows) - 1;
    for (int i = begin; i < end; ++i) {
      if (i == 0 || key[i] != key[i - 1]) {
        ++row;
        out.keys[first + row] = key[i];
        out.row_entry[first + row] = static_cast<std::uint16_t>(i);
      }
      out.corner_row[first + entry[i]] = row;
      out.entry_slot[first + i] = static_cast<std::uint16_t>(entry[i] % slots);
    }
    if (thread_index() == 0) out.tile_rows[tile] = n_rows;
    for (int i = thread_index(); i < n; i += block_size()) {
      out.entry_weight[first + i] = out.corner_weight[first + entry[i]];
    }
    for (int i = thread_index(); i < slots * corners; i += block_size()) {
      if (tiling.point(tile, i % slots) < 0) out.corner_row[first + i] = 0;
    }
    block_barrier();
  }
}

// Closes up the rows of all tiles, as many as there is room for; what is left of the room gets a
// key that no vertex has.
template <class Key>
CRFSEG_KERNEL gather_rows(std::int64_t n_tiles, std::int64_t stride, std::int64_t room,
                          const std::uint32_t* row_begin, const Key* keys,
                          const std::uint16_t* entries, Key* row_key, std::uint16_t* row_entry,
                          std::uint32_t* row, BuildReport* report) {
  for (std::int64_t tile = block_index(); tile < n_tiles; tile += grid_size()) {
    const std::int64_t begin = row_begin[tile], n = row_begin[tile + 1] - begin;
    for (std::int64_t i = thread_index(); i < n && begin + i < room; i += block_size()) {
      row_key[begin + i] = keys[tile * stride + i];
      row_entry[begin + i] = entries[tile * stride + i];
    }
  }
  const std::int64_t n_rows = row_begin[n_tiles];
  for (std::int64_t i = grid_first(); i < room; i += grid_stride()) {
    row[i] = static_cast<std::uint32_t>(i);
    if (i >= n_rows) row_key[i] = ~Key{0};
  }
  if (grid_first() == 0 && n_rows > room) {
    report->rows_left_out = static_cast<std::uint32_t>(n_rows - room);
  }
}

// 1 where a key differs from the one before it.
template <class Key>
CRFSEG_KERNEL mark_heads(std::int64_t n, const Key* key, std::uint32_t* is_head) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    is_head[i] = i == 0 || key[i] != key[i - 1] ? 1U : 0U;
  }
}

// The heads of runs of at least so many equal keys.
template <class Key>
CRFSEG_KERNEL mark_frequent(std::int64_t n, const Key* key, std::int64_t at_least,
                            std::uint32_t* is_marked) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    const bool is_head = i == 0 || key[i] != key[i - 1];
    const bool is_frequent = i + at_least <= n && key[i + at_least - 1] == key[i];
    is_marked[i] = is_head && is_frequent ? 1U : 0U;
  }
}

// Those of n keys where the running number steps up.
template <class Key>
CRFSEG_KERNEL keep_marked(std::int64_t n, const Key* key, const std::uint32_t* number, Key* kept) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    if (number[i] != (i > 0 ? number[i - 1] : 0U)) kept[number[i] - 1] = key[i];
  }
}

// number: of each sorted row's vertex, from 1.
template <class Key>
CRFSEG_KERNEL number_vertices(std::int64_t n_rows, const Key* key, const std::uint32_t* sorted_row,
                              const std::uint32_t* number, std::int64_t room,
                              std::uint32_t* row_vertex, Key* vertex_key,
                              std::uint32_t* vertex_begin, BuildReport* report) {
  const std::int64_t n_vertices = number[n_rows - 1];
  for (std::int64_t i = grid_first(); i < n_rows; i += grid_stride()) {
    const std::uint32_t vertex = number[i] - 1;
    row_vertex[sorted_row[i]] = vertex < room ? vertex : 0U;
    if (vertex >= room || (i > 0 && number[i - 1] == number[i])) continue;
    vertex_key[vertex] = key[i];
    vertex_begin[vertex] = static_cast<std::uint32_t>(i);
  }
  // Vertices that are not there have no rows.
  for (std::int64_t v = n_vertices + grid_first(); v <= room; v += grid_stride()) {
    vertex_begin[v] = static_cast<std::uint32_t>(n_rows);
    if (v < room) vertex_key[v] = ~Key{0};
  }
  if (grid_first() == 0 && n_vertices > room) {
    report->vertices_left_out = static_cast<std::uint32_t>(n_vertices - room);
    vertex_begin[room] = static_cast<std::uint32_t>(n_rows);
  }
}

// From rows of tiles to vertices.
CRFSEG_KERNEL name_corners(std::int64_t n_tiles, std::int64_t stride, std::int64_t room,
                           const std::uint32_t* row_begin, const std::uint32_t* row_vertex,
                           std::uint32_t* corner) {
  for (std::int64_t tile = block_index(); tile < n_tiles; tile += grid_size()) {
    for (std::int64_t i = thread_index(); i < stride; i += block_size()) {
      std::uint32_t* at = corner + tile * stride + i;
      const std::int64_t row = std::int64_t{row_begin[tile]} + *at;
      *at = row < room ? row_vertex[row] : 0U;
    }
  }
}

CRFSEG_KERNEL fill_words(std::int64_t n, std::uint32_t word, std::uint32_t* out) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) out[i] = word;
}

CRFSEG_KERNEL count_up(std::int64_t n, std::uint32_t* out) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    out[i] = static_cast<std::uint32_t>(i);
  }
}

// Vertices by key: sorted keys, and whose they are.
template <class Key>
struct VertexLookup {
  const Key* key;
  const std::uint32_t* vertex;
  std::int64_t n;
};

template <class Key>
CRFSEG_DEVICE std::uint32_t look_up(const VertexLookup<Key>& lookup, Key key) {
  std::int64_t low = 0, high = lookup.n;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (lookup.key[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < lookup.n && lookup.key[low] == key ? lookup.vertex[low] : no_vertex;
}

// neighbours: (dim + 1, n, 2), filled with no_vertex before.
template <class Key>
CRFSEG_KERNEL link_neighbours(CRFSEG_CONSTANT KeyLayout<Key> layout, int dim, const Key* key,
                              VertexLookup<Key> lookup, std::uint32_t* neighbours) {
  const std::int64_t n = lookup.n;
  for (std::int64_t i = grid_first(); i < n * (dim + 1); i += grid_stride()) {
    const std::int64_t axis = i / n, v = i % n;
    if (key[v] == ~Key{0}) continue;
    const std::uint32_t next = look_up(lookup, layout.forth(key[v], static_cast<int>(axis)));
    if (next == no_vertex) continue;
    neighbours[2 * i] = next;
    neighbours[2 * (axis * n + next) + 1] = static_cast<std::uint32_t>(v);
  }
}

CRFSEG_KERNEL count_missing(std::int64_t n, int dim, const std::uint32_t* neighbours,
                            std::uint32_t* count) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    std::uint32_t missing = 0;
    for (int axis = 0; axis <= dim; ++axis) {
      const std::uint32_t* pair = neighbours + 2 * (axis * n + v);
      missing += (pair[0] == no_vertex ? 1U : 0U) + (pair[1] == no_vertex ? 1U : 0U);
    }
    count[v] = missing;
  }
}

// end: the counts summed up.
template <class Key>
CRFSEG_KERNEL list_missing(CRFSEG_CONSTANT KeyLayout<Key> layout, std::int64_t n, int dim,
                           const Key* key, const std::uint32_t* neighbours,
                           const std::uint32_t* end, Key* missing) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    Key* to = missing + (v > 0 ? end[v - 1] : 0U);
    for (int axis = 0; axis <= dim; ++axis) {
      const std::uint32_t* pair = neighbours + 2 * (axis * n + v);
      if (pair[0] == no_vertex) *to++ = layout.forth(key[v], axis);
      if (pair[1] == no_vertex) *to++ = layout.back(key[v], axis);
    }
  }
}

// In how many runs the rows of every vertex are summed: one at least, which gives filled vertices a
// value.
CRFSEG_KERNEL count_runs(std::int64_t n, const std::uint32_t* vertex_begin, std::uint32_t* count) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    const std::uint32_t rows = vertex_begin[v + 1] - vertex_begin[v];
    count[v] = rows > 0 ? (rows + run_length - 1) / run_length : 1U;
  }
}

// run_end: the counts summed up.
CRFSEG_KERNEL list_runs(std::int64_t n, const std::uint32_t* run_end, std::uint32_t* run_vertex) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    for (std::uint32_t run = v > 0 ? run_end[v - 1] : 0U; run < run_end[v]; ++run) {
      run_vertex[run] = static_cast<std::uint32_t>(v);
    }
  }
}

// 1 for vertices of several runs.
CRFSEG_KERNEL mark_heavy(std::int64_t n, const std::uint32_t* vertex_begin,
                         std::uint32_t* is_heavy) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    is_heavy[v] = vertex_begin[v + 1] - vertex_begin[v] > run_length ? 1U : 0U;
  }
}

// number: the marks summed up.
CRFSEG_KERNEL list_heavy(std::int64_t n, const std::uint32_t* number, std::uint32_t* heavy) {
  for (std::int64_t v = grid_first(); v < n; v += grid_stride()) {
    if (number[v] != (v > 0 ? number[v - 1] : 0U)) {
      heavy[number[v] - 1] = static_cast<std::uint32_t>(v);
    }
  }
}

}  // namespace cuda
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// The permutohedral lattice on a device (../lattice.h says what it is). The same points have the
// same vertices, weights and neighbours there as on the CPU, bit for bit; numbers of vertices
// differ.
//
// Nothing is hashed. The corners of a tile's points are sorted by their keys in the memory that its
// block shares, which gives the tile's rows, one per vertex it touches; and the rows of all tiles,
// of which there are several times fewer, are sorted together, which gives the vertices. Sums are
// taken in the order of these sorts, without atomics: results are the same in every run.
//
// A batch is one lattice: the item is part of the key. A lattice of positions alone, which all
// items share, is built for one of them and `repeated`.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/runtime.h"
#include "cuda/tiling.h"
#include "kinds.h"

namespace crfseg {
namespace cuda {

constexpr std::uint32_t no_vertex = 0xFFFFFFFFU;
constexpr std::uint32_t run_length = 32;  // rows that are summed one after the other

// Points of a batch, in device memory: rows of features, or pixels, or the voxels of volumes, which
// are tiled as if their slices lay below each other in an image.
struct Points {
  std::int64_t n_items = 1, n_points = 0;  // n_points: of an item
  int dim = 0;
  const float* features = nullptr;  // (n_items, n_points, dim); null: pixels,
  const void* channels = nullptr;   // (n_items, n_points, n_channels)
  ChannelType type = ChannelType::float32;
  int n_channels = 0;
  std::int64_t width = 0;   // of images, and of the slices of volumes
  std::int64_t height = 0;  // of slices; 0: the pixels of images have no z
  float inverse_sigmas[permutohedral::max_dim] = {};
  // Between which features lie. Values beyond are taken for the bound, and reported.
  float lo[permutohedral::max_dim] = {}, hi[permutohedral::max_dim] = {};
};

// What kernels see of a lattice; pointers into device memory.
struct LatticeView {
  Tiling tiling;
  int dim = 0;
  std::int64_t n_rows = 0, n_vertices = 0;  // of what was built

  // By slots: (tiles, dim + 1, slots of a tile)
  const std::uint32_t* corner_vertex = nullptr;
  const float* corner_weight = nullptr;
  // A tile's corners in order of its rows: (tiles, (dim + 1) slots)
  const std::uint16_t* entry_slot = nullptr;
  const float* entry_weight = nullptr;
  const std::uint32_t* row_begin = nullptr;  // (tiles + 1) of each tile
  const std::uint16_t* row_entry = nullptr;  // (n_rows) the row's first entry in its tile
  // Rows in order of their vertices. They are summed in runs, so that a vertex that every tile
  // touches keeps no thread busy for long.
  const std::uint32_t* vertex_rows = nullptr;   // (n_rows)
  const std::uint32_t* vertex_begin = nullptr;  // (n_vertices + 1)
  const std::uint32_t* run_end = nullptr;       // (n_vertices) how many runs end with a vertex
  const std::uint32_t* run_vertex = nullptr;    // (most_runs) the vertex of a run
  const std::uint32_t* n_heavy = nullptr;       // (1) how many vertices have several runs
  const std::uint32_t* heavy = nullptr;         // (most_runs) which they are
  const std::uint32_t* neighbours = nullptr;    // (dim + 1, n_vertices, 2): forth, back; or none

  bool is_repeated = false;  // built for one item, the same for all
  bool is_bounded = false;   // there is room for so many rows and vertices; some may not be there

  // Where an item's tiles, rows and vertices begin, beyond those of the first.
  CRFSEG_HD_MEMBER std::int64_t built_tile(std::int64_t tile) const {
    return is_repeated ? tile % tiling.per_item : tile;
  }
  CRFSEG_HD_MEMBER std::int64_t copy_of(std::int64_t tile) const {
    return is_repeated ? tile / tiling.per_item : 0;
  }
  CRFSEG_HD_MEMBER std::int64_t n_copies() const { return is_repeated ? tiling.n_items : 1; }
  CRFSEG_HD_MEMBER std::int64_t built_slots() const { return tiling.n_slots() / n_copies(); }
  // Vertices and full runs, at most.
  CRFSEG_HD_MEMBER std::int64_t most_runs() const { return n_vertices + n_rows / run_length; }
  CRFSEG_HD_MEMBER std::int64_t all_rows() const { return n_rows * n_copies(); }
  CRFSEG_HD_MEMBER std::int64_t all_vertices() const { return n_vertices * n_copies(); }
};

struct BuildReport;

struct BuildOptions {
  int side = 16;  // of tiles: Tiling::side_for(dim) or less
  std::vector<int> fill;
  int passes = 1;
  std::int64_t max_bytes = 0;  // that filling may hold; 0: no limit
  // Where nothing may wait for the device, as in the capture of a graph, how many rows and vertices
  // there is room for; 0: as many as there are, which takes two waits.
  std::int64_t room_for_rows = 0, room_for_vertices = 0;
};

class Lattice {
 public:
  // Throws KeyRange, TooLarge, and Error for what `check` finds, unless there is room given, when
  // nothing is waited for.
  Lattice(const Points& points, const BuildOptions& options, const Allocate& allocate,
          Stream stream);

  // Waits for the build, and throws Error for points out of their bounds and for rows or vertices
  // that there was no room for.
  void check(Stream stream) const;

  // The same for a batch of items that all have the points it was built for.
  Lattice repeated(std::int64_t n_items) const;
  // As it was built, for one item where that serves all.
  Lattice built() const { return view_.is_repeated ? repeated(1) : *this; }

  const LatticeView& view() const { return view_; }
  int dim() const { return view_.dim; }
  int passes() const { return passes_; }
  const std::vector<int>& fill() const { return fill_; }
  std::int64_t nbytes() const { return nbytes_; }

  // (n_vertices, 2) words of 64 bits: the key of every vertex, low word first.
  std::vector<std::uint64_t> keys(Stream stream) const;

 private:
  template <class Key>
  class Builder;

  LatticeView view_;
  std::vector<int> fill_;
  int passes_ = 1;
  std::int64_t n_points_ = 0;
  bool has_wide_keys_ = false;
  std::int64_t nbytes_ = 0;
  std::vector<Memory> memory_;
  Memory keys_, report_;
};

}  // namespace cuda
}  // namespace crfseg

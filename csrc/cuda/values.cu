// SPDX-License-Identifier: MIT
// A tile's splat adds up the entries of each of its rows in their order; here rows of the same
// vertex are added up in theirs. No sum depends on who takes it.
#include <utility>

#include "cuda/grid.h"
#include "cuda/tile.cuh"
#include "cuda/values.h"
#include "math/blur_shape.h"

namespace crfseg {
namespace cuda {
namespace {

CRFSEG_KERNEL splat_slots(CRFSEG_CONSTANT LatticeView lattice, int width, const float* rows,
                          const float* scale, float* partial) {
  const Tiling& tiling = lattice.tiling;
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    splat_tile(lattice, tile, rows + tile * tiling.size() * width, width, width, scale, partial);
  }
}

// Sums of runs of rows. The one run of a vertex is its value; else they go where the first row of
// the run was, for sum_heavy.
template <class T>
CRFSEG_KERNEL sum_runs(CRFSEG_CONSTANT LatticeView lattice, int width, T* partial, T* values,
                       const std::uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  const std::int64_t n_runs = lattice.run_end[lattice.n_vertices - 1], quads = width / 4;
  for (std::int64_t i = grid_first(); i < n_runs * lattice.n_copies() * quads; i += grid_stride()) {
    const std::int64_t quad = i % quads, run = i / quads % n_runs, copy = i / quads / n_runs;
    const std::int64_t vertex = lattice.run_vertex[run];
    const std::int64_t first_run = vertex > 0 ? lattice.run_end[vertex - 1] : 0U;
    const std::int64_t begin = lattice.vertex_begin[vertex] + (run - first_run) * run_length;
    const std::int64_t end_of_vertex = lattice.vertex_begin[vertex + 1];
    const std::int64_t end =
        begin + run_length < end_of_vertex ? begin + run_length : end_of_vertex;
    T* rows = partial + copy * lattice.n_rows * width + 4 * quad;
    Quad sum = no_quad();
    for (std::int64_t row = begin; row < end; ++row) {
      sum = sum + load_quad(rows + std::int64_t{lattice.vertex_rows[row]} * width);
    }
    const bool is_alone = lattice.run_end[vertex] - first_run == 1;
    store_quad(is_alone ? values + (copy * lattice.n_vertices + vertex) * width + 4 * quad
                        : rows + std::int64_t{lattice.vertex_rows[begin]} * width,
               sum);
  }
}

constexpr int heavy_sums = 32;   // sums of runs that are taken side by side
constexpr int heavy_quads = 64;  // quads at a time
constexpr std::size_t heavy_shared_bytes = sizeof(Quad) * heavy_sums * heavy_quads;

// Values of vertices of several runs: a block per vertex.
template <class T>
CRFSEG_KERNEL sum_heavy(CRFSEG_CONSTANT LatticeView lattice, int width, const T* partial, T* values,
                        const std::uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  CRFSEG_SHARED(shared);
  Quad* sums = reinterpret_cast<Quad*>(shared);
  const std::int64_t n_heavy = *lattice.n_heavy;
  for (std::int64_t i = block_index(); i < n_heavy * lattice.n_copies(); i += grid_size()) {
    const std::int64_t vertex = lattice.heavy[i % n_heavy], copy = i / n_heavy;
    const std::int64_t begin = lattice.vertex_begin[vertex];
    const std::int64_t n = lattice.vertex_begin[vertex + 1] - begin;
    for (int left = 0; left < width / 4; left += heavy_quads) {
      const int quads = width / 4 - left < heavy_quads ? width / 4 - left : heavy_quads;
      const T* rows = partial + copy * lattice.n_rows * width + 4 * left;
      for (int j = thread_index(); j < heavy_sums * quads; j += block_size()) {
        Quad sum = no_quad();
        for (std::int64_t run = std::int64_t{j} / quads * run_length; run < n;
             run += heavy_sums * run_length) {
          const std::int64_t row = lattice.vertex_rows[begin + run];
          sum = sum + load_quad(rows + row * width + 4 * (j % quads));
        }
        sums[j] = sum;
      }
      block_barrier();
      for (int quad = thread_index(); quad < quads; quad += block_size()) {
        Quad sum = no_quad();
        for (int j = 0; j < heavy_sums; ++j) sum = sum + sums[j * quads + quad];
        store_quad(values + (copy * lattice.n_vertices + vertex) * width + 4 * (left + quad), sum);
      }
      block_barrier();
    }
  }
}

// One pass [side, 1 - 2 side, side] along an axis; what is missing reads as 0.
template <class T>
CRFSEG_KERNEL blur_axis(CRFSEG_CONSTANT LatticeView lattice, int axis, float side, int width,
                        const T* from, T* to, const std::uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  const std::int64_t quads = width / 4, n = lattice.n_vertices;
  const std::uint32_t* pairs = lattice.neighbours + 2 * axis * n;
  for (std::int64_t i = grid_first(); i < n * lattice.n_copies() * quads; i += grid_stride()) {
    const std::int64_t quad = i % quads, row = i / quads, vertex = row % n;
    const T* copy = from + (row - vertex) * width + 4 * quad;
    const std::int64_t forth = pairs[2 * vertex], back = pairs[2 * vertex + 1];
    Quad around = no_quad();
    if (forth != no_vertex) around = load_quad(copy + forth * width);
    if (back != no_vertex) around = around + load_quad(copy + back * width);
    const Quad own = load_quad(copy + vertex * width);
    store_quad(to + row * width + 4 * quad, (1.0F - 2.0F * side) * own + side * around);
  }
}

// to[a] = sum over b of from[b] matrix[b][a]; matrix: (n_labels, width).
template <class T>
CRFSEG_KERNEL mix_labels(std::int64_t n_rows, int n_labels, int width, const float* matrix,
                         const T* from, T* to, const std::uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  const std::int64_t quads = width / 4;
  for (std::int64_t i = grid_first(); i < n_rows * quads; i += grid_stride()) {
    const std::int64_t quad = i % quads;
    const T* row = from + i / quads * width;
    Quad sum = no_quad();
    for (int b = 0; b < n_labels; ++b) {
      sum = sum + widened(row[b]) * load_quad(matrix + std::int64_t{b} * width + 4 * quad);
    }
    store_quad(to + i / quads * width + 4 * quad, sum);
  }
}

}  // namespace

template <class T>
ValuesOf<T>::ValuesOf(const Lattice& lattice, int width, const Allocate& allocate)
    : view_(lattice.view()),
      passes_(lattice.passes()),
      width_(width),
      partial_(view_.all_rows() * width, allocate),
      rows_(view_.all_vertices() * width, allocate),
      others_(view_.all_vertices() * width, allocate) {}

template <class T>
std::int64_t ValuesOf<T>::nbytes() const {
  return partial_.nbytes() + rows_.nbytes() + others_.nbytes();
}

template <class T>
const T* ValuesOf<T>::blur(bool transpose, const std::uint32_t* skip, Stream stream) {
  add_up(skip, stream);
  return blur_sums(transpose, skip, stream);
}

template <class T>
const T* ValuesOf<T>::add_up(const std::uint32_t* skip, Stream stream) {
  const std::int64_t quads = width_ / 4;
  const std::int64_t n_sums = view_.most_runs() * view_.n_copies() * quads;
  CRFSEG_LAUNCH(sum_runs<T>, elementwise(n_sums), block_threads, 0, stream, view_, width_,
                partial_.data(), rows_.data(), skip);
  CRFSEG_LAUNCH(sum_heavy<T>, blocks_at_once(), block_threads, heavy_shared_bytes, stream, view_,
                width_, partial_.data(), rows_.data(), skip);
  return rows_.data();
}

template <class T>
const T* ValuesOf<T>::blur_sums(bool transpose, const std::uint32_t* skip, Stream stream) {
  const std::int64_t quads = width_ / 4;
  const auto side = static_cast<float>(BlurShape::of(passes_).side);
  const std::int64_t n_quads = view_.all_vertices() * quads;
  for (int i = 0; i <= view_.dim; ++i) {
    for (int pass = 0; pass < passes_; ++pass) {
      CRFSEG_LAUNCH(blur_axis<T>, elementwise(n_quads), block_threads, 0, stream, view_,
                    transpose ? view_.dim - i : i, side, width_, rows_.data(), others_.data(),
                    skip);
      std::swap(rows_, others_);
    }
  }
  return rows_.data();
}

template <class T>
const T* ValuesOf<T>::mix(const T* rows, const float* matrix, int n_labels,
                          const std::uint32_t* skip, Stream stream) {
  CRFSEG_LAUNCH(mix_labels<T>, elementwise(view_.all_vertices() * (width_ / 4)), block_threads, 0,
                stream, view_.all_vertices(), n_labels, width_, matrix, rows, others_.data(), skip);
  std::swap(rows_, others_);
  return rows_.data();
}

template class ValuesOf<float>;
template class ValuesOf<Float16>;

void Values::clear(Stream stream) {
  if (!view_.is_bounded) return;
  fill_bytes(partial_.data(), 0, static_cast<std::size_t>(partial_.nbytes()), stream);
}

void Values::splat(const float* rows, const float* scale, Stream stream) {
  CRFSEG_LAUNCH(splat_slots, blocks_of(view_.tiling.n_tiles()), block_threads, 0, stream, view_,
                width_, rows, scale, partial_.data());
}

Array<float> Values::take(const Allocate& allocate) {
  Array<float> taken(rows_.size(), allocate);
  std::swap(taken, rows_);
  return taken;
}

}  // namespace cuda
}  // namespace crfseg

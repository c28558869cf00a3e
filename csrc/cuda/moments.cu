// SPDX-License-Identifier: MIT
#include <algorithm>

#include "cuda/grid.h"
#include "cuda/moments.h"
#include "cuda/tile.cuh"
#include "cuda/values.h"

namespace crfseg {
namespace cuda {
namespace {

constexpr int block_labels = 32;  // pairs of labels are worked on in squares of so many,
constexpr int block_rows = 64;    // for so many rows at a time
constexpr int square = block_labels * block_labels;
constexpr std::size_t square_shared_bytes = 2 * sizeof(float) * block_rows * block_labels;
constexpr std::int64_t most_parts = 1024;  // that keep a device busy
constexpr std::int64_t most_sums = 65536;  // threads that sum one label's products

int squares_across(int n_labels) { return (n_labels + block_labels - 1) / block_labels; }

// Every thread takes four labels of every so manieth row.
CRFSEG_KERNEL add_diagonal(std::int64_t n_rows, int width, std::int64_t n_parts, const float* a,
                           const float* b, double* parts) {
  const std::int64_t quads = width / 4;
  for (std::int64_t i = grid_first(); i < n_parts * quads; i += grid_stride()) {
    double* to = parts + 4 * i;
    double sum[4] = {to[0], to[1], to[2], to[3]};
    for (std::int64_t row = i / quads; row < n_rows; row += n_parts) {
      const std::int64_t at = row * width + i % quads * 4;
      const Quad x = load_quad(a + at), y = load_quad(b + at);
      sum[0] += static_cast<double>(x.x) * static_cast<double>(y.x);
      sum[1] += static_cast<double>(x.y) * static_cast<double>(y.y);
      sum[2] += static_cast<double>(x.z) * static_cast<double>(y.z);
      sum[3] += static_cast<double>(x.w) * static_cast<double>(y.w);
    }
    CRFSEG_UNROLL
    for (int x = 0; x < 4; ++x) to[x] = sum[x];
  }
}

// Labels of rows from `first` on, zeros where there are none.
CRFSEG_DEVICE void load_square(const float* rows, std::int64_t first, std::int64_t end, int width,
                               int label, float* to) {
  for (int i = thread_index(); i < block_rows * block_labels / 4; i += block_size()) {
    const std::int64_t row = first + i / (block_labels / 4);
    const int x = label + i % (block_labels / 4) * 4;
    const bool is_there = row < end && x < width;
    store_quad(to + 4 * i, is_there ? load_quad(rows + row * width + x) : no_quad());
  }
}

// A block per part of the rows and square of labels: in float over few rows, in double over these.
CRFSEG_KERNEL add_pairs(std::int64_t n_rows, int width, std::int64_t n_parts, int across,
                        const float* a, const float* b, double* parts) {
  CRFSEG_SHARED(shared);
  float* of_a = reinterpret_cast<float*>(shared);
  float* of_b = of_a + block_rows * block_labels;
  const std::int64_t squares = std::int64_t{across} * across;
  const std::int64_t share = (n_rows + n_parts - 1) / n_parts;
  for (std::int64_t i = block_index(); i < n_parts * squares; i += grid_size()) {
    const int label_a = static_cast<int>(i % squares / across) * block_labels;
    const int label_b = static_cast<int>(i % squares % across) * block_labels;
    const std::int64_t begin = i / squares * share;
    const std::int64_t end = begin + share < n_rows ? begin + share : n_rows;
    for (std::int64_t first = begin; first < end; first += block_rows) {
      load_square(a, first, end, width, label_a, of_a);
      load_square(b, first, end, width, label_b, of_b);
      block_barrier();
      for (int j = thread_index(); j < square / 4; j += block_size()) {
        const int x = j / (block_labels / 4), y = j % (block_labels / 4) * 4;
        Quad sum = no_quad();
        for (int row = 0; row < block_rows; ++row) {
          sum = sum + of_a[row * block_labels + x] * load_quad(of_b + row * block_labels + y);
        }
        double* to = parts + i * square + 4 * j;
        to[0] += static_cast<double>(sum.x);
        to[1] += static_cast<double>(sum.y);
        to[2] += static_cast<double>(sum.z);
        to[3] += static_cast<double>(sum.w);
      }
      block_barrier();
    }
  }
}

// Where a sum lies in a part. across: 0 for sums of each label.
CRFSEG_DEVICE std::int64_t place_in_part(std::int64_t i, int n_labels, int across) {
  if (across == 0) return i;
  const std::int64_t a = i / n_labels, b = i % n_labels;
  const std::int64_t which = a / block_labels * across + b / block_labels;
  return which * square + a % block_labels * block_labels + b % block_labels;
}

CRFSEG_KERNEL add_parts(std::int64_t n, int n_labels, int across, std::int64_t n_parts,
                        std::int64_t stride, const double* parts, double factor, double* out) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    const double* from = parts + place_in_part(i, n_labels, across);
    double sum = 0.0;
    for (std::int64_t part = 0; part < n_parts; ++part) sum += from[part * stride];
    out[i] = factor * sum;
  }
}

std::int64_t parts_of(std::int64_t n_rows, int n_labels, int width, bool all_pairs) {
  const std::int64_t across = squares_across(n_labels);
  const std::int64_t most = all_pairs ? most_parts / (across * across) : 4 * most_sums / width;
  const std::int64_t rows_of_part = all_pairs ? 2 * block_rows : 16;
  return std::max<std::int64_t>(1, std::min(most, n_rows / rows_of_part));
}

}  // namespace

Moments::Moments(std::int64_t n_rows, int n_labels, int width, bool all_pairs,
                 const Allocate& allocate, Stream stream)
    : n_rows_(n_rows),
      n_parts_(parts_of(n_rows, n_labels, width, all_pairs)),
      n_labels_(n_labels),
      width_(width),
      all_pairs_(all_pairs),
      stream_(stream) {
  const std::int64_t across = squares_across(n_labels);
  parts_ = Array<double>(n_parts_ * (all_pairs ? across * across * square : width), allocate);
  fill_bytes(parts_.data(), 0, static_cast<std::size_t>(parts_.nbytes()), stream);
}

void Moments::add(const float* a, const float* b) {
  if (!all_pairs_) {
    CRFSEG_LAUNCH(add_diagonal, elementwise(n_parts_ * width_ / 4), block_threads, 0, stream_,
                  n_rows_, width_, n_parts_, a, b, parts_.data());
    return;
  }
  const int across = squares_across(n_labels_);
  CRFSEG_LAUNCH(add_pairs, blocks_of(n_parts_ * across * across), block_threads,
                square_shared_bytes, stream_, n_rows_, width_, n_parts_, across, a, b,
                parts_.data());
}

void Moments::write(double factor, double* out) {
  const std::int64_t n = all_pairs_ ? std::int64_t{n_labels_} * n_labels_ : n_labels_;
  CRFSEG_LAUNCH(add_parts, elementwise(n), block_threads, 0, stream_, n, n_labels_,
                all_pairs_ ? squares_across(n_labels_) : 0, n_parts_, parts_.size() / n_parts_,
                parts_.data(), factor, out);
}

}  // namespace cuda
}  // namespace crfseg

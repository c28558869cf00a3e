// SPDX-License-Identifier: MIT
// Splat, blur and slice of one lattice. Compiled once per instruction set; see kernels.h for what
// may not be included here.
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

void slice(Corners at, const float* scale, const float* rows, std::int64_t n, int width,
           float* values) {
  slice_rows(at, scale, rows, nullptr, n, width, values);
}

void splat(Corners at, const float* scale, const float* values, std::int64_t n, int width,
           float* rows) {
  splat_rows(at, scale, values, n, width, rows);
}

void reduce(const float* local, const std::uint32_t* begin, const std::uint32_t* position,
            std::int64_t first, std::int64_t last, int width, float* out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      V sum[B::W] = {};
      for (std::uint32_t i = begin[v]; i < begin[v + 1]; ++i) {
        const float* row = local + block.row(position[i]);
        for (int x = 0; x < B::W; ++x) sum[x] += load<V>(row + x * B::lanes);
      }
      float* target = out + block.row(v);
      for (int x = 0; x < B::W; ++x) store<V>(target + x * B::lanes, sum[x]);
    }
  });
}

void blur(const float* in, const std::uint32_t* neighbour, float side, std::int64_t first,
          std::int64_t last, int width, float* out) {
  const float middle = 1.0F - 2.0F * side;
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      const float* a = in + block.row(neighbour[2 * v]);
      const float* b = in + block.row(neighbour[2 * v + 1]);
      const float* centre = in + block.row(v);
      float* target = out + block.row(v);
      for (int x = 0; x < B::W; ++x) {
        const int i = x * B::lanes;
        const V sides = load<V>(a + i) + load<V>(b + i);
        store<V>(target + i, load<V>(centre + i) * middle + sides * side);
      }
    }
  });
}

void gather(const float* in, const std::uint32_t* row, const float* factor, std::int64_t n,
            int width, float* out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t i = 0; i < n; ++i) {
      const float* source = in + block.row(row[i]);
      float* target = out + block.row(i);
      for (int x = 0; x < B::W; ++x) {
        const int offset = x * B::lanes;
        store<V>(target + offset,
                 load<V>(source + offset) * load<V>(factor + block.column + offset));
      }
    }
  });
}

void mix(const float* in, const float* matrix, int n_labels, std::int64_t first, std::int64_t last,
         int width, float* out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      V sum[B::W] = {};
      for (int label = 0; label < n_labels; ++label) {
        const float amount = in[v * width + label];
        const float* row = matrix + block.row(label);
        for (int x = 0; x < B::W; ++x) sum[x] += load<V>(row + x * B::lanes) * amount;
      }
      float* target = out + block.row(v);
      for (int x = 0; x < B::W; ++x) store<V>(target + x * B::lanes, sum[x]);
    }
  });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

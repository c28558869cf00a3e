// SPDX-License-Identifier: MIT
// Splat, blur and slice of one lattice. Compiled once per instruction set; see kernels.h for what
// may not be included here.
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Where vector x of a block finds its slab.
template <class B>
CRFSEG_INLINE float* slab_of(const Slabs& slabs, const B& block, int x) {
  return slabs.data + (block.column / 8 + x) * slabs.stride;
}

void slice(Corners at, const float* scale, const float* rows, std::int64_t n, int width,
           float* values) {
  slice_rows(at, Everyone{}, scale, rows, nullptr, n, width, values);
}

void splat(Corners at, const float* scale, const float* values, std::int64_t n, int width,
           float* rows) {
  splat_rows(at, Everyone{}, scale, values, n, width, rows);
}

void reduce(const float* local, const std::uint32_t* begin, const std::uint32_t* position,
            std::int64_t first, std::int64_t last, int width, Slabs out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      V sum[B::W] = {};
      for (std::uint32_t i = begin[v]; i < begin[v + 1]; ++i) {
        const float* row = local + block.row(position[i]);
        for (int x = 0; x < B::W; ++x) sum[x] += load<V>(row + x * B::lanes);
      }
      for (int x = 0; x < B::W; ++x) store<V>(slab_of(out, block, x) + v * B::lanes, sum[x]);
    }
  });
}

void blur(const float* in, const std::uint32_t* neighbour, float side, std::int64_t first,
          std::int64_t last, int lanes, float* out) {
  const float middle = 1.0F - 2.0F * side;
  for_blocks(lanes, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      const V sides = load<V>(in + neighbour[2 * v] * std::int64_t{B::lanes}) +
                      load<V>(in + neighbour[2 * v + 1] * std::int64_t{B::lanes});
      store<V>(out + v * B::lanes, load<V>(in + v * B::lanes) * middle + sides * side);
    }
  });
}

void gather(Slabs in, const std::uint32_t* row, const float* factor, std::int64_t n, int width,
            float* out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t i = 0; i < n; ++i) {
      float* target = out + block.row(i);
      for (int x = 0; x < B::W; ++x) {
        const V value = load<V>(slab_of(in, block, x) + row[i] * std::int64_t{B::lanes});
        store<V>(target + x * B::lanes, value * load<V>(factor + block.column + x * B::lanes));
      }
    }
  });
}

void mix(Slabs in, const float* matrix, int n_labels, std::int64_t first, std::int64_t last,
         int width, Slabs out) {
  const int lanes = width < 8 ? width : 8;
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t v = first; v < last; ++v) {
      V sum[B::W] = {};
      for (int label = 0; label < n_labels; ++label) {
        const float amount = in.data[label / lanes * in.stride + v * lanes + label % lanes];
        const float* row = matrix + block.row(label);
        for (int x = 0; x < B::W; ++x) sum[x] += load<V>(row + x * B::lanes) * amount;
      }
      for (int x = 0; x < B::W; ++x) store<V>(slab_of(out, block, x) + v * B::lanes, sum[x]);
    }
  });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// The way back through mean-field steps. Compiled once per instruction set; see kernels.h for what
// may not be included here.
#include "cpu/kernels/gradients.h"

#include "cpu/kernels/layouts.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Calls f with the widest blocks that fit, until all labels of a row are done; rows are never one
// float here.
template <class F>
CRFSEG_INLINE void for_label_blocks(int width, F&& f) {
  switch (width) {
    case 4:
      return f(Block<V4, 1, true>{width, 0});
    case 8:
      return f(Block<Wide, per_slab, true>{width, 0});
    case 24:
      return f(Block<Wide, 3 * per_slab, true>{width, 0});
    default:
      return for_part(width, 0, width, f);
  }
}

// corner(p, k) += scale <values(p), rows at the corner>; where wanted, mass(p) += their weighted
// sum
template <class B, class Kind>
CRFSEG_APART void add_corner_products(B block, Kind, Corners at, const float* scale,
                                      const float* values, const float* rows, int n, float* corner,
                                      float* mass) {
  typedef typename B::V V;
  const int corners = Kind::corners > 0 ? Kind::corners : at.corners;
  for (int p = 0; p < n; ++p) {
    const auto* row = rows_from<typename Kind::Index>(at, p);
    const float* weight = at.weight + p * corners;
    const float factor = scale != nullptr ? scale[p] : 1.0F;
    V value[B::W];
    for (int x = 0; x < B::W; ++x) value[x] = load<V>(values + block.row(p) + x * B::lanes);
    float total = 0.0F;
    for (int k = 0; k < corners; k += B::lanes) {
      V part[B::lanes];
      for (int i = 0; i < B::lanes; ++i) {
        part[i] = V{};
        if (k + i >= corners) continue;
        const float* source = rows + block.row(row[k + i]);
        for (int x = 0; x < B::W; ++x) part[i] += value[x] * load<V>(source + x * B::lanes);
      }
      const V products = reduce_rows<Sum>(part) * factor;
      for (int i = 0; i < B::lanes && k + i < corners; ++i) {
        corner[p * corners + k + i] += products[i];
        total += products[i] * weight[k + i];
      }
    }
    if (mass != nullptr) mass[p] += total;
  }
}

CRFSEG_INLINE void note_products(Corners at, const float* scale, const float* values,
                                 const float* rows, int n, int width, float* corner, float* mass) {
  for_label_blocks(width, [&](auto block) __attribute__((always_inline)) {
    for_corners(at, [&](auto kind) __attribute__((always_inline)) {
      add_corner_products(block, kind, at, scale, values, rows, n, corner, mass);
    });
  });
}

// What the weights of the corners are worth: <delta, M K~ Q at the corner> and <Q, M^T K~^T delta>.
CRFSEG_INLINE void note_corners(const AdjointPass& pass, const AdjointKernel& kernel,
                                std::int64_t first, int n) {
  const std::int64_t start = first * pass.width;
  const Corners at = from_point(kernel.at, first);
  float* corner = kernel.corner + first * at.corners;
  float* mass = kernel.mass + first;
  note_products(at, from_point(kernel.slice_scale, first), pass.delta + start, kernel.filtered, n,
                pass.width, corner, kernel.slice_has_mass ? mass : nullptr);
  note_products(at, from_point(kernel.splat_scale, first), pass.q + start, kernel.adjoint, n,
                pass.width, corner, kernel.splat_has_mass ? mass : nullptr);
}

// G of a batch.
CRFSEG_INLINE void gather(const AdjointPass& pass, std::int64_t first, int n, float* g) {
  if (pass.n_kernels == 0) __builtin_memset(g, 0, sizeof(float) * n * pass.width);
  const float* base = nullptr;
  for (int k = 0; k < pass.n_kernels; ++k) {
    const AdjointKernel& kernel = pass.kernels[k];
    slice_rows(from_point(kernel.at, first), from_point(kernel.splat_scale, first), kernel.adjoint,
               base, n, pass.width, g);
    base = g;
  }
}

// delta = Q (G - <G, Q>), in place.
template <class V>
CRFSEG_APART void through_softmax(const float* q, int n, int width, float* g) {
  float dot[most_batched];
  reduce_each<Sum>(g, n, width, V{}, dot,
                   [&](int p, const float* place, auto vector) __attribute__((always_inline)) {
                     using Vector = decltype(vector);
                     const std::int64_t at = place - g;
                     const float* other = p < n ? q + at : g + at;
                     return load<Vector>(place) * load<Vector>(other);
                   });
  for (int p = 0; p < n; ++p) {
    for (int x = p * width; x < (p + 1) * width; x += Lanes<V>::count) {
      store<V>(g + x, load<V>(q + x) * (load<V>(g + x) - dot[p]));
    }
  }
}

template <class V>
CRFSEG_INLINE void note_delta(AdjointPass* pass, std::int64_t first, int n, const float* delta) {
  const std::int64_t start = first * pass->width;
  V largest = {};
  for (int x = 0; x < n * pass->width; x += Lanes<V>::count) {
    const V value = load<V>(delta + x);
    largest = maximum(largest, absolute(value));
    if (pass->sum != nullptr)
      store<V>(pass->sum + start + x, load<V>(pass->sum + start + x) + value);
    if (pass->delta != nullptr) store<V>(pass->delta + start + x, value);
  }
  for (int lane = 0; lane < Lanes<V>::count; ++lane) {
    pass->largest = maximum(pass->largest, static_cast<float>(largest[lane]));
  }
}

CRFSEG_INLINE void splat_next(const AdjointPass& pass, std::int64_t first, int n,
                              const float* delta) {
  for (int k = 0; k < pass.n_kernels; ++k) {
    const AdjointKernel& kernel = pass.kernels[k];
    if (kernel.adjoint_out == nullptr) continue;
    splat_rows(from_point(kernel.at, first), from_point(kernel.slice_scale, first), delta, n,
               pass.width, kernel.adjoint_out);
  }
}

template <class V>
CRFSEG_INLINE void adjoint_batch(AdjointPass* pass, std::int64_t first, int n, float* g) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->given_delta != nullptr) {
    copy(pass->given_delta + first * width, floats, g);
  } else if (pass->gradient.data != nullptr) {
    read_rows<V>(pass->gradient, first, n, pass->n_labels, width, g);
  } else {
    for (int k = 0; k < pass->n_kernels; ++k) {
      if (pass->kernels[k].filtered != nullptr) note_corners(*pass, pass->kernels[k], first, n);
    }
    if (!pass->goes_on) return;
    gather(*pass, first, n, g);
  }
  if (pass->through_softmax) through_softmax<V>(pass->q + first * width, n, width, g);
  note_delta<V>(pass, first, n, g);
  splat_next(*pass, first, n, g);
}

void adjoint_pass(AdjointPass* pass) {
  with_vector(pass->width, [&](auto vector) {
    for_batches(pass->n_points, pass->batch, pass->width, pass->scratch,
                [&](std::int64_t first, int n) {
                  adjoint_batch<decltype(vector)>(pass, first, n, pass->scratch);
                });
  });
}

// sums[x] += sum over rows of a times b; in double between batches.
template <class V>
CRFSEG_APART void add_diagonal(const float* a, const float* b, int n, int width, double* sums) {
  const int lanes = Lanes<V>::count;
  for (int x = 0; x < width; x += lanes) {
    V sum = {};
    for (int p = 0; p < n; ++p) sum += load<V>(a + p * width + x) * load<V>(b + p * width + x);
    for (int lane = 0; lane < lanes; ++lane) sums[x + lane] += static_cast<double>(sum[lane]);
  }
}

// The same for all pairs of a label of a and a label of b, `rows` labels of a at a time, so that
// what is loaded serves several.
template <int rows, class B>
CRFSEG_APART void add_pairs(B block, const float* a, const float* b, int n, int width,
                            double* sums) {
  typedef typename B::V V;
  V sum[rows][B::W] = {};
  for (int p = 0; p < n; ++p) {
    V of_b[B::W];
    for (int x = 0; x < B::W; ++x) of_b[x] = load<V>(b + block.row(p) + x * B::lanes);
    for (int i = 0; i < rows; ++i) {
      for (int x = 0; x < B::W; ++x) sum[i][x] += of_b[x] * a[p * width + i];
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int x = 0; x < B::W; ++x) {
      for (int lane = 0; lane < B::lanes; ++lane) {
        sums[block.row(i) + x * B::lanes + lane] += static_cast<double>(sum[i][x][lane]);
      }
    }
  }
}

void add_products(const float* a, const float* b, std::int64_t n, int n_labels, int width,
                  bool all_pairs, double* sums) {
  for (std::int64_t first = 0; first < n;
       first += most_batched, a += most_batched * width, b += most_batched * width) {
    const int count = static_cast<int>(n - first < most_batched ? n - first : most_batched);
    if (!all_pairs) {
      with_vector(width, [&](auto vector) __attribute__((always_inline)) {
        add_diagonal<decltype(vector)>(a, b, count, width, sums);
      });
      continue;
    }
    for_label_blocks(width, [&](auto block) __attribute__((always_inline)) {
      int label = 0;
      for (; label + 4 <= n_labels; label += 4) {
        add_pairs<4>(block, a + label, b, count, width, sums + label * width);
      }
      for (; label < n_labels; ++label) {
        add_pairs<1>(block, a + label, b, count, width, sums + label * width);
      }
    });
  }
}

// Rows behind the last point, up to the next multiple of eight, must be readable.
void write_gradient(const float* rows, std::int64_t n_points, int n_labels, int width, float factor,
                    const LabelStrip& out) {
  with_vector(width, [&](auto vector) __attribute__((always_inline)) {
    for (std::int64_t first = 0; first < n_points; first += most_batched) {
      const std::int64_t left = n_points - first;
      const int n = static_cast<int>(left < most_batched ? left : most_batched);
      write_values<decltype(vector)>(out, first, n, n_labels, width, rows + first * width, factor);
    }
  });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

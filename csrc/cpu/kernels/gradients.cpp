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

// sums[x] += sum over points of a row of one times a row of the other; in double between batches.
template <class V>
CRFSEG_APART void note_diagonal(const float* filtered, const float* q, int n, int width,
                                double* sums) {
  const int lanes = Lanes<V>::count;
  for (int x = 0; x < width; x += lanes) {
    V sum = {};
    for (int p = 0; p < n; ++p)
      sum += load<V>(filtered + p * width + x) * load<V>(q + p * width + x);
    for (int lane = 0; lane < lanes; ++lane) sums[x + lane] += static_cast<double>(sum[lane]);
  }
}

// The same for all pairs of a label of one and a label of the other, `rows` labels at a time, so
// that what is loaded serves several.
template <int rows, class B>
CRFSEG_APART void note_pairs(B block, const float* filtered, const float* q, int n, int width,
                             double* sums) {
  typedef typename B::V V;
  V sum[rows][B::W] = {};
  for (int p = 0; p < n; ++p) {
    V of_q[B::W];
    for (int x = 0; x < B::W; ++x) of_q[x] = load<V>(q + block.row(p) + x * B::lanes);
    for (int i = 0; i < rows; ++i) {
      for (int x = 0; x < B::W; ++x) sum[i][x] += of_q[x] * filtered[p * width + i];
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

// dLoss/dM(a, b) += sum over points of (K~^T delta)(a) Q(b)
template <class V>
CRFSEG_INLINE void note_moments(const AdjointKernel& kernel, const float* filtered, const float* q,
                                int n, int n_labels, int width) {
  if (kernel.transposed == nullptr) {
    return note_diagonal<V>(filtered, q, n, width, kernel.moments);
  }
  for_label_blocks(width, [&](auto block) __attribute__((always_inline)) {
    int label = 0;
    for (; label + 4 <= n_labels; label += 4) {
      note_pairs<4>(block, filtered + label, q, n, width, kernel.moments + label * width);
    }
    for (; label < n_labels; ++label) {
      note_pairs<1>(block, filtered + label, q, n, width, kernel.moments + label * width);
    }
  });
}

// out = matrix times rows, so many points at a time; matrix (n_labels, width): row b holds what
// label b adds to every label.
template <int points, class B>
CRFSEG_APART void couple_points(B block, const float* rows, const float* matrix, int n_labels,
                                int width, float* out) {
  typedef typename B::V V;
  V sum[points][B::W] = {};
  for (int label = 0; label < n_labels; ++label) {
    V of_label[B::W];
    for (int x = 0; x < B::W; ++x) of_label[x] = load<V>(matrix + block.row(label) + x * B::lanes);
    for (int p = 0; p < points; ++p) {
      for (int x = 0; x < B::W; ++x) sum[p][x] += of_label[x] * rows[p * width + label];
    }
  }
  for (int p = 0; p < points; ++p) {
    for (int x = 0; x < B::W; ++x) store<V>(out + block.row(p) + x * B::lanes, sum[p][x]);
  }
}

CRFSEG_INLINE void couple_fully(const float* rows, const float* matrix, int n, int n_labels,
                                int width, float* out) {
  for_label_blocks(width, [&](auto block) __attribute__((always_inline)) {
    int p = 0;
    for (; p + 4 <= n; p += 4) {
      couple_points<4>(block, rows + p * width, matrix, n_labels, width, out + p * width);
    }
    for (; p < n; ++p) {
      couple_points<1>(block, rows + p * width, matrix, n_labels, width, out + p * width);
    }
  });
}

// M times rows, or M^T times rows.
template <class V>
CRFSEG_INLINE void couple(const AdjointKernel& kernel, bool transpose, const float* rows, int n,
                          int n_labels, int width, float* out) {
  if (kernel.transposed != nullptr) {
    const float* matrix = transpose ? kernel.coupling : kernel.transposed;
    return couple_fully(rows, matrix, n, n_labels, width, out);
  }
  for (int p = 0; p < n; ++p) {
    for (int x = 0; x < width; x += Lanes<V>::count) {
      store<V>(out + p * width + x, load<V>(rows + p * width + x) * load<V>(kernel.coupling + x));
    }
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

// What the weights of the corners are worth: <M^T delta, sliced Q> and <M Q, sliced delta>.
template <class V>
CRFSEG_INLINE void note_corners(const AdjointPass& pass, const AdjointKernel& kernel,
                                std::int64_t first, int n, float* coupled) {
  const int width = pass.width;
  const Corners at = from_point(kernel.at, first);
  float* corner = kernel.corner + first * at.corners;
  float* mass = kernel.mass + first;
  couple<V>(kernel, true, pass.delta + first * width, n, pass.n_labels, width, coupled);
  note_products(at, from_point(kernel.slice_scale, first), coupled, kernel.filtered, n, width,
                corner, kernel.slice_has_mass ? mass : nullptr);
  couple<V>(kernel, false, pass.q + first * width, n, pass.n_labels, width, coupled);
  note_products(at, from_point(kernel.splat_scale, first), coupled, kernel.adjoint, n, width,
                corner, kernel.splat_has_mass ? mass : nullptr);
}

template <class V>
CRFSEG_INLINE void gather(const AdjointPass& pass, const AdjointKernel& kernel, std::int64_t first,
                          int n, float* g) {
  const int width = pass.width;
  float* filtered = g + pass.batch * width;
  float* coupled = filtered + pass.batch * width;
  if (kernel.filtered != nullptr) note_corners<V>(pass, kernel, first, n, coupled);
  if (kernel.moments == nullptr && !pass.goes_on) return;
  slice_rows(from_point(kernel.at, first), from_point(kernel.splat_scale, first), kernel.adjoint,
             nullptr, n, width, filtered);
  if (kernel.moments != nullptr) {
    note_moments<V>(kernel, filtered, pass.q + first * width, n, pass.n_labels, width);
  }
  if (!pass.goes_on) return;
  couple<V>(kernel, true, filtered, n, pass.n_labels, width, coupled);
  for (int x = 0; x < n * width; x += Lanes<V>::count) {
    store<V>(g + x, load<V>(g + x) + load<V>(coupled + x));
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
    const Corners at = from_point(kernel.at, first);
    if (kernel.adjoint_out != nullptr) {
      splat_rows(at, from_point(kernel.slice_scale, first), delta, n, pass.width,
                 kernel.adjoint_out);
    }
    if (kernel.filtered_out != nullptr) {
      splat_rows(at, from_point(kernel.splat_scale, first), pass.next_q + first * pass.width, n,
                 pass.width, kernel.filtered_out);
    }
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
    __builtin_memset(g, 0, sizeof(float) * static_cast<std::size_t>(floats));
    for (int k = 0; k < pass->n_kernels; ++k) gather<V>(*pass, pass->kernels[k], first, n, g);
  }
  if (!pass->goes_on) return;
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

// SPDX-License-Identifier: MIT
// Mean-field passes with labels in slabs (cpu/slab_field.h). Compiled once per instruction set; see
// kernels.h for what may not be included here.
//
// They work on batches of points so small that everything about them stays in the first-level
// cache: slice and splat of one point depend on memory the previous point has just written, and
// only with many independent points in flight does the processor hide that.
#include <type_traits>

#include "cpu/kernels/marginals.h"
#include "cpu/kernels/pairs.h"
#include "cpu/kernels/reading.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/sources.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

constexpr int lanes = Lanes<Wide>::count;

struct Batch {
  std::int64_t index, first;
  int n;
};

template <class F>
CRFSEG_INLINE void for_batches(const SlabPass& pass, F&& f) {
  const std::int64_t n = pass.unary.n_points;
  for (std::int64_t i = 0; i * pass.batch < n; ++i) {
    const std::int64_t left = n - i * pass.batch;
    f(Batch{i, i * pass.batch, static_cast<int>(left < pass.batch ? left : pass.batch)});
  }
}

CRFSEG_INLINE float* sums_of(const SlabPass& pass, int slab) {
  return slab_rows(pass, pass.n_slabs + 1) + slab * std::int64_t{pass.batch};
}

// Calls f(vector, width) with the width of a slab as a constant.
template <class F>
CRFSEG_INLINE void for_width(int width, F&& f) {
  switch (width) {
    case 4:
      return f(V4{}, std::integral_constant<int, 4>{});
    case 8:
      return f(Wide{}, std::integral_constant<int, 8>{});
    case slab_width:
      return f(Wide{}, std::integral_constant<int, slab_width>{});
    default:
      return f(Wide{}, std::integral_constant<int, widest_slab>{});
  }
}

// One number per point: loops take them in whole vectors, which end within a batch.
template <class F>
CRFSEG_INLINE void for_points(int n, F&& f) {
  for (int i = 0; i < n; i += lanes) f(i);
}

// Op over the numbers of n points.
template <class Op>
CRFSEG_INLINE float over_points(const float* values, int n) {
  if (n < lanes) {
    float result = values[0];
    for (int i = 1; i < n; ++i) result = Op::of(result, values[i]);
    return result;
  }
  Wide all = load<Wide>(values + n - lanes);
  for (int i = 0; i + lanes <= n; i += lanes) all = Op::of(all, load<Wide>(values + i));
  return across<Op>(all);
}

// The numbers of n points in whole vectors: in memory they may end anywhere.
CRFSEG_INLINE const float* whole(const float* values, int n, float* room) {
  if (n % lanes == 0) return values;
  __builtin_memcpy(room, values, sizeof(float) * n);
  for (int i = n; i < most_batched; ++i) room[i] = 1.0F;
  return room;
}

// Rows p e^m in place of rows m log2(e), and their sums added to `sum`. Returns the largest
// exponent, at least 0.
template <class V, int width>
CRFSEG_APART float weigh_rows(const float* p, int n, float* rows, float* sum) {
  float more[most_batched];
  V most = {};
  reduce_each<Sum>(rows, n, width, V{}, more,
                   [&](int, float* place, auto vector) __attribute__((always_inline)) {
                     typedef decltype(vector) Vector;
                     const Vector m = load<Vector>(place);
                     most = accumulated<Max>(most, m);
                     const Vector e = load<Vector>(p + (place - rows)) * exp2_bounded(m);
                     store(place, e);
                     return e;
                   });
  for_points(n, [&](int i) { store(sum + i, load<Wide>(sum + i) + load<Wide>(more + i)); });
  return across<Max>(most);
}

template <class V, int width>
CRFSEG_APART void sum_rows(float* rows, int n, float* sum) {
  reduce_each<Sum>(rows, n, width, V{}, sum,
                   [&](int, const float* place, auto vector)
                       __attribute__((always_inline)) { return load<decltype(vector)>(place); });
}

template <class V, int width>
CRFSEG_APART void raise_top(float* rows, int n, float* top) {
  float here[most_batched];
  reduce_each<Max>(rows, n, width, V{} + 2.0F * log_zero, here,
                   [&](int, const float* place, auto vector)
                       __attribute__((always_inline)) { return load<decltype(vector)>(place); });
  for (int i = 0; i < n; ++i) top[i] = maximum(top[i], here[i]);
}

// Rows of logits times log2(e), mixed, become p.
CRFSEG_INLINE void exponentiate(const float* top, int n, int width, float* rows) {
  for (int i = 0; i < n; ++i, rows += width) {
    for (int x = 0; x < width; x += 4) {
      store<V4>(rows + x, start_weight(load<V4>(rows + x) - top[i]));
    }
  }
}

CRFSEG_INLINE void raise_to(const float* least, int n, int width, float* rows) {
  for (int i = 0; i < n; ++i, rows += width) {
    for (int x = 0; x < width; x += 4) {
      store<V4>(rows + x, maximum(load<V4>(rows + x), load<V4>(least + x)));
    }
  }
}

CRFSEG_INLINE void mix_slab(const SlabPass& pass, const Slab& slab, const Batch& b, float* rows) {
  CoarseSource from = pass.unary.coarse;
  from.rows = slab.cells;
  mix_rows(from, b.first, b.n, slab.width, rows);
}

CRFSEG_INLINE bool mixes_logits(const SlabPass& pass) {
  return pass.unary.coarse.rows != nullptr && pass.unary.kind == UnaryKind::logits;
}

// p of the labels of a slab, up to a factor per point, where no rows hold it.
CRFSEG_INLINE void make_rows(const SlabPass& pass, const Slab& slab, const Batch& b, float* rows) {
  if (pass.unary.values.data != nullptr) return read_slab(pass, slab, b.first, b.n, rows);
  if (slab.cells == nullptr) return label_rows(pass, slab, b.first, b.n, rows);
  mix_slab(pass, slab, b, rows);
  if (mixes_logits(pass)) return exponentiate(pass.top + b.first, b.n, slab.width, rows);
  raise_to(slab.least, b.n, slab.width, rows);
}

CRFSEG_INLINE void find_top(const SlabPass& pass, const Batch& b) {
  float top[most_batched];
  for (float& value : top) value = 2.0F * log_zero;
  for (int g = 0; g < pass.n_slabs; ++g) {
    float* rows = slab_rows(pass, g);
    mix_slab(pass, pass.slabs[g], b, rows);
    for_width(pass.slabs[g].width, [&](auto vector, auto width) __attribute__((always_inline)) {
      raise_top<decltype(vector), decltype(width)::value>(rows, b.n, top);
    });
  }
  copy(top, b.n, pass.top + b.first);
}

// Reads p of all slabs; how much each has of every point is left in sums_of().
CRFSEG_INLINE void read_batch(const SlabPass& pass, const Batch& b) {
  if (pass.unary.values.data != nullptr) return read_slabs(pass, b.first, b.n, sums_of(pass, 0));
  if (mixes_logits(pass)) find_top(pass, b);
  for (int g = 0; g < pass.n_slabs; ++g) {
    make_rows(pass, pass.slabs[g], b, slab_rows(pass, g));
    for_width(pass.slabs[g].width, [&](auto vector, auto width) __attribute__((always_inline)) {
      sum_rows<decltype(vector), decltype(width)::value>(slab_rows(pass, g), b.n, sums_of(pass, g));
    });
  }
}

constexpr Ones<most_batched> ones;

CRFSEG_INLINE Points points_of(const Message& m, const Batch& b) {
  const float* scale = m.slice_scale != nullptr ? m.slice_scale + b.first : ones.values;
  return {from_point(m.at, b.first), scale};
}

// Rows of messages of the slab's labels.
CRFSEG_INLINE void slice_slab(const SlabPass& pass, const Batch& b, int slab, float* rows) {
  const float* const* incoming = pass.incoming + slab;
  const int width = pass.slabs[slab].width;
  if (is_pair(pass.messages, pass.n_messages)) {
    return for_rows(width, [&](auto block) {
      slice_pair(block, points_of(pass.messages[0], b), points_of(pass.messages[1], b), incoming[0],
                 incoming[pass.n_slabs], b.n, rows);
    });
  }
  for (int k = 0; k < pass.n_messages; ++k) {
    const Points points = points_of(pass.messages[k], b);
    slice_rows(points.at, points.scale, incoming[k * pass.n_slabs], k > 0 ? rows : nullptr, b.n,
               width, rows);
  }
}

CRFSEG_INLINE void splat_slab(const SlabPass& pass, const Batch& b, int slab, const float* rows,
                              const float* factor) {
  float* const* outgoing = pass.outgoing + slab;
  const int width = pass.slabs[slab].width;
  float scale[2][most_batched];
  const auto points = [&](int k) __attribute__((always_inline)) {
    const Message& m = pass.messages[k];
    float room[most_batched];
    const float* given =
        m.splat_scale != nullptr ? whole(m.splat_scale + b.first, b.n, room) : ones.values;
    for_points(b.n, [&](int i) {
      store(scale[k % 2] + i, load<Wide>(factor + i) * load<Wide>(given + i));
    });
    return Points{from_point(m.at, b.first), scale[k % 2]};
  };
  if (is_pair(pass.messages, pass.n_messages)) {
    const Points first = points(0), second = points(1);
    return for_rows(width, [&](auto block) {
      splat_pair(block, first, second, rows, b.n, outgoing[0], outgoing[pass.n_slabs]);
    });
  }
  for (int k = 0; k < pass.n_messages; ++k) {
    const Points here = points(k);
    splat_rows(here.at, here.scale, rows, b.n, width, outgoing[k * pass.n_slabs]);
  }
}

// Of what weighs `least` or more: whether a slab that weighs at most `most` can be left out, and
// with those before it. Of very many labels what is left out would add up.
CRFSEG_INLINE bool leaves_out(const SlabPass& pass, float most, float least, float* left_out) {
  const float little = pass.tolerance * least;
  if (!(most < little && *left_out + most < 10.0F * little)) return false;
  *left_out += most;
  return true;
}

void slab_start(SlabPass* pass) {
  for_batches(*pass, [&](const Batch& b) {
    read_batch(*pass, b);
    float total[most_batched] = {};
    float* mass = pass->mass + b.index * pass->n_slabs;
    for (int g = 0; g < pass->n_slabs; ++g) {
      const float* sums = sums_of(*pass, g);
      mass[g] = over_points<Max>(sums, b.n);
      for_points(b.n,
                 [&](int i) { store(total + i, load<Wide>(total + i) + load<Wide>(sums + i)); });
    }
    const float least = over_points<Min>(total, b.n);
    for_points(b.n, [&](int i) { store(total + i, 1.0F / load<Wide>(total + i)); });
    float left_out = 0.0F;
    for (int g = 0; g < pass->n_slabs; ++g) {
      if (leaves_out(*pass, mass[g], least, &left_out)) continue;
      const Slab& slab = pass->slabs[g];
      const float* p = slab.p != nullptr ? slab.p + b.first * slab.width : slab_rows(*pass, g);
      splat_slab(*pass, b, g, p, total);
    }
  });
}

// A bound on what the slab's labels weigh together at any point of the batch.
CRFSEG_INLINE float most_weight(const SlabPass& pass, const Batch& b, int slab) {
  return pass.mass[b.index * pass.n_slabs + slab] * pass.growth[slab];
}

// Weighs the labels of a slab at every point and adds up what they weigh.
CRFSEG_INLINE void weigh_slab(SlabPass* to, const Batch& b, int slab, float* sum) {
  const SlabPass& pass = *to;
  const Slab& labels = pass.slabs[slab];
  const std::int64_t floats = std::int64_t{b.n} * labels.width;
  float* rows = slab_rows(pass, slab);
  float* made = slab_rows(pass, pass.n_slabs);
  const float* p = made;
  // Rows are taken in whole groups: those behind the last point must hold numbers.
  if (b.n % lanes != 0) __builtin_memset(rows, 0, sizeof(float) * pass.batch * labels.width);
  if (labels.p == nullptr) {
    make_rows(pass, labels, b, made);
  } else if (b.n % lanes != 0) {
    copy(labels.p + b.first * labels.width, floats, made);
  } else {
    p = labels.p + b.first * labels.width;
    const float* ahead = p + 2 * std::int64_t{pass.batch} * labels.width;
    for (std::int64_t i = 0; i < floats; i += 16) __builtin_prefetch(ahead + i);
  }
  slice_slab(pass, b, slab, rows);
  for_width(labels.width, [&](auto vector, auto width) __attribute__((always_inline)) {
    const float most = weigh_rows<decltype(vector), decltype(width)::value>(p, b.n, rows, sum);
    if (!(most < log2_largest)) to->overflows = true;
  });
}

// Leaves in `sum` what all labels weigh together at each point.
CRFSEG_INLINE void weigh_batch(SlabPass* pass, const Batch& b, float* sum) {
  float least = 0.0F, left_out = 0.0F;
  for (int g = 0; g < pass->n_slabs; ++g) {
    pass->is_live[g] = !leaves_out(*pass, most_weight(*pass, b, g), least, &left_out);
    if (!pass->is_live[g]) continue;
    weigh_slab(pass, b, g, sum);
    least = over_points<Min>(sum, b.n);
    pass->evaluated += std::int64_t{b.n} * pass->slabs[g].n_labels;
  }
}

CRFSEG_INLINE void scale_rows(const float* factor, int n, int width, float* rows) {
  for (int i = 0; i < n; ++i, rows += width) {
    for (int x = 0; x < width; x += 4) store<V4>(rows + x, load<V4>(rows + x) * factor[i]);
  }
}

// Hands out the Q of a batch; rows_at(slab) holds that of a slab's labels.
template <class F>
CRFSEG_INLINE void write_batch(const SlabPass& pass, const Batch& b, F&& rows_at) {
  float top[most_batched] = {};
  std::int32_t best[most_batched] = {};
  for (int g = 0; g < pass.n_slabs; ++g) {
    const Slab& slab = pass.slabs[g];
    if (pass.out.data != nullptr) {
      write_out(pass.out, slab.label, b.first, b.n, slab.n_labels, slab.width, rows_at(g));
    }
    if (pass.labels != nullptr) {
      find_best(slab.label, rows_at(g), b.n, slab.n_labels, slab.width, top, best);
    }
  }
  if (pass.labels != nullptr) {
    __builtin_memcpy(pass.labels + b.first, best, sizeof(std::int32_t) * b.n);
  }
}

// What has been weighed becomes Q; `factor` is the inverse of the sums.
CRFSEG_INLINE void finish_batch(const SlabPass& pass, const Batch& b, const float* factor) {
  for (int g = 0; g < pass.n_slabs; ++g) {
    const Slab& slab = pass.slabs[g];
    float* rows = slab_rows(pass, g);
    const std::int64_t floats = std::int64_t{b.n} * slab.width;
    if (pass.is_live[g]) {
      scale_rows(factor, b.n, slab.width, rows);
    } else {
      __builtin_memset(rows, 0, sizeof(float) * pass.batch * slab.width);
    }
    if (pass.keep) copy(rows, floats, slab.p + b.first * slab.width);
  }
  if (!pass.keep) write_batch(pass, b, [&](int g) { return slab_rows(pass, g); });
}

void slab_step(SlabPass* pass) {
  for_batches(*pass, [&](const Batch& b) {
    float sum[most_batched] = {};
    weigh_batch(pass, b, sum);
    for_points(b.n, [&](int i) { store(sum + i, 1.0F / load<Wide>(sum + i)); });
    if (pass->outgoing == nullptr) return finish_batch(*pass, b, sum);
    for (int g = 0; g < pass->n_slabs; ++g) {
      if (pass->is_live[g]) splat_slab(*pass, b, g, slab_rows(*pass, g), sum);
    }
  });
}

void slab_write(const SlabPass* pass) {
  for_batches(*pass, [&](const Batch& b) {
    write_batch(*pass, b, [&](int g) { return pass->slabs[g].p + b.first * pass->slabs[g].width; });
  });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Mean-field passes that leave points alone whose Q cannot have moved by more than a tolerance
// (cpu/skipping.h). Compiled once per instruction set; see kernels.h for what may not be included
// here.
#include "cpu/kernels/marginals.h"
#include "cpu/kernels/reading.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// How far messages may move (the range over labels of what is added to them) before a Q whose
// largest entry is `top` moves by the tolerance: log-odds move by no more than that range, and the
// odds that move most easily are those nearest to even.
template <class V>
CRFSEG_INLINE V limit_of(V top, float tolerance) {
  constexpr float rounding = 1.2e-7F;  // of 1 - top
  const V half = V{} + 0.5F;
  const V rest = 1.0F - top;
  const V near = maximum(rest < half ? rest : half, V{} + rounding);
  const V far = near + tolerance;
  return log_positive(far * (1.0F - near) / (near * (1.0F - far)));
}

template <class V>
CRFSEG_APART void largest_block(float* q, int n, int width, float* top) {
  reduce_each<Max>(q, n, width, V{}, top,
                   [&](int, const float* place, auto vector)
                       __attribute__((always_inline)) { return load<decltype(vector)>(place); });
}

CRFSEG_INLINE void find_largest(float* q, int n, int width, float* top) {
  if (width == 4) return largest_block<V4>(q, n, width, top);
  largest_block<Wide>(q, n, width, top);
}

CRFSEG_INLINE void find_limits(float* q, int n, int width, float tolerance, float* limit) {
  find_largest(q, n, width, limit);
  for (int p = 0; p < n; p += Lanes<Wide>::count) {
    store<Wide>(limit + p, limit_of(load<Wide>(limit + p), tolerance));
  }
}

// For each of n rows the total variation distance to that of `before`; null stands for zeros.
template <class V>
CRFSEG_APART void distance_block(float* q, const float* before, int n, int width, float* moved) {
  reduce_each<Sum>(
      q, n, width, V{}, moved,
      [&](int, const float* place, auto vector) __attribute__((always_inline)) {
        typedef decltype(vector) Vector;
        const Vector now = load<Vector>(place);
        return absolute(before != nullptr ? now - load<Vector>(before + (place - q)) : now);
      });
  for (int p = 0; p < n; ++p) moved[p] *= 0.5F;
}

CRFSEG_INLINE void find_distances(float* q, const float* before, int n, int width, float* moved) {
  if (width == 4) return distance_block<V4>(q, before, n, width, moved);
  distance_block<Wide>(q, before, n, width, moved);
}

template <class Points>
CRFSEG_INLINE void splat_all(const Message* messages, int n_messages, Points points,
                             std::int64_t first, const float* values, int n, int width) {
  for (int k = 0; k < n_messages; ++k) {
    const Message& m = messages[k];
    splat_rows(from_point(m.at, first), points, from_point(m.splat_scale, first), values, n, width,
               m.outgoing);
  }
}

CRFSEG_INLINE void slice_all(const Message* messages, int n_messages, std::int64_t first, int n,
                             int width, float* values) {
  for (int k = 0; k < n_messages; ++k) {
    const Message& m = messages[k];
    slice_rows(from_point(m.at, first), Everyone{}, from_point(m.slice_scale, first), m.incoming,
               values, n, width, values);
  }
}

CRFSEG_INLINE Corners slot_corners(const Message& m) {
  return {m.at.corners, nullptr, m.slot_row, m.slot_weight};
}

// Calls f(first, n) for all batches; scratch holds numbers behind the last point of each, because
// rows are taken in groups.
template <class F>
CRFSEG_INLINE void for_batches(SkippingPass* pass, std::int64_t n_points, F&& f) {
  for (std::int64_t first = 0; first < n_points; first += pass->batch) {
    const std::int64_t left = n_points - first;
    const int n = static_cast<int>(left < pass->batch ? left : pass->batch);
    if (n < pass->batch) {
      __builtin_memset(pass->scratch, 0, 3 * sizeof(float) * pass->batch * pass->width);
    }
    f(first, n);
  }
}

void start_pass(SkippingPass* pass, UnaryStats* stats, double* uncertainty) {
  const int width = pass->width;
  float* q = pass->scratch;
  float top[most_batched];
  for_batches(pass, pass->unary.n_points, [&](std::int64_t first, int n) {
    read_start(pass->unary, first, n, pass->n_labels, width, q, nullptr, stats);
    find_largest(q, n, width, top);
    for (int p = 0; p < n; ++p) *uncertainty += static_cast<double>(1.0F - top[p]);
    splat_all(pass->messages, pass->n_messages, Everyone{}, first, q, n, width);
  });
}

double uncertainty(const UnarySource& unary, std::int64_t point, int n_labels, int width,
                   float* scratch, UnaryStats* stats) {
  __builtin_memset(scratch, 0, 8 * sizeof(float) * width);
  read_start(unary, point, 1, n_labels, width, scratch, nullptr, stats);
  float top[8];
  find_largest(scratch, 1, width, top);
  return static_cast<double>(1.0F - top[0]);
}

// What a point's evaluations will need, side by side.
CRFSEG_INLINE void add_slot(SkippingPass* pass, std::int64_t point, const float* log_unary,
                            const float* q, float limit) {
  Slots& slots = pass->slots;
  const int width = pass->width;
  const std::int64_t slot = slots.count++;
  copy_row(log_unary, width, slots.rows + slot * 2 * width);
  copy_row(q, width, slots.rows + (slot * 2 + 1) * width);
  slots.point[slot] = static_cast<std::uint32_t>(point);
  slots.limit[slot] = limit;
  pass->limit[point] = __builtin_inff();
  for (int k = 0; k < pass->n_messages; ++k) {
    const Message& m = pass->messages[k];
    const int corners = m.at.corners;
    const float slice_scale = m.slice_scale != nullptr ? m.slice_scale[point] : 1.0F;
    for (int j = 0; j < corners; ++j) {
      m.slot_row[slot * corners + j] = row_at(m.at, point * corners + j);
      m.slot_weight[slot * corners + j] = m.at.weight[point * corners + j] * slice_scale;
    }
    if (m.slot_scale == nullptr) continue;
    const float splat_scale = m.splat_scale != nullptr ? m.splat_scale[point] : 1.0F;
    m.slot_scale[slot] = splat_scale / slice_scale;
  }
}

void settle_pass(SkippingPass* pass, float dormant_from) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(pass->batch) * width;
  float* log_unary = pass->scratch;
  float* start = log_unary + floats;
  float* q = start + floats;
  float moved[most_batched], limit[most_batched];
  UnaryStats unused = {};
  for_batches(pass, pass->unary.n_points, [&](std::int64_t first, int n) {
    read_start(pass->unary, first, n, pass->n_labels, width, start, log_unary, &unused);
    copy(log_unary, floats, q);
    slice_all(pass->messages, pass->n_messages, first, n, width, q);
    softmax(q, n, width);
    find_distances(q, start, n, width, moved);
    find_limits(q, n, width, pass->tolerance, limit);
    for (int p = 0; p < n; ++p) {
      pass->limit[first + p] = limit[p];
      if (limit[p] >= dormant_from) continue;
      add_slot(pass, first + p, log_unary + p * width, q + p * width, limit[p]);
    }
    if (pass->out.data != nullptr) write_out(pass->out, first, n, pass->n_labels, width, q);
    if (pass->labels != nullptr) write_labels(q, n, pass->n_labels, width, pass->labels + first);
    splat_all(pass->messages, pass->n_messages, Everyone{}, first, q, n, width);
    for (int k = 0; k < pass->n_messages; ++k) {
      const Message& m = pass->messages[k];
      splat_rows(from_point(m.at, first), Everyone{}, from_point(m.splat_scale, first), moved, n, 1,
                 m.moved);
    }
  });
}

// The new Q of some slots takes the place of the old one, and the change that of the new one.
CRFSEG_INLINE void keep_and_subtract(const Slots& slots, const std::uint32_t* due, int n, int width,
                                     float* q) {
  for (int p = 0; p < n; ++p, q += width) {
    float* kept = slots.rows + (due[p] * std::int64_t{2} + 1) * width;
    for (int x = 0; x < width; x += 4) {
      const V4 now = load<V4>(q + x);
      store<V4>(q + x, now - load<V4>(kept + x));
      store<V4>(kept + x, now);
    }
  }
}

// Slots that are due lie apart: ask for what the next batch needs.
CRFSEG_INLINE void prefetch_slot(const SkippingPass& pass, std::int64_t slot) {
  const float* row = pass.slots.rows + slot * 2 * pass.width;
  for (int x = 0; x < 2 * pass.width && x < 96; x += 16) __builtin_prefetch(row + x, 1);
}

void active_pass(SkippingPass* pass, Due due) {
  const int width = pass->width;
  const bool last = pass->messages[0].outgoing == nullptr;
  float* q = pass->scratch;
  float moved[most_batched], limit[most_batched];
  Due all = due;
  for_batches(pass, all.count, [&](std::int64_t first, int n) {
    const std::uint32_t* index = all.index + first;
    for (int i = 0; i < n; ++i) {
      if (first + i + pass->batch < all.count) prefetch_slot(*pass, index[i + pass->batch]);
      copy_row(pass->slots.rows + index[i] * std::int64_t{2} * width, width, q + i * width);
    }
    for (int k = 0; k < pass->n_messages; ++k) {
      const Message& m = pass->messages[k];
      slice_rows(slot_corners(m), Listed{index}, nullptr, m.incoming, q, n, width, q);
    }
    softmax(q, n, width);
    find_limits(q, n, width, pass->tolerance, limit);
    keep_and_subtract(pass->slots, index, n, width, q);
    find_distances(q, nullptr, n, width, moved);
    for (int i = 0; i < n; ++i) pass->slots.limit[index[i]] = limit[i] + all.drift[first + i];
    for (int k = 0; k < pass->n_messages && !last; ++k) {
      const Message& m = pass->messages[k];
      splat_rows(slot_corners(m), Listed{index}, m.slot_scale, q, n, width, m.outgoing);
      splat_rows(slot_corners(m), Listed{index}, m.slot_scale, moved, n, 1, m.moved);
    }
  });
}

template <class Kind, class Points>
CRFSEG_APART void add_drift(Corners at, Points points, const float* scale, const float* drift,
                            int n, float* __restrict sums) {
  const int corners = Kind::corners > 0 ? Kind::corners : at.corners;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t point = points[i];
    const auto* row = rows_from<typename Kind::Index>(at, point);
    const float* weight = at.weight + point * corners;
    float sum = 0.0F;
    for (int j = 0; j < corners; ++j) sum += weight[j] * drift[row[j]];
    sums[i] += scale != nullptr ? sum * scale[point] : sum;
  }
}

template <class Points>
CRFSEG_INLINE void add_drift_of(Corners at, Points points, const float* scale, const float* drift,
                                int n, float* sums) {
  for_corners(at, [&](auto kind) { add_drift<decltype(kind)>(at, points, scale, drift, n, sums); });
}

enum { looked_at_once = 256 };

void find_due(const SkippingPass* pass, Due* due) {
  float sums[looked_at_once];
  const Slots& slots = pass->slots;
  for (int first = 0; first < slots.count; first += looked_at_once) {
    const int left = slots.count - first;
    const int n = left < looked_at_once ? left : looked_at_once;
    __builtin_memset(sums, 0, sizeof(sums));
    for (int k = 0; k < pass->n_messages; ++k) {
      const Message& m = pass->messages[k];
      add_drift_of(from_point(slot_corners(m), first), Everyone{}, nullptr, m.drift, n, sums);
    }
    for (int i = 0; i < n; ++i) {
      due->index[due->count] = static_cast<std::uint32_t>(first + i);
      due->drift[due->count] = sums[i];
      due->count += sums[i] > slots.limit[first + i] ? 1 : 0;
    }
  }
}

void find_woken(const SkippingPass* pass, std::int64_t first, int n, float clock, float* alarm,
                Due* due) {
  std::uint32_t point[looked_at_once];
  float sums[looked_at_once] = {};
  int count = 0;
  for (int i = 0; i < n; ++i) {
    point[count] = static_cast<std::uint32_t>(first + i);
    count += alarm[i] < clock ? 1 : 0;
  }
  for (int k = 0; k < pass->n_messages; ++k) {
    const Message& m = pass->messages[k];
    add_drift_of(m.at, Listed{point}, m.slice_scale, m.drift, count, sums);
  }
  for (int i = 0; i < count; ++i) {
    const float spare = pass->limit[point[i]] - sums[i];
    alarm[point[i] - first] = spare < 0.0F ? __builtin_inff() : clock + spare;
    if (spare >= 0.0F) continue;
    due->index[due->count] = point[i];
    due->drift[due->count++] = sums[i];
  }
}

// Their Q is what was written out, or all on their label, which is what made them dormant.
void wake(SkippingPass* pass, const Due& points) {
  const int width = pass->width;
  float* log_unary = pass->scratch;  // of a group, though one is read
  float* q = log_unary + 8 * width;
  UnaryStats unused = {};
  for (int i = 0; i < points.count; ++i) {
    const std::int64_t point = points.index[i];
    read_unary(pass->unary, point, 1, pass->n_labels, width, log_unary, &unused);
    __builtin_memset(q, 0, sizeof(float) * width);
    if (pass->out.data != nullptr) {
      const float* place = pass->out.data + point * pass->out.point_stride;
      for (int x = 0; x < pass->n_labels; ++x) q[x] = place[x * pass->out.label_stride];
    } else {
      q[pass->labels[point]] = 1.0F;
    }
    add_slot(pass, point, log_unary, q, 0.0F);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

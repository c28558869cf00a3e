// SPDX-License-Identifier: MIT
// Filter and mean-field loops over rows of labels. Compiled once per instruction set; see kernels.h
// for what may not be included here.
//
// The mean-field pass works on batches of points so small that everything about them stays in the
// first-level cache: slice and splat of one point depend on memory the previous point has just
// written, and only with many independent points in flight does the processor hide that.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// ---- rows of one lattice -----------------------------------------------------------------------

// What a block of code handles of each row: `vectors` vectors V from `column` on. In narrow rows
// that is all there is, and their length is known to the compiler.
template <class Vector, int vectors, bool whole_row>
struct Block {
  typedef Vector V;
  enum { W = vectors, lanes = Lanes<Vector>::count };
  int width, column;

  std::int64_t row(std::int64_t i) const {
    return whole_row ? i * (vectors * lanes) : i * width + column;
  }
};

// Calls f with the widest blocks that fit, until all floats of a row are done.
template <class F>
CRFSEG_INLINE void for_blocks(int width, F&& f) {
  switch (width) {
    case 1:
      return f(Block<float, 1, true>{width, 0});
    case 4:
      return f(Block<V4, 1, true>{width, 0});
    case 8:
      return f(Block<V8, 1, true>{width, 0});
    case 16:
      return f(Block<V8, 2, true>{width, 0});
    case 24:
      return f(Block<V8, 3, true>{width, 0});
    default:
      break;
  }
  int column = 0;
  for (; width - column >= 32; column += 32) f(Block<V8, 4, false>{width, column});
  switch (width - column) {
    case 8:
      return f(Block<V8, 1, false>{width, column});
    case 16:
      return f(Block<V8, 2, false>{width, column});
    case 24:
      return f(Block<V8, 3, false>{width, column});
    default:
      return;
  }
}

// values[p] = base[p] + scale[p] * sum over corners of weight * rows[corner]; no base is zero.
enum { prefetch_points = 48 };  // unaries come from memory: ask for them a batch and a half ahead

template <class B, int C>
CRFSEG_APART void slice_block(B block, Corners at, const float* scale, const float* rows,
                              const float* base, std::int64_t n, float* values) {
  typedef typename B::V V;
  const int corners = C > 0 ? C : at.corners;
  for (std::int64_t p = 0; p < n; ++p) {
    const std::uint32_t* row = at.row + p * corners;
    const float* weight = at.weight + p * corners;
    V sum[B::W];
    const float* source = rows + block.row(row[0]);
    for (int x = 0; x < B::W; ++x) sum[x] = load<V>(source + x * B::lanes) * weight[0];
    for (int j = 1; j < corners; ++j) {
      source = rows + block.row(row[j]);
      for (int x = 0; x < B::W; ++x) sum[x] += load<V>(source + x * B::lanes) * weight[j];
    }
    const float factor = scale != nullptr ? scale[p] : 1.0F;
    float* target = values + block.row(p);
    if (base != nullptr) __builtin_prefetch(base + block.row(p + prefetch_points));
    const float* start = base != nullptr ? base + block.row(p) : nullptr;
    for (int x = 0; x < B::W; ++x) {
      const V from = start != nullptr ? load<V>(start + x * B::lanes) : V{};
      store<V>(target + x * B::lanes, from + sum[x] * factor);
    }
  }
}

template <class B, int C>
CRFSEG_APART void splat_block(B block, Corners at, const float* scale, const float* values,
                              std::int64_t n, float* rows) {
  typedef typename B::V V;
  const int corners = C > 0 ? C : at.corners;
  for (std::int64_t p = 0; p < n; ++p) {
    const std::uint32_t* row = at.row + p * corners;
    const float* weight = at.weight + p * corners;
    const float factor = scale != nullptr ? scale[p] : 1.0F;
    const float* source = values + block.row(p);
    V value[B::W];
    for (int x = 0; x < B::W; ++x) value[x] = load<V>(source + x * B::lanes) * factor;
    for (int j = 0; j < corners; ++j) {
      float* target = rows + block.row(row[j]);
      for (int x = 0; x < B::W; ++x) {
        float* place = target + x * B::lanes;
        store<V>(place, load<V>(place) + value[x] * weight[j]);
      }
    }
  }
}

// Images have 2 spatial dimensions and mostly 3 colours: 3 and 6 corners deserve code of their own.
CRFSEG_INLINE void slice_rows(Corners at, const float* scale, const float* rows, const float* base,
                              std::int64_t n, int width, float* values) {
  for_blocks(width, [&](auto block) {
    using B = decltype(block);
    switch (at.corners) {
      case 3:
        return slice_block<B, 3>(block, at, scale, rows, base, n, values);
      case 6:
        return slice_block<B, 6>(block, at, scale, rows, base, n, values);
      default:
        return slice_block<B, 0>(block, at, scale, rows, base, n, values);
    }
  });
}

CRFSEG_INLINE void splat_rows(Corners at, const float* scale, const float* values, std::int64_t n,
                              int width, float* rows) {
  for_blocks(width, [&](auto block) {
    using B = decltype(block);
    switch (at.corners) {
      case 3:
        return splat_block<B, 3>(block, at, scale, values, n, rows);
      case 6:
        return splat_block<B, 6>(block, at, scale, values, n, rows);
      default:
        return splat_block<B, 0>(block, at, scale, values, n, rows);
    }
  });
}

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

// ---- unary energies ----------------------------------------------------------------------------

// The values of eight points, whatever the layout; lanes behind `count` repeat the last point.
CRFSEG_INLINE V8 read_tile(const LabelStrip& in, std::int64_t first, int count, int label) {
  const float* place = in.data + label * in.label_stride + first * in.point_stride;
  if (count == 8 && in.point_stride == 1) return load<V8>(place);
  V8 value;
  for (int lane = 0; lane < 8; ++lane) {
    value[lane] = place[(lane < count ? lane : count - 1) * in.point_stride];
  }
  return value;
}

template <class Int>
CRFSEG_INLINE bool any(const Int& lanes) {
  std::int32_t found = 0;
  for (int lane = 0; lane < 8; ++lane) found |= lanes[lane];
  return found != 0;
}

CRFSEG_INLINE void note_low(UnaryStats* stats, V8 value, std::int64_t flat, int count) {
  for (int lane = 0; lane < count; ++lane) {
    if (value[lane] < stats->low) {
      stats->low = value[lane];
      stats->low_at = flat + lane;
    }
  }
}

CRFSEG_INLINE void note_bad(UnaryStats* stats, const I8& bad, std::int64_t flat, int count) {
  for (int lane = 0; lane < count; ++lane) {
    if (bad[lane] != 0 && (stats->bad < 0 || flat + lane < stats->bad)) stats->bad = flat + lane;
  }
}

CRFSEG_INLINE void note_off(UnaryStats* stats, V8 total, std::int64_t first, int count) {
  const V8 off = absolute(total - 1.0F);
  if (!any(off > stats->off)) return;
  for (int lane = 0; lane < count; ++lane) {
    if (off[lane] > stats->off) {
      stats->off = off[lane];
      stats->off_at = first + lane;
    }
  }
}

// log(sum over labels of exp): what turns logits into log-probabilities.
CRFSEG_INLINE V8 log_sum(const LabelStrip& in, std::int64_t first, int count, int n_labels) {
  V8 top = read_tile(in, first, count, 0);
  for (int label = 1; label < n_labels; ++label) {
    top = maximum(top, read_tile(in, first, count, label));
  }
  V8 total = {};
  for (int label = 0; label < n_labels; ++label) {
    total += exp2_nonpositive((read_tile(in, first, count, label) - top) * log2_e);
  }
  return top + log_positive(total);
}

void load_unary(LabelStrip in, UnaryKind kind, float clip, std::int64_t n, int n_labels, int width,
                float* log_unary, UnaryStats* stats) {
  const float largest = 3.402823466e38F;
  for (std::int64_t first = 0; first < n; first += 8) {
    const int count = static_cast<int>(n - first < 8 ? n - first : 8);
    float* rows = log_unary + first * width;
    const V8 shift = kind == UnaryKind::logits ? log_sum(in, first, count, n_labels) : V8{};
    V8 total = {};
    I8 possible = {};
    for (int label = 0; label < n_labels; ++label) {
      const V8 value = read_tile(in, first, count, label);
      const std::int64_t flat = label * n + first;
      I8 bad = !(absolute(value) <= largest);
      if (kind == UnaryKind::energies) {
        possible |= value <= largest;
        bad &= !(value > largest);  // +inf forbids a label
      }
      if (any(bad)) note_bad(stats, bad, flat, count);
      if (any(value < stats->low)) note_low(stats, value, flat, count);
      V8 log_value;
      if (kind == UnaryKind::probabilities) {
        total += value;
        const V8 floor = V8{} + clip;
        log_value = log_positive(value > clip ? value : floor);
      } else if (kind == UnaryKind::logits) {
        log_value = value - shift;
      } else {
        log_value = value > largest ? V8{} + log_zero : -value;
      }
      for (int lane = 0; lane < count; ++lane) rows[lane * width + label] = log_value[lane];
    }
    for (int lane = 0; lane < count; ++lane) {
      for (int label = n_labels; label < width; ++label) rows[lane * width + label] = log_zero;
    }
    if (kind == UnaryKind::probabilities) note_off(stats, total, first, count);
    if (kind == UnaryKind::energies && any(possible == 0)) {
      const I8 forbidden = possible == 0;
      note_bad(stats, forbidden, first, count);
    }
  }
}

// ---- the mean-field pass -----------------------------------------------------------------------

// Softmax of each of `n` rows in place (K&K 2011, Algorithm 1, "local update" and "normalize").
template <class V, int W>
CRFSEG_APART void softmax_block(float* rows, int n, int vectors) {
  const int lanes = Lanes<V>::count;
  const int count = W > 0 ? W : vectors;
  const int width = count * lanes;
  V part[Lanes<V>::count];
  for (int first = 0; first < n; first += lanes) {
    float* group = rows + first * width;  // a batch is full rows of memory even where n ends early
    for (int p = 0; p < lanes; ++p) {
      V top = load<V>(group + p * width);
      for (int x = 1; x < count; ++x) top = maximum(top, load<V>(group + p * width + x * lanes));
      part[p] = top;
    }
    const V top = reduce_rows<Max>(part) * log2_e;
    for (int p = 0; p < lanes; ++p) {
      V sum = {};
      for (int x = 0; x < count; ++x) {
        float* place = group + p * width + x * lanes;
        const V e = exp2_nonpositive(load<V>(place) * log2_e - top[p]);
        store<V>(place, e);
        sum += e;
      }
      part[p] = sum;
    }
    const V inverse = 1.0F / reduce_rows<Sum>(part);
    for (int p = 0; p < lanes; ++p) {
      for (int x = 0; x < count; ++x) {
        float* place = group + p * width + x * lanes;
        store<V>(place, load<V>(place) * inverse[p]);
      }
    }
  }
}

CRFSEG_INLINE void softmax(float* rows, int n, int width) {
  if (width == 4) return softmax_block<V4, 1>(rows, n, 1);
  switch (width / 8) {
    case 1:
      return softmax_block<V8, 1>(rows, n, 1);
    case 2:
      return softmax_block<V8, 2>(rows, n, 2);
    case 3:
      return softmax_block<V8, 3>(rows, n, 3);
    default:
      return softmax_block<V8, 0>(rows, n, width / 8);
  }
}

CRFSEG_INLINE void copy(const float* from, std::int64_t n, float* to) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

// Takes the self term back out of the message: t -= self * (-w mu q), q the previous marginals.
CRFSEG_INLINE void exclude_self(const FieldPass& pass, const Message& m, std::int64_t first, int n,
                                float* t) {
  const int width = pass.width;
  for (int p = 0; p < n; ++p) {
    const float* q = pass.q + (first + p) * width;
    for (int label = 0; label < pass.n_labels; ++label) {
      const float amount = m.self[first + p] * q[label];
      const float* row = m.self_rows + static_cast<std::int64_t>(label) * width;
      for (int x = 0; x < width; ++x) t[p * width + x] -= amount * row[x];
    }
  }
}

// z' = damping z + (1 - damping) (-U - message)
CRFSEG_INLINE void damp(const FieldPass& pass, std::int64_t first, int n, float* t) {
  float* z = pass.z + first * pass.width;
  for (int i = 0; i < n * pass.width; ++i) {
    const float mixed = pass.damping * z[i] + (1.0F - pass.damping) * t[i];
    z[i] = t[i] = mixed < log_zero ? log_zero : mixed;
  }
}

// sum q log q + U q + 1/2 q (message), with t = -U - message. Labels that are forbidden have no
// mass.
CRFSEG_INLINE void add_energy(FieldPass* pass, std::int64_t first, int n, const float* t) {
  double sum = 0.0;
  for (int p = 0; p < n; ++p) {
    const float* q = pass->q + (first + p) * pass->width;
    const float* log_unary = pass->log_unary + (first + p) * pass->width;
    for (int label = 0; label < pass->n_labels; ++label) {
      const double mass = q[label];
      if (mass <= 2.0 * smallest) continue;
      double entropy = pass->entropy ? __builtin_log(mass) : 0.0;
      if (log_unary[label] <= log_zero) entropy = __builtin_inf();
      sum += mass * (entropy - 0.5 * (static_cast<double>(log_unary[label]) +
                                      static_cast<double>(t[p * pass->width + label])));
    }
  }
  pass->energy += sum;
}

CRFSEG_INLINE void note_change(FieldPass* pass, std::int64_t first, int n, const float* q) {
  const float* before = pass->q + first * pass->width;
  float change = pass->max_change;
  for (int i = 0; i < n * pass->width; ++i) {
    const float d = q[i] > before[i] ? q[i] - before[i] : before[i] - q[i];
    change = d > change ? d : change;
  }
  pass->max_change = change;
}

CRFSEG_INLINE void write_out(const FieldPass& pass, std::int64_t first, int n, const float* q) {
  const LabelStrip& out = pass.out;
  for (int label = 0; label < pass.n_labels; ++label) {
    float* place = out.data + label * out.label_stride + first * out.point_stride;
    for (int p = 0; p < n; ++p) {
      const float value = q[p * pass.width + label];
      place[p * out.point_stride] = value > 2.0F * smallest ? value : 0.0F;
    }
  }
}

CRFSEG_INLINE void write_labels(const FieldPass& pass, std::int64_t first, int n, const float* q) {
  for (int p = 0; p < n; ++p) {
    const float* row = q + p * pass.width;
    int best = 0;
    for (int label = 1; label < pass.n_labels; ++label) {
      if (row[label] > row[best]) best = label;
    }
    pass.labels[first + p] = best;
  }
}

CRFSEG_INLINE Corners from_point(const Corners& at, std::int64_t first) {
  return {at.corners, at.row + first * at.corners, at.weight + first * at.corners};
}
CRFSEG_INLINE const float* from_point(const float* scale, std::int64_t first) {
  return scale != nullptr ? scale + first : nullptr;
}

// t = -U - message
CRFSEG_INLINE void add_messages(const FieldPass& pass, std::int64_t first, int n, float* t) {
  const float* base = pass.log_unary + first * pass.width;
  for (int k = 0; k < pass.n_messages; ++k) {
    const Message& m = pass.messages[k];
    if (m.incoming == nullptr) continue;
    slice_rows(from_point(m.at, first), from_point(m.slice_scale, first), m.incoming, base, n,
               pass.width, t);
    base = t;
    if (m.self != nullptr) exclude_self(pass, m, first, n, t);
  }
  if (base != t) copy(base, static_cast<std::int64_t>(n) * pass.width, t);
}

CRFSEG_INLINE void pass_batch(FieldPass* pass, std::int64_t first, int n, float* t) {
  const int width = pass->width;
  const std::int64_t floats = static_cast<std::int64_t>(n) * width;
  if (pass->fixed_q != nullptr) {
    copy(pass->fixed_q + first * width, floats, t);
  } else {
    add_messages(*pass, first, n, t);
    if (pass->want_energy) return add_energy(pass, first, n, t);
    if (pass->z != nullptr) damp(*pass, first, n, t);
    softmax(t, n, width);
  }
  if (pass->want_change) note_change(pass, first, n, t);
  if (pass->q != nullptr) copy(t, floats, pass->q + first * width);
  if (pass->out.data != nullptr) write_out(*pass, first, n, t);
  if (pass->labels != nullptr) write_labels(*pass, first, n, t);
  for (int k = 0; k < pass->n_messages; ++k) {
    const Message& m = pass->messages[k];
    if (m.outgoing == nullptr) continue;
    splat_rows(from_point(m.at, first), from_point(m.splat_scale, first), t, n, width, m.outgoing);
  }
}

void field_pass(FieldPass* pass) {
  float* t = pass->scratch;
  for (std::int64_t first = 0; first < pass->n_points; first += pass->batch) {
    const std::int64_t left = pass->n_points - first;
    const int n = static_cast<int>(left < pass->batch ? left : pass->batch);
    // The softmax takes points in groups: those behind the last one must hold numbers.
    if (n < pass->batch) __builtin_memset(t, 0, sizeof(float) * pass->batch * pass->width);
    pass_batch(pass, first, n, t);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Reading unaries of any layout into rows of -U, and looking at every value on the way. Compiled
// once per instruction set; see kernels.h for what may not be included here.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

constexpr float largest = 3.402823466e38F;

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

// What is wrong with a tile is found value by value, once something is known to be.
CRFSEG_APART void note_values(LabelStrip in, UnaryKind kind, std::int64_t first, int count,
                              std::int64_t n, int n_labels, UnaryStats* stats) {
  for (int lane = 0; lane < count; ++lane) {
    bool possible = false;
    for (int label = 0; label < n_labels; ++label) {
      const float value = in.data[label * in.label_stride + (first + lane) * in.point_stride];
      const std::int64_t flat = label * n + first + lane;
      const bool forbids = kind == UnaryKind::energies && value > largest;
      possible = possible || value <= largest;
      if (!(absolute(value) <= largest) && !forbids && (stats->bad < 0 || flat < stats->bad)) {
        stats->bad = flat;
      }
      if (value < stats->low) {
        stats->low = value;
        stats->low_at = flat;
      }
    }
    if (!possible && (stats->bad < 0 || first + lane < stats->bad)) stats->bad = first + lane;
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

// The lowest energy of each point. Energies are counted from it: only differences matter, and
// messages must not drown in a large common offset.
CRFSEG_INLINE V8 lowest_energy(const LabelStrip& in, std::int64_t first, int count, int n_labels,
                               UnaryStats* stats) {
  V8 lowest = read_tile(in, first, count, 0);
  for (int label = 1; label < n_labels; ++label) {
    const V8 value = read_tile(in, first, count, label);
    lowest = lowest < value ? lowest : value;
  }
  for (int lane = 0; lane < count; ++lane) stats->offset += static_cast<double>(lowest[lane]);
  return lowest;
}

// log p, log softmax, or minus the energy above the lowest
CRFSEG_INLINE V8 log_of(V8 value, UnaryKind kind, float clip, V8 shift) {
  const V8 floor = V8{} + clip;
  if (kind == UnaryKind::probabilities) return log_positive(value > clip ? value : floor);
  if (kind == UnaryKind::logits) return value - shift;
  return value > largest ? V8{} + log_zero : shift - value;
}

CRFSEG_INLINE V8 shift_of(const LabelStrip& in, UnaryKind kind, std::int64_t first, int count,
                          int n_labels, UnaryStats* stats) {
  if (kind == UnaryKind::probabilities) return V8{};
  if (kind == UnaryKind::logits) return log_sum(in, first, count, n_labels);
  return lowest_energy(in, first, count, n_labels, stats);
}

CRFSEG_INLINE void store_rows(const V8* block, int count, int width, int label, float* rows) {
  const int labels = width - label < 8 ? width - label : 8;
  for (int lane = 0; lane < count; ++lane) {
    float* place = rows + lane * width + label;
    if (labels == 8) {
      store<V8>(place, block[lane]);
    } else {
      for (int i = 0; i < labels; ++i) place[i] = block[lane][i];
    }
  }
}

void load_unary(LabelStrip in, UnaryKind kind, float clip, std::int64_t n, int n_labels, int width,
                float* log_unary, UnaryStats* stats) {
  for (std::int64_t first = 0; first < n; first += 8) {
    const int count = static_cast<int>(n - first < 8 ? n - first : 8);
    const V8 shift = shift_of(in, kind, first, count, n_labels, stats);
    V8 total = {};
    V8 least = V8{} + stats->low;
    I8 suspect = {};
    I8 possible = {};
    for (int label = 0; label < n_labels; label += 8) {
      V8 block[8];
      for (int i = 0; i < 8; ++i) {
        block[i] = V8{} + log_zero;
        if (label + i >= n_labels) continue;
        const V8 value = read_tile(in, first, count, label + i);
        suspect |= !(absolute(value) <= largest);
        possible |= value <= largest;
        least = least < value ? least : value;
        total += value;
        block[i] = log_of(value, kind, clip, shift);
      }
      transpose(block);
      store_rows(block, count, width, label, log_unary + first * width);
    }
    if (any(suspect) || any(possible == 0) || any(least < stats->low)) {
      note_values(in, kind, first, count, n, n_labels, stats);
    }
    if (kind == UnaryKind::probabilities) note_off(stats, total, first, count);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Reading unaries of any layout into rows, and looking at every value on the way. Compiled once per
// instruction set; see kernels.h for what may not be included here.
#include <type_traits>

#include "cpu/kernels/marginals.h"
#include "cpu/kernels/reading.h"
#include "cpu/kernels/sources.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

constexpr float largest = 3.402823466e38F;

constexpr int lanes = Lanes<Wide>::count;  // points and labels are taken so many at a time

// The values of a tile's points, whatever the layout; lanes behind `count` repeat the last point.
CRFSEG_INLINE Wide read_tile(const LabelStrip& in, std::int64_t first, int count, int label) {
  const float* place = in.data + label * in.label_stride + first * in.point_stride;
  if (count == lanes && in.point_stride == 1) return load<Wide>(place);
  Wide value;
  for (int lane = 0; lane < lanes; ++lane) {
    value[lane] = place[(lane < count ? lane : count - 1) * in.point_stride];
  }
  return value;
}

// Of two labels, the foreground's probabilities alone are there.
template <UnaryKind kind>
CRFSEG_INLINE Wide read_label(const LabelStrip& in, std::int64_t first, int count, int label) {
  const Wide value = read_tile(in, first, count, label);
  return kind == UnaryKind::foreground && label == 0 ? 1.0F - value : value;
}

CRFSEG_INLINE bool is_probability(UnaryKind kind) {
  return kind == UnaryKind::probabilities || kind == UnaryKind::foreground;
}

template <class Int>
CRFSEG_INLINE bool any(const Int& mask) {
  std::int64_t parts[sizeof(Int) / 8], found = 0;
  __builtin_memcpy(parts, &mask, sizeof(Int));
  for (std::int64_t part : parts) found |= part;
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

CRFSEG_INLINE void note_off(UnaryStats* stats, Wide total, std::int64_t first, int count) {
  const Wide off = absolute(total - 1.0F);
  if (!any(off > stats->off)) return;
  for (int lane = 0; lane < count; ++lane) {
    if (off[lane] > stats->off) {
      stats->off = off[lane];
      stats->off_at = first + lane;
    }
  }
}

// What is looked for in the values of a tile.
struct Findings {
  Lanes<Wide>::Int suspect, possible;
  Wide least, total;
};

CRFSEG_INLINE Findings no_findings(const UnaryStats& stats) {
  Findings found{};
  found.least += stats.low;
  return found;
}

CRFSEG_INLINE void look_at(Wide value, Findings* found) {
  found->suspect |= !(absolute(value) <= largest);
  found->possible |= value <= largest;
  found->least = found->least < value ? found->least : value;
  found->total += value;
}

// What all values of a tile were found to be. Who lends foreground has looked at it.
CRFSEG_INLINE void note(const Findings& found, const LabelStrip& in, UnaryKind kind,
                        std::int64_t first, int count, std::int64_t n, int n_labels,
                        UnaryStats* stats) {
  if (kind == UnaryKind::foreground) return;
  if (any(found.suspect) || any(found.possible == 0) || any(found.least < stats->low)) {
    note_values(in, kind, first, count, n, n_labels, stats);
  }
  if (kind == UnaryKind::probabilities) note_off(stats, found.total, first, count);
}

// log(sum over labels of exp): what turns logits into log-probabilities.
CRFSEG_INLINE Wide log_sum(const LabelStrip& in, std::int64_t first, int count, int n_labels) {
  Wide top = read_tile(in, first, count, 0);
  for (int label = 1; label < n_labels; ++label) {
    top = maximum(top, read_tile(in, first, count, label));
  }
  Wide total = {};
  for (int label = 0; label < n_labels; ++label) {
    total += exp2_nonpositive((read_tile(in, first, count, label) - top) * log2_e);
  }
  return top + log_positive(total);
}

// The lowest energy of each point. Energies are counted from it: only differences matter, and
// messages must not drown in a large common offset.
CRFSEG_INLINE Wide lowest_energy(const LabelStrip& in, std::int64_t first, int count, int n_labels,
                                 UnaryStats* stats) {
  Wide lowest = read_tile(in, first, count, 0);
  for (int label = 1; label < n_labels; ++label) {
    const Wide value = read_tile(in, first, count, label);
    lowest = lowest < value ? lowest : value;
  }
  for (int lane = 0; lane < count; ++lane) stats->offset += static_cast<double>(lowest[lane]);
  return lowest;
}

// log p, log softmax, or minus the energy above the lowest; finite, for it may be mixed
template <UnaryKind kind>
CRFSEG_INLINE Wide log_of(Wide value, float clip, Wide shift) {
  const Wide floor = Wide{} + clip;
  if (is_probability(kind)) return log_positive(value > clip ? value : floor);
  if (kind == UnaryKind::logits) return maximum(value - shift, Wide{} + log_zero);
  return value > largest ? Wide{} + log_zero : shift - value;
}

CRFSEG_INLINE Wide shift_of(const LabelStrip& in, UnaryKind kind, std::int64_t first, int count,
                            int n_labels, UnaryStats* stats) {
  if (is_probability(kind)) return Wide{};
  if (kind == UnaryKind::logits) return log_sum(in, first, count, n_labels);
  return lowest_energy(in, first, count, n_labels, stats);
}

CRFSEG_INLINE void store_rows(const Wide* block, int count, int width, int label, float* rows) {
  const int labels = width - label < lanes ? width - label : lanes;
  for (int lane = 0; lane < count; ++lane) {
    float* place = rows + lane * width + label;
    if (labels == lanes) {
      store<Wide>(place, block[lane]);
    } else {
      for (int i = 0; i < labels; ++i) place[i] = block[lane][i];
    }
  }
}

// What is read of up to `lanes` points.
struct Tile {
  const LabelStrip* in;
  float clip;
  std::int64_t first;
  int count, n_labels, width;
};

// What rows hold: -U, or probabilities themselves.
enum class Form { logs, values };

template <UnaryKind kind, Form form>
CRFSEG_INLINE void read_tile_rows(const Tile& tile, std::int64_t n, float* rows,
                                  UnaryStats* stats) {
  const int n_labels = tile.n_labels;
  constexpr bool logs = form == Form::logs;
  const Wide shift =
      logs ? shift_of(*tile.in, kind, tile.first, tile.count, n_labels, stats) : Wide{};
  Findings found = no_findings(*stats);
  for (int label = 0; label < tile.width; label += lanes) {  // padding as well
    Wide block[lanes];
    for (int i = 0; i < lanes; ++i) {
      block[i] = Wide{} + (logs ? log_zero : 0.0F);
      if (label + i >= n_labels) continue;
      const Wide value = read_label<kind>(*tile.in, tile.first, tile.count, label + i);
      look_at(value, &found);
      block[i] = logs ? log_of<kind>(value, tile.clip, shift) : value;
    }
    transpose(block);
    store_rows(block, tile.count, tile.width, label, rows);
  }
  note(found, *tile.in, kind, tile.first, tile.count, n, n_labels, stats);
}

// Labels lie far apart: ask for what the next batch reads of each.
CRFSEG_INLINE void prefetch_next(const LabelStrip& in, std::int64_t first, int n, int label) {
  const float* place = in.data + label * in.label_stride + (first + n) * in.point_stride;
  for (int i = 0; i < n && in.point_stride == 1; i += 16) __builtin_prefetch(place + i);
}

// What p is, up to a factor per point, where `best` is the top of logits or the lowest of energies.
template <UnaryKind kind>
CRFSEG_INLINE Wide start_of(Wide value, float clip, Wide best) {
  if (is_probability(kind)) return value > clip ? value : Wide{} + clip;
  return start_weight((kind == UnaryKind::logits ? value - best : best - value) * log2_e);
}

CRFSEG_INLINE Wide best_of(const LabelStrip& in, UnaryKind kind, std::int64_t first, int count,
                           int n_labels) {
  Wide best = read_tile(in, first, count, 0);
  for (int label = 1; label < n_labels; ++label) {
    const Wide value = read_tile(in, first, count, label);
    best = kind == UnaryKind::logits ? maximum(best, value) : (best < value ? best : value);
  }
  return best;
}

// Rows of p of a slab's labels, and their sum.
template <UnaryKind kind>
CRFSEG_INLINE Wide read_slab_rows(const SlabPass& pass, const Slab& slab, std::int64_t first,
                                  int count, Wide best, float* rows, Findings* found) {
  Wide sum = {};
  for (int x = 0; x < slab.width; x += lanes) {
    Wide block[lanes] = {};
    for (int i = 0; i < lanes && x + i < slab.n_labels; ++i) {
      const Wide value = read_label<kind>(pass.unary.values, first, count, slab.label[x + i]);
      look_at(value, found);
      block[i] = start_of<kind>(value, pass.unary.clip, best);
      sum += block[i];
    }
    transpose(block);
    store_rows(block, count, slab.width, x, rows);
  }
  return sum;
}

// Where a slab's p of a batch goes, or is.
CRFSEG_INLINE float* place_of(const SlabPass& pass, int slab, std::int64_t batch_first, int i) {
  const Slab& labels = pass.slabs[slab];
  if (labels.p != nullptr) return labels.p + (batch_first + i) * labels.width;
  return slab_rows(pass, slab) + i * labels.width;
}

template <UnaryKind kind>
CRFSEG_APART void read_batch_of(const SlabPass& pass, std::int64_t batch_first, int n,
                                float* sums) {
  const LabelStrip& in = pass.unary.values;
  for (int i = 0; i < n; i += lanes) {
    const std::int64_t first = batch_first + i;
    const int count = n - i < lanes ? n - i : lanes;
    Findings found = no_findings(*pass.stats);
    Wide best = {};
    if (!is_probability(kind)) {
      best = best_of(in, kind, first, count, pass.n_labels);
      for (int lane = 0; lane < count; ++lane) pass.top[first + lane] = best[lane];
    }
    for (int g = 0; g < pass.n_slabs; ++g) {
      store<Wide>(sums + g * pass.batch + i,
                  read_slab_rows<kind>(pass, pass.slabs[g], first, count, best,
                                       place_of(pass, g, batch_first, i), &found));
    }
    note(found, in, kind, first, count, pass.unary.n_points, pass.n_labels, pass.stats);
  }
}

template <UnaryKind kind>
CRFSEG_APART void read_slab_of(const SlabPass& pass, const Slab& slab, std::int64_t batch_first,
                               int n, float* rows) {
  Findings unused{};
  for (int i = 0; i < n; i += lanes, rows += lanes * slab.width) {
    const int count = n - i < lanes ? n - i : lanes;
    Wide best = {};
    for (int lane = 0; lane < lanes && !is_probability(kind); ++lane) {
      best[lane] = pass.top[batch_first + i + (lane < count ? lane : count - 1)];
    }
    read_slab_rows<kind>(pass, slab, batch_first + i, count, best, rows, &unused);
  }
}

// Calls f with the kind as a constant.
template <class F>
CRFSEG_INLINE void for_kind(UnaryKind kind, F&& f) {
  switch (kind) {
    case UnaryKind::energies:
      return f(std::integral_constant<UnaryKind, UnaryKind::energies>{});
    case UnaryKind::logits:
      return f(std::integral_constant<UnaryKind, UnaryKind::logits>{});
    case UnaryKind::foreground:
      return f(std::integral_constant<UnaryKind, UnaryKind::foreground>{});
    default:
      return f(std::integral_constant<UnaryKind, UnaryKind::probabilities>{});
  }
}

void read_slabs(const SlabPass& pass, std::int64_t first, int n, float* sums) {
  for (int label = 0; label < pass.n_labels; ++label) {
    prefetch_next(pass.unary.values, first, n, label);
  }
  for_kind(pass.unary.kind, [&](auto kind) __attribute__((always_inline)) {
    read_batch_of<decltype(kind)::value>(pass, first, n, sums);
  });
}

void read_slab(const SlabPass& pass, const Slab& slab, std::int64_t first, int n, float* rows) {
  for (int i = 0; i < slab.n_labels; ++i) {
    prefetch_next(pass.unary.values, first, n, slab.label[i]);
  }
  for_kind(pass.unary.kind, [&](auto kind) __attribute__((always_inline)) {
    read_slab_of<decltype(kind)::value>(pass, slab, first, n, rows);
  });
}

template <UnaryKind kind, Form form>
CRFSEG_APART void read_kind(const LabelStrip& in, float clip, std::int64_t first, std::int64_t last,
                            std::int64_t n, int n_labels, int width, float* rows,
                            UnaryStats* stats) {
  for (std::int64_t p = first; p < last; p += lanes, rows += lanes * width) {
    const int count = static_cast<int>(last - p < lanes ? last - p : lanes);
    read_tile_rows<kind, form>({&in, clip, p, count, n_labels, width}, n, rows, stats);
  }
}

template <Form form>
CRFSEG_INLINE auto reader_of_probabilities(UnaryKind kind) {
  return kind == UnaryKind::foreground ? read_kind<UnaryKind::foreground, form>
                                       : read_kind<UnaryKind::probabilities, form>;
}

CRFSEG_INLINE auto reader_of(UnaryKind kind) {
  return kind == UnaryKind::energies ? read_kind<UnaryKind::energies, Form::logs>
         : kind == UnaryKind::logits ? read_kind<UnaryKind::logits, Form::logs>
                                     : reader_of_probabilities<Form::logs>(kind);
}

void load_coarse(LabelStrip in, UnaryKind kind, std::int64_t n, int n_labels, int width,
                 float* rows, UnaryStats* stats) {
  const auto read =
      is_probability(kind) ? reader_of_probabilities<Form::values>(kind) : reader_of(kind);
  read(in, 0.0F, 0, n, n, n_labels, width, rows, stats);
}

void read_unary(const UnarySource& from, std::int64_t first, int n, int n_labels, int width,
                float* rows, UnaryStats* stats) {
  if (from.rows != nullptr) {
    copy(from.rows + first * width, static_cast<std::int64_t>(n) * width, rows);
  } else if (from.labels.label != nullptr) {
    label_rows(from.labels, first, n, n_labels, width, rows);
  } else if (from.coarse.rows != nullptr) {
    mix_rows(from.coarse, first, n, width, rows);
    if (is_probability(from.kind)) log_mixed(from.coarse.least, n, width, rows);
  } else {
    reader_of(from.kind)(from.values, from.clip, first, first + n, from.n_points, n_labels, width,
                         rows, stats);
  }
}

void load_unary(const UnarySource& from, int n_labels, int width, float* log_unary,
                UnaryStats* stats) {
  read_unary(from, 0, static_cast<int>(from.n_points), n_labels, width, log_unary, stats);
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

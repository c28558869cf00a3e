// SPDX-License-Identifier: MIT
// Kernels that make rows of -U, up to a constant per point: from values of every label, from coarse
// scores, and from hard labels. Slots that hold no point get zeros.
#pragma once

#include <cmath>

#include "cuda/numbers.cuh"
#include "cuda/tile.cuh"
#include "cuda/views.h"
#include "kinds.h"
#include "math/taps.h"
#include "unary.h"

namespace crfseg {
namespace cuda {

// Floats in the order of their numbers: comparing these compares those.
CRFSEG_DEVICE std::uint32_t ordered(float value) {
  const std::uint32_t bits = bits_of_float(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// What unaries were found to be; `inverse_low` is that of the lowest value, so that the largest is
// kept.
struct UnaryReportBits {
  std::uint32_t is_bad, inverse_low, off;
};

// Values to be read, and what rows are to hold of them.
struct UnaryReading {
  ScoreView values;
  UnaryKind kind;
  bool keeps_probabilities;  // as they are: they will be mixed
  float clip;
  int n_labels, width;
};

// Four labels from one on; those behind `last` repeat it.
template <class T>
CRFSEG_DEVICE Quad four_of(const T* at, std::int64_t stride, int last) {
  return {to_float(at[0]), to_float(at[(last < 1 ? last : 1) * stride]),
          to_float(at[(last < 2 ? last : 2) * stride]),
          to_float(at[(last < 3 ? last : 3) * stride])};
}

CRFSEG_DEVICE Quad stored_four(const ScoreView& values, std::int64_t at, int last) {
  switch (values.type) {
    case FloatType::float16:
      return four_of(static_cast<const Float16*>(values.data) + at, values.label_stride, last);
    case FloatType::bfloat16:
      return four_of(static_cast<const BFloat16*>(values.data) + at, values.label_stride, last);
    default:
      return four_of(static_cast<const float*>(values.data) + at, values.label_stride, last);
  }
}

// Of two labels, the foreground's probabilities alone are there.
CRFSEG_DEVICE Quad read_four(const UnaryReading& reading, std::int64_t item, int first,
                             std::int64_t point) {
  const std::int64_t at = reading.values.place(item, first, point);
  if (reading.kind != UnaryKind::foreground) {
    return stored_four(reading.values, at, reading.n_labels - 1 - first);
  }
  const float foreground = stored_four(reading.values, at, 0).x;
  return {1.0F - foreground, foreground, foreground, foreground};
}

CRFSEG_DEVICE float lowest_energy(const UnaryReading& reading, std::int64_t item,
                                  std::int64_t point) {
  float low = HUGE_VALF;
  for (int first = 0; first < reading.n_labels; first += 4) {
    const Quad four = read_four(reading, item, first, point);
    low = fminf(low, fminf(fminf(four.x, four.y), fminf(four.z, four.w)));
  }
  return low;
}

// The logarithm of the sum of exp of a point's logits.
CRFSEG_DEVICE float log_sum(const UnaryReading& reading, std::int64_t item, std::int64_t point) {
  float top = -HUGE_VALF;
  for (int first = 0; first < reading.n_labels; first += 4) {
    const Quad four = read_four(reading, item, first, point);
    top = fmaxf(top, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
  }
  float total = 0.0F;
  for (int first = 0; first < reading.n_labels; first += 4) {
    const Quad four = read_four(reading, item, first, point);
    const float values[4] = {four.x, four.y, four.z, four.w};
    CRFSEG_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (first + i < reading.n_labels) total += expf(values[i] - top);
    }
  }
  return top + logf(total);
}

CRFSEG_DEVICE float shift_of(const UnaryReading& reading, std::int64_t item, std::int64_t point) {
  if (reading.kind == UnaryKind::logits) return log_sum(reading, item, point);
  if (reading.kind == UnaryKind::energies) return lowest_energy(reading, item, point);
  return 0.0F;
}

// log p, log softmax, or minus the energy above the lowest; or the probability.
CRFSEG_DEVICE float entry_of(float value, const UnaryReading& reading, float shift) {
  switch (reading.kind) {
    case UnaryKind::energies:
      return value > largest_float ? log_zero : shift - value;
    case UnaryKind::logits:
      return fmaxf(value - shift, log_zero);
    default:
      return reading.keeps_probabilities ? value : logf(fmaxf(value, reading.clip));
  }
}

// What is looked for in the values of a point.
struct PointFindings {
  bool is_bad = false, is_possible = false;
  float low = largest_float, total = 0.0F;
};

CRFSEG_DEVICE void look_at(float value, UnaryKind kind, PointFindings* found) {
  const bool forbids = kind == UnaryKind::energies && value > largest_float;
  found->is_bad = found->is_bad || (!(fabsf(value) <= largest_float) && !forbids);
  found->is_possible = found->is_possible || value <= largest_float;
  found->low = fminf(found->low, value);
  found->total += value;
}

CRFSEG_DEVICE void note(const PointFindings& found, UnaryKind kind, UnaryReportBits* report) {
  if (found.is_bad || !found.is_possible) atomic_max(&report->is_bad, 1U);
  atomic_max(&report->inverse_low, ~ordered(found.low));
  if (kind == UnaryKind::energies || kind == UnaryKind::foreground) return;
  atomic_max(&report->off, ordered(fabsf(found.total - 1.0F)));
}

// Makes a point's row; returns what was taken from its values.
template <class T>
CRFSEG_DEVICE float read_point(const UnaryReading& reading, std::int64_t item, std::int64_t point,
                               T* row, UnaryReportBits* report) {
  const float shift = shift_of(reading, item, point);
  PointFindings found;
  for (int first = 0; first < reading.width; first += 4) {
    const Quad four = read_four(reading, item, first, point);
    const float values[4] = {four.x, four.y, four.z, four.w};
    float entries[4] = {log_zero, log_zero, log_zero, log_zero};
    CRFSEG_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (first + i >= reading.n_labels) continue;
      look_at(values[i], reading.kind, &found);
      entries[i] = entry_of(values[i], reading, shift);
    }
    store_log_unary(row + first, {entries[0], entries[1], entries[2], entries[3]});
  }
  note(found, reading.kind, report);
  return shift;
}

template <class T>
CRFSEG_DEVICE void clear_row(T* row, int width) {
  for (int label = 0; label < width; label += 4) store_log_unary(row + label, no_quad());
}

// Threads find things out by turns in memory that their block shares: all of them at one place of
// the device's would wait for each other.
CRFSEG_DEVICE void merge_into(UnaryReportBits* all, const UnaryReportBits& of_block) {
  atomic_max(&all->is_bad, of_block.is_bad);
  atomic_max(&all->inverse_low, of_block.inverse_low);
  atomic_max(&all->off, of_block.off);
}

// What a block of read_unary shares.
inline std::size_t reading_shared_bytes(int threads) {
  return static_cast<std::size_t>(threads) * sizeof(double) + sizeof(UnaryReportBits);
}

// tile_sums: of the lowest energies, from which others are counted; or null.
template <class T>
CRFSEG_KERNEL read_unary(CRFSEG_CONSTANT Tiling tiling, CRFSEG_CONSTANT UnaryReading reading,
                         T* rows, UnaryReportBits* report, double* tile_sums) {
  CRFSEG_SHARED(shared);
  double* room = reinterpret_cast<double*>(shared);
  auto* of_block = reinterpret_cast<UnaryReportBits*>(room + block_size());
  if (thread_index() == 0) *of_block = {0, 0, 0};
  block_barrier();
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    double offset = 0.0;
    for (int slot = thread_index(); slot < tiling.size(); slot += block_size()) {
      const std::int64_t point = tiling.point(tile, slot);
      T* row = rows + (tile * tiling.size() + slot) * reading.width;
      if (point < 0) {
        clear_row(row, reading.width);
      } else {
        offset +=
            static_cast<double>(read_point(reading, tile / tiling.per_item, point, row, of_block));
      }
    }
    if (tile_sums == nullptr) continue;
    const double sum = sum_of_block(offset, room);
    if (thread_index() == 0) tile_sums[tile] = sum;
  }
  block_barrier();
  if (thread_index() == 0) merge_into(report, *of_block);
}

// Of the rows of an image, then of its columns.
CRFSEG_KERNEL find_taps(CRFSEG_CONSTANT CoarseGrid grid, Tap* taps) {
  for (std::int64_t i = grid_first(); i < grid.height + grid.width; i += grid_stride()) {
    taps[i] = i < grid.height
                  ? tap_of(i, grid.rows, grid.height, grid.align_corners)
                  : tap_of(i - grid.height, grid.columns, grid.width, grid.align_corners);
  }
}

// Coarse scores as pixels read them.
struct CoarseRows {
  const float* rows;  // (items, cells of an item and what pads them, width)
  const Tap* taps;    // (image height + width)
  std::int64_t cells_of_item, columns, height, image_width;
};

// Unlike low + share (high - low) it never overflows.
CRFSEG_DEVICE Quad mix(Quad low, Quad high, float share) {
  return (1.0F - share) * low + share * high;
}

CRFSEG_DEVICE Quad mix_cells(const CoarseRows& from, std::int64_t item, std::int64_t point,
                             int width, int quad) {
  const Tap down = from.taps[point / from.image_width];
  const Tap across = from.taps[from.height + point % from.image_width];
  const float* cells = from.rows + item * from.cells_of_item * width + 4 * quad;
  const float* upper = cells + down.low * from.columns * width;
  const float* lower = cells + down.high * from.columns * width;
  const std::int64_t left = across.low * width, right = across.high * width;
  return mix(mix(load_quad(upper + left), load_quad(lower + left), down.share),
             mix(load_quad(upper + right), load_quad(lower + right), down.share), across.share);
}

CRFSEG_DEVICE float log_mixed(float probability, float clip) {
  const float p = fmaxf(probability, clip);
  return p > 0.0F ? logf(p) : log_zero;
}

template <class T>
CRFSEG_KERNEL upsample(CRFSEG_CONSTANT Tiling tiling, CRFSEG_CONSTANT CoarseRows from,
                       bool are_probabilities, float clip, int n_labels, int width, T* rows) {
  const int quads = width / 4;
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    for (int i = thread_index(); i < tiling.size() * quads; i += block_size()) {
      const int slot = i / quads, quad = i % quads;
      const std::int64_t point = tiling.point(tile, slot);
      Quad mixed = no_quad();
      if (point >= 0) {
        mixed = mix_cells(from, tile / tiling.per_item, point, width, quad);
        float entries[4] = {mixed.x, mixed.y, mixed.z, mixed.w};
        CRFSEG_UNROLL
        for (int part = 0; part < 4; ++part) {
          if (are_probabilities) entries[part] = log_mixed(entries[part], clip);
          if (4 * quad + part >= n_labels) entries[part] = log_zero;
        }
        mixed = {entries[0], entries[1], entries[2], entries[3]};
      }
      store_log_unary(rows + (tile * tiling.size() + slot) * width + 4 * quad, mixed);
    }
  }
}

// -U of one label where a point has the label `own`, or none.
CRFSEG_DEVICE float entry_of_label(const LabelEnergies& energies, int n_labels, int own,
                                   int label) {
  const bool is_known = own >= 0 && own < n_labels;
  if (label >= n_labels) return log_zero;
  if (label == own) return -energies.given;
  if (label == energies.forbidden) return log_zero;
  return is_known ? -energies.other : -energies.unknown;
}

template <class T>
CRFSEG_KERNEL read_hard_labels(CRFSEG_CONSTANT Tiling tiling, const std::int32_t* labels,
                               LabelEnergies energies, int n_labels, int width, T* rows) {
  const int quads = width / 4;
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    for (int i = thread_index(); i < tiling.size() * quads; i += block_size()) {
      const int slot = i / quads, label = i % quads * 4;
      const std::int64_t point = tiling.point(tile, slot);
      Quad four = no_quad();
      if (point >= 0) {
        const int own = labels[tile / tiling.per_item * tiling.n_points + point];
        four = {entry_of_label(energies, n_labels, own, label),
                entry_of_label(energies, n_labels, own, label + 1),
                entry_of_label(energies, n_labels, own, label + 2),
                entry_of_label(energies, n_labels, own, label + 3)};
      }
      store_log_unary(rows + (tile * tiling.size() + slot) * width + label, four);
    }
  }
}

}  // namespace cuda
}  // namespace crfseg

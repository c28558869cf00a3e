// SPDX-License-Identifier: MIT
// A mean field's unaries: read into its rows, and held where structures are thin.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <variant>

#include "cuda/grid.h"
#include "cuda/mean_field.h"
#include "cuda/thin.cuh"
#include "cuda/unary.cuh"

namespace crfseg {
namespace cuda {
namespace {

float of_ordered(std::uint32_t bits) {
  return float_of_bits((bits & 0x80000000U) != 0 ? bits & 0x7FFFFFFFU : ~bits);
}

template <class T>
void read_rows(const Tiling& tiling, const UnaryReading& reading, T* rows, UnaryReportBits* report,
               double* tile_sums, Stream stream) {
  CRFSEG_LAUNCH(read_unary<T>, blocks_of(tiling.n_tiles()), block_threads,
                reading_shared_bytes(block_threads), stream, tiling, reading, rows, report,
                reading.kind == UnaryKind::energies ? tile_sums : nullptr);
}

Array<ThinLabel> seen_through(const Window& window, bool wants_common,
                              const Array<ThinLabel>& labels, const Allocate& allocate,
                              Stream stream) {
  Array<ThinLabel> seen(window.size(), allocate);
  CRFSEG_LAUNCH(look_through, elementwise(window.size()), block_threads, 0, stream, window,
                wants_common, labels.data(), seen.data());
  return seen;
}

// Of each pixel, the label of a square that covers it.
Array<ThinLabel> find_covering(const Tiling& tiling, int side, const Array<ThinLabel>& labels,
                               const Allocate& allocate, Stream stream) {
  const std::int64_t width = tiling.width, height = tiling.n_points / width;
  const int over = side / 2, back = over - side + 1;
  const std::int64_t across = width + 2 * over - side + 1, down = height + 2 * over - side + 1;
  const auto look = [&](const Window& window, bool wants_common, const Array<ThinLabel>& in) {
    return seen_through(window, wants_common, in, allocate, stream);
  };
  const auto runs = look({tiling.n_items * height, width, across, 1, -over, side}, true, labels);
  const auto squares = look({tiling.n_items, height, down, across, -over, side}, true, runs);
  const auto beside = look({tiling.n_items * down, across, width, 1, back, side}, false, squares);
  return look({tiling.n_items, down, height, width, back, side}, false, beside);
}

template <class T>
void hold_thin_rows(const Tiling& tiling, int side, float factor, int width, T* rows,
                    const Allocate& allocate, Stream stream) {
  const Array<ThinLabel> labels(tiling.n_items * tiling.n_points, allocate);
  const std::int64_t blocks = blocks_of(tiling.n_tiles());
  CRFSEG_LAUNCH(find_most_probable<T>, blocks, block_threads, 0, stream, tiling, rows, width,
                labels.data());
  const Array<ThinLabel> covering = find_covering(tiling, side, labels, allocate, stream);
  const Array<std::uint32_t> n_thin(tiling.n_items, allocate);
  fill_bytes(n_thin.data(), 0, static_cast<std::size_t>(n_thin.nbytes()), stream);
  CRFSEG_LAUNCH(count_thin, blocks, block_threads, block_threads * sizeof(std::uint32_t), stream,
                tiling, covering.data(), n_thin.data());
  CRFSEG_LAUNCH(hold_points<T>, blocks, block_threads, 0, stream, tiling, covering.data(),
                n_thin.data(), factor, width, rows);
}

}  // namespace

// Nothing is known of a new unary, and nothing is left out of its rows.
void MeanField::begin_unary() {
  if (!report_) report_ = Array<UnaryReportBits>(1, allocate_);
  fill_bytes(report_.data(), 0, sizeof(UnaryReportBits), stream_);
  const auto n_tiles = static_cast<std::size_t>(tiling_.n_tiles());
  fill_bytes(tile_sums_.data(), 0, n_tiles * sizeof(double), stream_);
}

void MeanField::set_unary(const ScoreView& values, UnaryKind kind, float clip) {
  begin_unary();
  std::visit(
      [&](const auto& rows) {
        read_rows(tiling_, {values, kind, false, clip, n_labels_, width_}, rows.data(),
                  report_.data(), tile_sums_.data(), stream_);
      },
      log_unary_);
}

void MeanField::set_coarse_unary(const ScoreView& scores, const CoarseGrid& grid, UnaryKind kind,
                                 float clip) {
  begin_unary();
  const bool are_probabilities = kind != UnaryKind::logits;
  const Tiling cells = Tiling::of(tiling_.n_items, grid.rows * grid.columns, 0, tiling_.side);
  const Array<float> rows(cells.n_slots() * width_, allocate_);
  read_rows(cells, {scores, kind, are_probabilities, clip, n_labels_, width_}, rows.data(),
            report_.data(), nullptr, stream_);
  const Array<Tap> taps(grid.height + grid.width, allocate_);
  CRFSEG_LAUNCH(find_taps, elementwise(taps.size()), block_threads, 0, stream_, grid, taps.data());
  const CoarseRows from{rows.data(),  taps.data(), cells.per_item * cells.size(),
                        grid.columns, grid.height, grid.width};
  std::visit(
      [&](const auto& log_unary) {
        using T = typename std::decay_t<decltype(log_unary)>::Element;
        CRFSEG_LAUNCH(upsample<T>, blocks_of(tiling_.n_tiles()), block_threads, 0, stream_, tiling_,
                      from, are_probabilities, clip, n_labels_, width_, log_unary.data());
      },
      log_unary_);
}

void MeanField::set_labels(const std::int32_t* labels, const LabelEnergies& energies) {
  const float least = std::min(energies.given, energies.other);
  if (storage_ == FloatType::float16 && std::abs(least) > most_label_energy) {
    throw TooCoarse("labels of such energies need rows of float32");
  }
  begin_unary();
  std::visit(
      [&](const auto& rows) {
        using T = typename std::decay_t<decltype(rows)>::Element;
        CRFSEG_LAUNCH(read_hard_labels<T>, blocks_of(tiling_.n_tiles()), block_threads, 0, stream_,
                      tiling_, labels, energies, n_labels_, width_, rows.data());
      },
      log_unary_);
}

UnaryFindings MeanField::findings() const {
  UnaryReportBits bits;
  copy_to_host(&bits, report_.data(), sizeof(bits), stream_);
  return {bits.is_bad != 0, bits.inverse_low != 0 ? of_ordered(~bits.inverse_low) : 0.0F,
          bits.off != 0 ? of_ordered(bits.off) : 0.0F};
}

void MeanField::hold_thin(int side, float factor) {
  if (tiling_.width == 0) throw Error("thin structures are those of images");
  if (side < 2) return;
  std::visit(
      [&](const auto& rows) {
        hold_thin_rows(tiling_, side, factor, width_, rows.data(), allocate_, stream_);
      },
      log_unary_);
}

}  // namespace cuda
}  // namespace crfseg

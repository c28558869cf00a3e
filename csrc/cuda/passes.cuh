// SPDX-License-Identifier: MIT
// What passes over the tiles of a batch have in common, forth and back: pairwise terms, of which
// messages are read, and to which a tile is splat.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/device.h"
#include "cuda/mean_field.h"
#include "cuda/numbers.cuh"
#include "cuda/tile.cuh"
#include "cuda/tile_room.h"

namespace crfseg {
namespace cuda {

// One pairwise term as kernels see it.
struct TermView {
  LatticeView lattice;
  const void* rows = nullptr;          // blurred; by factor -w mu of them where mu is a matrix
  void* partial = nullptr;             // where tiles put their sums; stored as `rows`
  RowUnit unit;                        // of both
  const float* slice_scale = nullptr;  // (built slots) or null
  const float* splat_scale = nullptr;
  const float* factor = nullptr;     // (width) what is read is multiplied by
  const float* self = nullptr;       // (built slots) or null: the diagonal, to be left out
  const float* self_rows = nullptr;  // (n_labels, width): the matrix, by factor; null: factor
};

struct TilePass {
  Tiling tiling;
  int n_labels = 0, width = 0, n_terms = 0;
  TermView terms[most_terms];
  float* room = nullptr;  // (blocks, slots of a tile, stride); null: shared memory
};

CRFSEG_DEVICE TileValues room_of_block(const TilePass& pass, unsigned char* shared) {
  const int stride = tile_stride(pass.width);
  if (pass.room == nullptr) return {reinterpret_cast<float*>(shared), stride};
  return {pass.room + block_index() * pass.tiling.size() * stride, stride};
}

// own(slot, label) = value(point, label): threads side by side take slots side by side, as images
// lie. Slots without a point, and padding, get what is said.
template <class F>
CRFSEG_DEVICE void read_tile(const TilePass& pass, std::int64_t tile, const TileValues& own,
                             float padding, F&& value) {
  const int slots = pass.tiling.size();
  for (int i = thread_index(); i < slots * pass.width; i += block_size()) {
    const int slot = i % slots, label = i / slots;
    const std::int64_t point = pass.tiling.point(tile, slot);
    float found = label < pass.n_labels ? 0.0F : padding;
    if (point >= 0 && label < pass.n_labels) found = value(point, label);
    own.rows[slot * own.stride + label] = found;
  }
}

// out(item, label, point) = value(slot, label).
template <class F>
CRFSEG_DEVICE void write_tile(const Tiling& tiling, std::int64_t tile, int n_labels,
                              const BatchView<float>& out, F&& value) {
  for (int i = thread_index(); i < tiling.size() * n_labels; i += block_size()) {
    const int slot = i % tiling.size(), label = i / tiling.size();
    const std::int64_t point = tiling.point(tile, slot);
    if (point >= 0) out(tile / tiling.per_item, label, point) = value(slot, label);
  }
}

// T: what rows of terms are stored as, here and in messages.
template <class T = float>
CRFSEG_DEVICE void splat_terms(const TilePass& pass, std::int64_t tile, const TileValues& own) {
  for (int k = 0; k < pass.n_terms; ++k) {
    const TermView& term = pass.terms[k];
    splat_tile(term.lattice, tile, own.rows, own.stride, pass.width, term.splat_scale,
               static_cast<T*>(term.partial), term.unit);
  }
}

// What a term adds to the logits of a slot, four labels at a time.
template <class T = float>
CRFSEG_DEVICE Quad message_of(const TermView& term, std::int64_t tile, int slot, int n_labels,
                              int width, int quad, const float* q) {
  const std::int64_t at = term.lattice.built_tile(tile) * term.lattice.tiling.size() + slot;
  const T* rows = static_cast<const T*>(term.rows);
  Quad sum = slice_slot(term.lattice, tile, slot, rows, width, quad, term.unit);
  if (term.slice_scale != nullptr) sum = term.slice_scale[at] * sum;
  if (term.self == nullptr) return load_quad(term.factor + 4 * quad) * sum;
  if (term.self_rows == nullptr) {
    const Quad factor = load_quad(term.factor + 4 * quad);
    return factor * sum - term.self[at] * (factor * load_quad(q + 4 * quad));
  }
  for (int label = 0; label < n_labels; ++label) {
    const float* row = term.self_rows + std::int64_t{label} * width + 4 * quad;
    sum = sum - (term.self[at] * q[label]) * load_quad(row);
  }
  return load_quad(term.factor + 4 * quad) * sum;
}

CRFSEG_DEVICE void softmax(float* row, int width) {
  Quad best = load_quad(row);
  for (int i = 4; i < width; i += 4) {
    const Quad t = load_quad(row + i);
    best = {fmaxf(best.x, t.x), fmaxf(best.y, t.y), fmaxf(best.z, t.z), fmaxf(best.w, t.w)};
  }
  const Quad top = all_of(fmaxf(fmaxf(best.x, best.y), fmaxf(best.z, best.w)));
  Quad total = no_quad();
  for (int i = 0; i < width; i += 4) {
    const Quad t = load_quad(row + i) - top;
    const Quad p{expf(t.x), expf(t.y), expf(t.z), expf(t.w)};
    store_quad(row + i, p);
    total = total + p;
  }
  const float scale = 1.0F / ((total.x + total.y) + (total.z + total.w));
  for (int i = 0; i < width; i += 4) store_quad(row + i, scale * load_quad(row + i));
}

}  // namespace cuda
}  // namespace crfseg

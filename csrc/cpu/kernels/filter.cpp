// SPDX-License-Identifier: MIT
// Splat, blur and slice of one lattice. Compiled once per instruction set; see kernels.h for what
// may not be included here.
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

// Calls f with blocks that cover the columns.
template <class F>
CRFSEG_INLINE void for_columns(Columns columns, F&& f) {
  const int width = columns.width;
  if (columns.count == width && width <= 24) return for_blocks(width, f);
  int column = columns.first;
  const int end = columns.first + columns.count;
  for (; end - column >= 32; column += 32) f(Block<V8, 4, false>{width, column});
  switch (end - column) {
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

CRFSEG_INLINE bool is_linked(std::uint32_t entry) { return (entry & linked) != 0; }

// All bits set where an entry is linked to the next.
template <class V>
CRFSEG_INLINE typename Lanes<V>::Int link_mask(std::uint32_t entry) {
  return typename Lanes<V>::Int{} + (static_cast<std::int32_t>(entry) >> 31);
}
template <class V>
CRFSEG_INLINE V masked(V value, typename Lanes<V>::Int mask) {
  typename Lanes<V>::Int bits;
  __builtin_memcpy(&bits, &value, sizeof(V));
  bits &= mask;
  __builtin_memcpy(&value, &bits, sizeof(V));
  return value;
}

// Rows listed in a chain are anywhere: what comes into the first-level cache is asked for early.
template <class B>
CRFSEG_INLINE float* row_of(B block, float* rows, const std::uint32_t* entry) {
  const float* ahead = rows + block.row(entry[lookahead] & ~linked);
  for (int i = 0; i < B::W * B::lanes; i += 16) __builtin_prefetch(ahead + i, 1);
  if (B::W * B::lanes > 1) __builtin_prefetch(ahead + B::W * B::lanes - 1, 1);
  return rows + block.row(*entry & ~linked);
}

void slice(Corners at, const float* scale, const float* rows, std::int64_t n, int width,
           float* values) {
  slice_rows(at, Everyone{}, scale, rows, nullptr, n, width, values);
}

void splat(Corners at, const float* scale, const float* values, std::int64_t n, int width,
           float* rows) {
  splat_rows(at, Everyone{}, scale, values, n, width, rows);
}

// Sums run on, and each is stored: to tell where chains end would take a jump that is hard to
// foresee.
template <class B>
CRFSEG_APART void add_up_block(B block, float* rows, const std::uint32_t* entry, std::int64_t n) {
  using V = typename B::V;
  V sum[B::W] = {};
  float* home = rows;
  bool runs = false;
  for (std::int64_t i = 0; i < n; ++i) {
    const float* row = row_of(block, rows, entry + i);
    home = runs ? home : rows + (row - rows);
    for (int x = 0; x < B::W; ++x) {
      sum[x] += load<V>(row + x * B::lanes);
      store<V>(home + x * B::lanes, sum[x]);
      sum[x] = masked(sum[x], link_mask<V>(entry[i]));
    }
    runs = is_linked(entry[i]);
  }
}

template <class B>
CRFSEG_APART void spread_block(B block, float* rows, const std::uint32_t* entry, std::int64_t n) {
  using V = typename B::V;
  const float* home = rows;
  bool runs = false;
  for (std::int64_t i = 0; i < n; ++i) {
    float* row = row_of(block, rows, entry + i);
    home = runs ? home : row;
    for (int x = 0; x < B::W; ++x) store<V>(row + x * B::lanes, load<V>(home + x * B::lanes));
    runs = is_linked(entry[i]);
  }
}

// A walk along chains, one after the other. `before` is zero at the first row of each, and so is
// what the last one sees after itself.
template <class B>
CRFSEG_APART void blur_block(B block, float* rows, const std::uint32_t* entry, std::int64_t n,
                             float ratio) {
  using V = typename B::V;
  float* place = row_of(block, rows, entry);
  V before[B::W] = {}, here[B::W];
  for (int x = 0; x < B::W; ++x) here[x] = load<V>(place + x * B::lanes);
  for (std::int64_t i = 0; i + 1 < n; ++i) {
    float* next = row_of(block, rows, entry + i + 1);
    const auto mask = link_mask<V>(entry[i]);
    for (int x = 0; x < B::W; ++x) {
      const V after = load<V>(next + x * B::lanes);
      store<V>(place + x * B::lanes, here[x] + (before[x] + masked(after, mask)) * ratio);
      before[x] = masked(here[x], mask);
      here[x] = after;
    }
    place = next;
  }
  for (int x = 0; x < B::W; ++x) store<V>(place + x * B::lanes, here[x] + before[x] * ratio);
}

// Two passes in one walk, the second a row behind the first.
template <class B>
CRFSEG_APART void blur_twice_block(B block, float* rows, const std::uint32_t* entry, std::int64_t n,
                                   float ratio) {
  using V = typename B::V;
  float* place = row_of(block, rows, entry);
  float* behind = place;  // first written in vain
  V before[B::W] = {}, here[B::W];
  V before_once[B::W] = {}, once[B::W] = {};  // the row behind and the one behind that
  auto mask_behind = link_mask<V>(0);
  for (int x = 0; x < B::W; ++x) here[x] = load<V>(place + x * B::lanes);
  for (std::int64_t i = 0; i < n; ++i) {
    float* next = i + 1 < n ? row_of(block, rows, entry + i + 1) : place;
    const auto mask = link_mask<V>(entry[i]);
    for (int x = 0; x < B::W; ++x) {
      const V after = load<V>(next + x * B::lanes);
      const V now = here[x] + (before[x] + masked(after, mask)) * ratio;
      store<V>(behind + x * B::lanes,
               once[x] + (before_once[x] + masked(now, mask_behind)) * ratio);
      before_once[x] = masked(once[x], mask_behind);
      once[x] = now;
      before[x] = masked(here[x], mask);
      here[x] = after;
    }
    mask_behind = mask;
    behind = place;
    place = next;
  }
  for (int x = 0; x < B::W; ++x) {
    store<V>(behind + x * B::lanes, once[x] + before_once[x] * ratio);
  }
}

void add_up(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n) {
  for_columns(columns, [&](auto block) { add_up_block(block, rows, entries, n); });
}

void spread(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n) {
  for_columns(columns, [&](auto block) { spread_block(block, rows, entries, n); });
}

void blur(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n, float ratio,
          int passes) {
  if (n == 0) return;
  for_columns(columns, [&](auto block) {
    int left = passes;
    for (; left >= 2; left -= 2) blur_twice_block(block, rows, entries, n, ratio);
    if (left == 1) blur_block(block, rows, entries, n, ratio);
  });
}

void scale(const float* in, Columns columns, const float* factor, float gain, std::int64_t n,
           float* out) {
  for_columns(columns, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    V by[B::W];
    for (int x = 0; x < B::W; ++x) {
      by[x] = factor != nullptr ? load<V>(factor + block.column + x * B::lanes) * gain : V{} + gain;
    }
    for (std::int64_t i = 0; i < n; ++i) {
      const float* from = in + block.row(i);
      float* to = out + block.row(i);
      for (int x = 0; x < B::W; ++x) {
        store<V>(to + x * B::lanes, load<V>(from + x * B::lanes) * by[x]);
      }
    }
  });
}

void mix(const float* in, const float* matrix, int n_labels, std::int64_t n, int width,
         float* out) {
  for_blocks(width, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    for (std::int64_t i = 0; i < n; ++i) {
      V sum[B::W] = {};
      for (int label = 0; label < n_labels; ++label) {
        const float amount = in[i * width + label];
        const float* row = matrix + block.row(label);
        for (int x = 0; x < B::W; ++x) sum[x] += load<V>(row + x * B::lanes) * amount;
      }
      for (int x = 0; x < B::W; ++x) store<V>(out + block.row(i) + x * B::lanes, sum[x]);
    }
  });
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

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
#if defined(__AVX512F__)
  if (columns.width == 16) return f(Block<V16, 1, true>{16, 0});
#endif
  if (columns.count == columns.width) return for_blocks(columns.width, f);
  for_part(columns.width, columns.first, columns.first + columns.count, f);
}

CRFSEG_INLINE bool is_linked(std::uint32_t entry) { return (entry & linked) != 0; }

// All bits set where an entry is linked to the next.
template <class V>
CRFSEG_INLINE typename Lanes<V>::Int link_mask(std::uint32_t entry) {
  return typename Lanes<V>::Int{} + (static_cast<std::int32_t>(entry) >> 31);
}
template <class V>
CRFSEG_INLINE V masked(V value, typename Lanes<V>::Int mask) {
  return reinterpret_cast<V>(reinterpret_cast<typename Lanes<V>::Int>(value) & mask);
}
CRFSEG_INLINE float masked(float value, std::int32_t mask) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(float));
  bits &= mask;  // not a choice, which might become a jump
  __builtin_memcpy(&value, &bits, sizeof(float));
  return value;
}

// Rows listed in a chain are anywhere: what comes into the first-level cache is asked for early.
template <class B>
CRFSEG_INLINE float* row_of(B block, float* rows, const std::uint32_t* entry) {
  const float* ahead = rows + block.row(entry[lookahead] & ~linked);
  // A row of 8 k floats begins at a half of a cache line.
  const int floats = B::W * B::lanes;
  for (int i = 0; i < floats; i += 16) __builtin_prefetch(ahead + i, 1);
  if (floats % 16 == 0) __builtin_prefetch(ahead + floats - 1, 1);
  return rows + block.row(*entry & ~linked);
}

void slice(Corners at, const float* scale, const float* rows, std::int64_t n, int width,
           float* values) {
  slice_rows(at, scale, rows, nullptr, n, width, values);
}

void splat(Corners at, const float* scale, const float* values, std::int64_t n, int width,
           float* rows) {
  splat_rows(at, scale, values, n, width, rows);
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

// The same for rows of one number, in the first lane of a vector, so that values and masks need not
// travel between the processor's kinds of registers.
CRFSEG_APART void blur_block(Block<float, 1, true>, float* rows, const std::uint32_t* entry,
                             std::int64_t n, float ratio) {
  const V4 by = V4{} + ratio;
  const auto load_first = [rows](std::uint32_t e) __attribute__((always_inline)) {
    return V4{rows[e & ~linked], 0.0F, 0.0F, 0.0F};
  };
  V4 before = {}, here = load_first(entry[0]);
  for (std::int64_t i = 0; i + 1 < n; ++i) {
    const I4 mask = I4{static_cast<std::int32_t>(entry[i]), 0, 0, 0} >> 31;
    const V4 after = load_first(entry[i + 1]);
    __builtin_prefetch(rows + (entry[i + lookahead] & ~linked), 1);
    rows[entry[i] & ~linked] = (here + (before + masked(after, mask)) * by)[0];
    before = masked(here, mask);
    here = after;
  }
  rows[entry[n - 1] & ~linked] = (here + before * by)[0];
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

float scale(const float* in, Columns columns, const float* factor, const float* weight,
            std::int64_t n, float* out) {
  float largest = 0.0F;
  for_columns(columns, [&](auto block) __attribute__((always_inline)) {
    using B = decltype(block);
    using V = typename B::V;
    V by[B::W], top[B::W] = {};
    for (int x = 0; x < B::W; ++x) by[x] = load<V>(factor + block.column + x * B::lanes);
    for (std::int64_t i = 0; i < n; ++i) {
      const float* from = in + block.row(i);
      float* to = out + block.row(i);
      const float by_weight = weight != nullptr ? weight[i] : 1.0F;
      for (int x = 0; x < B::W; ++x) {
        const V value = load<V>(from + x * B::lanes) * by[x];
        store<V>(to + x * B::lanes, value);
        top[x] = maximum(value * by_weight, top[x]);  // in this order no NaN hides the others
      }
    }
    for (int x = 0; x < B::W; ++x) {
      float lanes[B::lanes];
      store<V>(lanes, top[x]);
      for (const float value : lanes) largest = maximum(value, largest);
    }
  });
  return largest;
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

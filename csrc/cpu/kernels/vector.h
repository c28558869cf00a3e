// SPDX-License-Identifier: MIT
// Vectors of 4, 8 and 16 floats in GCC's and Clang's vector extension. Everything is static: see
// kernels.h.
#pragma once

#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "cpu/kernels/kernels.h"

namespace crfseg {
namespace kernels {

typedef float V4 __attribute__((vector_size(16)));
typedef float V8 __attribute__((vector_size(32)));
typedef float V16 __attribute__((vector_size(64)));
typedef std::int32_t I4 __attribute__((vector_size(16)));
typedef std::int32_t I8 __attribute__((vector_size(32)));
typedef std::int32_t I16 __attribute__((vector_size(64)));

template <class V>
struct Lanes;
template <>
struct Lanes<float> {
  typedef std::int32_t Int;
  enum { count = 1 };
};
template <>
struct Lanes<V4> {
  typedef I4 Int;
  enum { count = 4 };
};
template <>
struct Lanes<V8> {
  typedef I8 Int;
  enum { count = 8 };
};
template <>
struct Lanes<V16> {
  typedef I16 Int;
  enum { count = 16 };
};

// A row of 24 floats, where registers hold 16. In structs of vectors GCC sees the vectors.
struct V24 {
  V16 front;
  V8 rest;
};
template <>
struct Lanes<V24> {
  enum { count = 24 };
};

// The widest vector that is one register: GCC keeps wider ones in memory.
#if defined(__AVX__)
typedef V8 Wide;
#else
typedef V4 Wide;
#endif
enum { per_slab = 8 / Lanes<Wide>::count };

#define CRFSEG_INLINE static inline __attribute__((always_inline))
#define CRFSEG_APART static __attribute__((noinline))  // its loop shall have all registers
#if defined(__clang__)
#define CRFSEG_SHUFFLE(Int, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CRFSEG_SHUFFLE(Int, a, b, ...) __builtin_shuffle(a, b, Int{__VA_ARGS__})
#endif

template <class V>
CRFSEG_INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}
template <class V>
CRFSEG_INLINE void store(float* p, V v) {
  __builtin_memcpy(p, &v, sizeof(V));
}
#if defined(__AVX512F__)
template <>
inline __attribute__((always_inline)) V24 load<V24>(const float* p) {
  return {load<V16>(p), load<V8>(p + 16)};
}
template <>
inline __attribute__((always_inline)) void store<V24>(float* p, V24 v) {
  store<V16>(p, v.front);
  store<V8>(p + 16, v.rest);
}
CRFSEG_INLINE V24 operator*(V24 v, float factor) { return {v.front * factor, v.rest * factor}; }
CRFSEG_INLINE V24 operator+(V24 a, V24 b) { return {a.front + b.front, a.rest + b.rest}; }
CRFSEG_INLINE V24& operator+=(V24& a, V24 b) { return a = a + b; }
#endif

template <class V>
CRFSEG_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}
// GCC compares and then blends, unless it can tell that neither is a constant.
#if defined(__SSE2__)
CRFSEG_INLINE V4 maximum(V4 a, V4 b) { return _mm_max_ps(a, b); }
#endif
#if defined(__AVX__)
CRFSEG_INLINE V8 maximum(V8 a, V8 b) { return _mm256_max_ps(a, b); }
#endif
#if defined(__AVX512F__)
CRFSEG_INLINE V16 maximum(V16 a, V16 b) {
  return _mm512_maskz_max_ps(0xffff, a, b);  // the plain one makes GCC warn of what it leaves open
}
#endif
template <class V>
CRFSEG_INLINE V minimum(V a, V b) {
  return a < b ? a : b;
}
#if defined(__SSE2__)
CRFSEG_INLINE V4 minimum(V4 a, V4 b) { return _mm_min_ps(a, b); }
#endif
#if defined(__AVX__)
CRFSEG_INLINE V8 minimum(V8 a, V8 b) { return _mm256_min_ps(a, b); }
#endif
#if defined(__AVX512F__)
CRFSEG_INLINE V16 minimum(V16 a, V16 b) { return _mm512_maskz_min_ps(0xffff, a, b); }
#endif
template <class V>
CRFSEG_INLINE V absolute(V a) {
  return a < 0.0F ? -a : a;
}

struct Max {
  template <class V>
  CRFSEG_INLINE V of(V a, V b) {
    return maximum(a, b);
  }
};
struct Min {
  template <class V>
  CRFSEG_INLINE V of(V a, V b) {
    return minimum(a, b);
  }
};
struct Sum {
  template <class V>
  CRFSEG_INLINE V of(V a, V b) {
    return a + b;
  }
};

// Of each four lanes the lower or the upper two: of a and b in turn, or first a's and then b's.
CRFSEG_INLINE V4 lower_in_turn(V4 a, V4 b) { return CRFSEG_SHUFFLE(I4, a, b, 0, 4, 1, 5); }
CRFSEG_INLINE V4 upper_in_turn(V4 a, V4 b) { return CRFSEG_SHUFFLE(I4, a, b, 2, 6, 3, 7); }
CRFSEG_INLINE V4 lower_pairs(V4 a, V4 b) { return CRFSEG_SHUFFLE(I4, a, b, 0, 1, 4, 5); }
CRFSEG_INLINE V4 upper_pairs(V4 a, V4 b) { return CRFSEG_SHUFFLE(I4, a, b, 2, 3, 6, 7); }
CRFSEG_INLINE V8 lower_in_turn(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 0, 8, 1, 9, 4, 12, 5, 13);
}
CRFSEG_INLINE V8 upper_in_turn(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
CRFSEG_INLINE V8 lower_pairs(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 0, 1, 8, 9, 4, 5, 12, 13);
}
CRFSEG_INLINE V8 upper_pairs(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
CRFSEG_INLINE V8 lower_halves(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 0, 1, 2, 3, 8, 9, 10, 11);
}
CRFSEG_INLINE V8 upper_halves(V8 a, V8 b) {
  return CRFSEG_SHUFFLE(I8, a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
CRFSEG_INLINE V8 lower_half(V16 v) {
  V8 halves[2];
  __builtin_memcpy(halves, &v, sizeof(v));
  return halves[0];
}
CRFSEG_INLINE V8 upper_half(V16 v) {
  V8 halves[2];
  __builtin_memcpy(halves, &v, sizeof(v));
  return halves[1];
}

// op over what is in `value` and in `so_far`, lane by lane
template <class Op, class V>
CRFSEG_INLINE V accumulated(V so_far, V value) {
  return Op::of(so_far, value);
}
template <class Op>
CRFSEG_INLINE V8 accumulated(V8 so_far, V16 value) {
  return Op::of(so_far, Op::of(lower_half(value), upper_half(value)));
}

// Reduces each of as many vectors as there are lanes: lane i of the result is op over rows[i].
template <class Op, class V>
CRFSEG_INLINE V reduce_fours(const V* rows) {  // each four lanes for themselves
  const auto fold = [](V a, V b) __attribute__((always_inline)) {
    return Op::of(lower_in_turn(a, b), upper_in_turn(a, b));
  };
  const V low = fold(rows[0], rows[1]), high = fold(rows[2], rows[3]);
  return Op::of(lower_pairs(low, high), upper_pairs(low, high));
}
template <class Op>
CRFSEG_INLINE V4 reduce_rows(const V4* rows) {
  return reduce_fours<Op>(rows);
}
template <class Op>
CRFSEG_INLINE V8 reduce_rows(const V8* rows) {
  const V8 low = reduce_fours<Op>(rows), high = reduce_fours<Op>(rows + 4);
  return Op::of(lower_halves(low, high), upper_halves(low, high));
}

// Lane i of vector j becomes lane j of vector i.
template <class V>
CRFSEG_INLINE void transpose_fours(V* m) {  // each four lanes for themselves
  const V a = lower_in_turn(m[0], m[1]), b = upper_in_turn(m[0], m[1]);
  const V c = lower_in_turn(m[2], m[3]), d = upper_in_turn(m[2], m[3]);
  m[0] = lower_pairs(a, c);
  m[1] = upper_pairs(a, c);
  m[2] = lower_pairs(b, d);
  m[3] = upper_pairs(b, d);
}
CRFSEG_INLINE void transpose(V4* m) { transpose_fours(m); }
CRFSEG_INLINE void transpose(V8* m) {
  transpose_fours(m);
  transpose_fours(m + 4);
  for (int i = 0; i < 4; ++i) {
    const V8 low = m[i];
    m[i] = lower_halves(low, m[i + 4]);
    m[i + 4] = upper_halves(low, m[i + 4]);
  }
}

// Op over the lanes of a vector.
template <class Op>
CRFSEG_INLINE float across(V4 v) {
  const V4 pairs = Op::of(v, upper_pairs(v, v));
  return Op::of(pairs[0], pairs[1]);
}
template <class Op>
CRFSEG_INLINE float across(V8 v) {
  V4 halves[2];
  __builtin_memcpy(halves, &v, sizeof(v));
  return across<Op>(Op::of(halves[0], halves[1]));
}

// The vector for as much of a row as fits, where V is that for the rest.
template <class V>
struct Front {
  typedef V Type;
};
#if defined(__AVX512F__)
template <>
struct Front<V8> {
  typedef V16 Type;
};
#endif

// Calls f(vector, x) with the type of each vector that a row of `width` floats is made of, a
// multiple of V's, and the place of its first lane.
template <class V, class F>
CRFSEG_INLINE void for_vectors(int width, F&& f) {
  typedef typename Front<V>::Type Wider;
  int x = 0;
  for (; x + Lanes<Wider>::count <= width; x += Lanes<Wider>::count) f(Wider{}, x);
  for (; x < width; x += Lanes<V>::count) f(V{}, x);
}

// Whether x * y - z is one operation, rounded once: even where x * y and z are large and near.
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool fuses_multiply_add = true;
#else
constexpr bool fuses_multiply_add = false;
#endif

constexpr float log2_smallest = -80.0F;

// 2^x for |x| < 126 to 2e-7 relative.
template <class V>
CRFSEG_INLINE V exp2_bounded(V x) {
  typedef typename Lanes<V>::Int Int;
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = x + shift;
  const V fraction = x - (shifted - shift);
  V p = fraction * 0.00132764715F + 0.00967554133F;
  p = p * fraction + 0.0555071327F;
  p = p * fraction + 0.240221197F;
  p = p * fraction + 0.693146967F;
  p = p * fraction + 1.00000007F;
  Int bits, exponent;
  __builtin_memcpy(&bits, &p, sizeof(V));
  __builtin_memcpy(&exponent, &shifted, sizeof(V));
  bits += exponent << 23;
  __builtin_memcpy(&p, &bits, sizeof(V));
  return p;
}

// 2^x for x <= 0, but at least `smallest`.
template <class V>
CRFSEG_INLINE V exp2_nonpositive(V x) {
  return exp2_bounded(maximum(x, V{} + log2_smallest));
}

// log(x) for normal x > 0 to 1e-7 relative to max(1, |log x|).
template <class V>
CRFSEG_INLINE V log_positive(V x) {
  typedef typename Lanes<V>::Int Int;
  Int bits;
  __builtin_memcpy(&bits, &x, sizeof(V));
  const Int offset =
      bits - 0x3f3504f3;  // sqrt(1/2): the mantissa is taken from [sqrt(1/2), sqrt 2)
  const Int exponent = offset >> 23;
  const Int mantissa_bits = (offset & 0x7fffff) + 0x3f3504f3;
  V mantissa;
  __builtin_memcpy(&mantissa, &mantissa_bits, sizeof(V));
  const V s = mantissa - 1.0F;
  V p = s * 0.0891882136F - 0.143496523F;
  p = p * s + 0.148763687F;
  p = p * s - 0.165656942F;
  p = p * s + 0.199654661F;
  p = p * s - 0.250017454F;
  p = p * s + 0.33333856F;
  const V e = __builtin_convertvector(exponent, V);
  return e * 0.693147181F + (s - s * s * 0.5F + s * s * s * p);
}

}  // namespace kernels
}  // namespace crfseg

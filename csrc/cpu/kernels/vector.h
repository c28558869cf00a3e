// SPDX-License-Identifier: MIT
// Vectors of 4 and 8 floats in GCC's and Clang's vector extension; an instruction set without
// registers that wide works on halves. Everything is static: see kernels.h.
#pragma once

#include <cstdint>

namespace crfseg {
namespace kernels {

typedef float V4 __attribute__((vector_size(16)));
typedef float V8 __attribute__((vector_size(32)));
typedef std::int32_t I4 __attribute__((vector_size(16)));
typedef std::int32_t I8 __attribute__((vector_size(32)));

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
template <class V>
CRFSEG_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}
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
struct Sum {
  template <class V>
  CRFSEG_INLINE V of(V a, V b) {
    return a + b;
  }
};

// Reduces each of as many vectors as there are lanes: lane i of the result is op over rows[i].
template <class Op>
CRFSEG_INLINE V8 reduce_rows(const V8* rows) {
  const auto fold1 = [](V8 a, V8 b) __attribute__((always_inline)) {
    return Op::of(CRFSEG_SHUFFLE(I8, a, b, 0, 8, 2, 10, 4, 12, 6, 14),
                  CRFSEG_SHUFFLE(I8, a, b, 1, 9, 3, 11, 5, 13, 7, 15));
  };
  const auto fold2 = [](V8 a, V8 b) __attribute__((always_inline)) {
    return Op::of(CRFSEG_SHUFFLE(I8, a, b, 0, 1, 8, 9, 4, 5, 12, 13),
                  CRFSEG_SHUFFLE(I8, a, b, 2, 3, 10, 11, 6, 7, 14, 15));
  };
  const V8 low = fold2(fold1(rows[0], rows[1]), fold1(rows[2], rows[3]));
  const V8 high = fold2(fold1(rows[4], rows[5]), fold1(rows[6], rows[7]));
  return Op::of(CRFSEG_SHUFFLE(I8, low, high, 0, 1, 2, 3, 8, 9, 10, 11),
                CRFSEG_SHUFFLE(I8, low, high, 4, 5, 6, 7, 12, 13, 14, 15));
}
template <class Op>
CRFSEG_INLINE V4 reduce_rows(const V4* rows) {
  const auto fold1 = [](V4 a, V4 b) __attribute__((always_inline)) {
    return Op::of(CRFSEG_SHUFFLE(I4, a, b, 0, 4, 2, 6), CRFSEG_SHUFFLE(I4, a, b, 1, 5, 3, 7));
  };
  const V4 low = fold1(rows[0], rows[1]);
  const V4 high = fold1(rows[2], rows[3]);
  return Op::of(CRFSEG_SHUFFLE(I4, low, high, 0, 1, 4, 5),
                CRFSEG_SHUFFLE(I4, low, high, 2, 3, 6, 7));
}

constexpr float log2_e = 1.44269504F;

// Nothing is less probable than this: products of weights and probabilities then never become
// denormal numbers, which are slow. Results at the bound are taken for 0 where they are read.
constexpr float log2_smallest = -80.0F;
constexpr float smallest = 8.2718061e-25F;

// Lane i of vector j becomes lane j of vector i.
CRFSEG_INLINE void transpose(V8* m) {
  V8 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = CRFSEG_SHUFFLE(I8, m[i], m[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    a[i + 1] = CRFSEG_SHUFFLE(I8, m[i], m[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int k = 0; k < 2; ++k) {
      b[i + k] = CRFSEG_SHUFFLE(I8, a[i + k], a[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      b[i + k + 2] = CRFSEG_SHUFFLE(I8, a[i + k], a[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    m[i] = CRFSEG_SHUFFLE(I8, b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    m[i + 4] = CRFSEG_SHUFFLE(I8, b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// 2^x for x <= 0 to 2e-7 relative, but at least `smallest`.
template <class V>
CRFSEG_INLINE V exp2_nonpositive(V x) {
  typedef typename Lanes<V>::Int Int;
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const V clamped = maximum(x, V{} + log2_smallest);
  const V shifted = clamped + shift;
  const V fraction = clamped - (shifted - shift);
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

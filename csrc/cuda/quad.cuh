// SPDX-License-Identifier: MIT
// Four numbers at a time, as they are worked on, and as rows hold them: as floats, or as halves,
// which storage.h says more about.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda/device.h"
#include "cuda/numbers.cuh"
#include "cuda/storage.h"

namespace crfseg {
namespace cuda {

struct alignas(16) Quad {
  float x, y, z, w;
};

struct alignas(8) HalfQuad {
  Float16 x, y, z, w;
};

CRFSEG_DEVICE Quad no_quad() { return {0.0F, 0.0F, 0.0F, 0.0F}; }
CRFSEG_DEVICE Quad all_of(float value) { return {value, value, value, value}; }
CRFSEG_DEVICE Quad operator+(Quad a, Quad b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}
CRFSEG_DEVICE Quad operator-(Quad a, Quad b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w};
}
CRFSEG_DEVICE Quad operator*(Quad a, Quad b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}
CRFSEG_DEVICE Quad operator*(float a, Quad b) { return all_of(a) * b; }

CRFSEG_DEVICE Quad load_quad(const float* at) { return *reinterpret_cast<const Quad*>(at); }
CRFSEG_DEVICE void store_quad(float* at, Quad value) { *reinterpret_cast<Quad*>(at) = value; }

CRFSEG_DEVICE Quad load_quad(const Float16* at) {
  const HalfQuad four = *reinterpret_cast<const HalfQuad*>(at);
  return {widened(four.x), widened(four.y), widened(four.z), widened(four.w)};
}

CRFSEG_DEVICE float widened(float value) { return value; }

CRFSEG_DEVICE Float16 saturated(float value) {
  return narrowed(fminf(fmaxf(value, -largest_float16), largest_float16));
}

CRFSEG_DEVICE void store_quad(Float16* at, Quad value) {
  *reinterpret_cast<HalfQuad*>(at) = {saturated(value.x), saturated(value.y), saturated(value.z),
                                      saturated(value.w)};
}

// What rows of T are multiplied by; floats hold everything as it is.
template <class T>
CRFSEG_DEVICE Quad scaled_for(float scale, Quad value) {
  if constexpr (std::is_same<T, float>::value) return value;
  return scale * value;
}

CRFSEG_DEVICE Quad load_log_unary(const float* at) { return load_quad(at); }
CRFSEG_DEVICE void store_log_unary(float* at, Quad value) { store_quad(at, value); }

// Halves hold what is forbidden as -infinity.
CRFSEG_DEVICE Quad load_log_unary(const Float16* at) {
  const Quad t = load_quad(at);
  return {fmaxf(t.x, log_zero), fmaxf(t.y, log_zero), fmaxf(t.z, log_zero), fmaxf(t.w, log_zero)};
}

CRFSEG_DEVICE Float16 narrowed_log(float value) {
  return value <= log_zero ? narrowed(value) : saturated(value);
}

CRFSEG_DEVICE void store_log_unary(Float16* at, Quad value) {
  *reinterpret_cast<HalfQuad*>(at) = {narrowed_log(value.x), narrowed_log(value.y),
                                      narrowed_log(value.z), narrowed_log(value.w)};
}

}  // namespace cuda
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Arrays of the caller in device memory, strides counted in elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/half.h"

namespace crfseg {
namespace cuda {

// (items, labels, points)
template <class T>
struct BatchView {
  T* data = nullptr;
  std::int64_t item_stride = 0, label_stride = 0, point_stride = 0;

  CRFSEG_HD_MEMBER T& operator()(std::int64_t item, std::int64_t label, std::int64_t point) const {
    return data[item * item_stride + label * label_stride + point * point_stride];
  }
  CRFSEG_HD_MEMBER explicit operator bool() const { return data != nullptr; }
};

enum class FloatType : int { float32, float16, bfloat16 };

template <class T>
constexpr FloatType float_type() {
  using Plain = std::remove_const_t<T>;
  static_assert(std::is_same<Plain, float>::value || std::is_same<Plain, Float16>::value ||
                    std::is_same<Plain, BFloat16>::value,
                "expected floats");
  return std::is_same<Plain, float>::value     ? FloatType::float32
         : std::is_same<Plain, Float16>::value ? FloatType::float16
                                               : FloatType::bfloat16;
}

// The same of floats whose type is known at run time; Void is void or const void.
template <class Void>
struct FloatBatch {
  Void* data = nullptr;
  FloatType type = FloatType::float32;
  std::int64_t item_stride = 0, label_stride = 0, point_stride = 0;

  FloatBatch() = default;
  FloatBatch(Void* first, FloatType of, std::int64_t item, std::int64_t label, std::int64_t point)
      : data(first), type(of), item_stride(item), label_stride(label), point_stride(point) {}
  template <class T>
  FloatBatch(T* first, std::int64_t item, std::int64_t label, std::int64_t point)
      : FloatBatch(first, float_type<T>(), item, label, point) {}
  template <class T>
  FloatBatch(const BatchView<T>& view)
      : FloatBatch(view.data, view.item_stride, view.label_stride, view.point_stride) {}

  CRFSEG_HD_MEMBER std::int64_t place(std::int64_t item, std::int64_t label,
                                      std::int64_t point) const {
    return item * item_stride + label * label_stride + point * point_stride;
  }
  CRFSEG_HD_MEMBER explicit operator bool() const { return data != nullptr; }
};

using ScoreView = FloatBatch<const void>;

// Where marginals go: those of labels from one on, or their logarithms.
struct MarginalView : FloatBatch<void> {
  using FloatBatch<void>::FloatBatch;
  MarginalView() = default;
  MarginalView(const FloatBatch<void>& of) : FloatBatch<void>(of) {}

  int first_label = 0;
  bool are_logs = false;
};

CRFSEG_HD void store_marginal(const MarginalView& view, std::int64_t at, float value) {
  switch (view.type) {
    case FloatType::float16:
      static_cast<Float16*>(view.data)[at] = to_float16(value);
      break;
    case FloatType::bfloat16:
      static_cast<BFloat16*>(view.data)[at] = to_bfloat16(value);
      break;
    default:
      static_cast<float*>(view.data)[at] = value;
  }
}

// Where labels (n_items, n_points) go, of 32 or 8 bits; or nowhere. Those whose marginal is below
// `least` are marked.
struct LabelTarget {
  std::int32_t* wide = nullptr;
  std::uint8_t* narrow = nullptr;
  float least = 0.0F;
  int mark = 0;

  LabelTarget(std::nullptr_t = nullptr) {}
  LabelTarget(std::int32_t* labels) : wide(labels) {}
  LabelTarget(std::uint8_t* labels) : narrow(labels) {}

  CRFSEG_HD_MEMBER void store(std::int64_t at, int label) const {
    if (wide != nullptr) wide[at] = label;
    if (narrow != nullptr) narrow[at] = static_cast<std::uint8_t>(label);
  }
  CRFSEG_HD_MEMBER explicit operator bool() const { return wide != nullptr || narrow != nullptr; }
};

}  // namespace cuda
}  // namespace crfseg

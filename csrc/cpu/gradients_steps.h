// SPDX-License-Identifier: MIT
// What a step forth and a step back are asked for.
#pragma once

#include <cstdint>

#include "cpu/kernels/kernels.h"
#include "gradients.h"

namespace crfseg {

struct UnrolledField::Step {
  LabelView<const float> unary;    // to be read into rows; or null
  const float* given_q = nullptr;  // (n_points, width) rows that are splat as they are; or null
  bool slices = false, splats = false;
  bool wants_change = false;
  float* q = nullptr;  // (n_points, width) or null
  LabelView<float> out;
  int threads = 1;
};

struct UnrolledField::BackStep {
  LabelView<const float> gradient;     // of the first step
  const float* given_delta = nullptr;  // (n_points, width) delta as it is; or null
  const float* q = nullptr;            // (n_points, width) of the step that is left
  int filtered = -1;                   // whose K~ Q^t features are paired with; or none
  int moments = -1;                    // whose K~ Q^t what is splat is paired with; or none
  bool gathers = true;                 // what came back; false at the first step
  bool through_softmax = true, goes_on = true, splats = true;
  float* delta = nullptr;  // (n_points, width) or null
  float* sum = nullptr;    // (n_points, width) or null
};

template <class T>
kernels::LabelStrip strip_from(const LabelView<T>& view, std::int64_t begin) {
  // Passes write only where they are told to by a view that may be written to.
  auto* data = const_cast<float*>(view.data);
  return {data != nullptr ? data + begin * view.point_stride : nullptr, view.label_stride,
          view.point_stride};
}

}  // namespace crfseg

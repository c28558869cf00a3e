// SPDX-License-Identifier: MIT
#include "image.h"

#include "bindings/bindings.h"

namespace crfseg {
namespace bindings {

void bind_image(py::module_& module) {
  module.def(
      "upsample",
      [](const ContiguousFloats& scores, py::ssize_t height, py::ssize_t width, bool align_corners,
         int threads) {
        expect(scores.ndim() == 3, "expected (C, h, w) scores");
        FloatArray out({scores.shape(0), height, width});
        float* target = out.mutable_data();
        const py::gil_scoped_release release;
        upsample(scores.data(), scores.shape(0), scores.shape(1), scores.shape(2), height, width,
                 align_corners, threads, target);
        return out;
      },
      py::arg("scores"), py::arg("height"), py::arg("width"), py::arg("align_corners"),
      py::arg("threads"));
}

}  // namespace bindings
}  // namespace crfseg

// SPDX-License-Identifier: MIT
#include "image.h"

#include <pybind11/stl.h>

#include <optional>

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
  module.def(
      "image_features",
      [](py::ssize_t height, py::ssize_t width, const std::optional<ContiguousFloats>& image,
         const ContiguousFloats& inverse_sigmas, int threads) {
        const py::ssize_t n_channels = image ? image->shape(2) : 0;
        expect(inverse_sigmas.size() == 2 + n_channels, "expected one sigma per feature");
        if (image) {
          expect(image->ndim() == 3 && image->shape(0) == height && image->shape(1) == width,
                 "expected an image of (height, width, K)");
        }
        FloatArray out({height * width, 2 + n_channels});
        float* target = out.mutable_data();
        const float* source = image ? image->data() : nullptr;
        const py::gil_scoped_release release;
        image_features(height, width, source, n_channels, inverse_sigmas.data(), threads, target);
        return out;
      },
      py::arg("height"), py::arg("width"), py::arg("image").none(true), py::arg("inverse_sigmas"),
      py::arg("threads"));
}

}  // namespace bindings
}  // namespace crfseg

// SPDX-License-Identifier: MIT
#include "lattice.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/bindings.h"

namespace crfseg {
namespace bindings {
namespace {

std::shared_ptr<Lattice> build(const ContiguousFloats& features, std::vector<int> fill, int passes,
                               int threads, std::int64_t max_bytes) {
  expect(features.ndim() == 2 && features.shape(1) >= 1 && features.shape(1) <= 16,
         "expected (N, d) features, d from 1 to 16");
  expect(passes >= 1 && passes <= max_passes, "expected passes from 1 to 8");
  const py::gil_scoped_release release;
  return std::make_shared<Lattice>(features.data(), features.shape(0),
                                   static_cast<int>(features.shape(1)), std::move(fill), passes,
                                   threads, max_bytes);
}

ChannelType channel_type(const py::array& image) {
  if (py::isinstance<py::array_t<std::uint8_t>>(image)) return ChannelType::uint8;
  if (py::isinstance<py::array_t<std::uint16_t>>(image)) return ChannelType::uint16;
  expect(py::isinstance<FloatArray>(image), "expected an image of uint8, uint16 or float32");
  return ChannelType::float32;
}

// (height, width), or (depth, height, width).
using GridShape = std::vector<py::ssize_t>;

void expect_image_on(const GridShape& grid, const py::array& image) {
  const auto n_axes = static_cast<py::ssize_t>(grid.size());
  expect(image.ndim() == n_axes + 1 && std::equal(grid.begin(), grid.end(), image.shape()) &&
             (image.flags() & py::array::c_style) != 0,
         "expected a contiguous image of (height, width, K) or (depth, height, width, K)");
}

std::shared_ptr<Lattice> build_of_pixels(const GridShape& grid,
                                         const std::optional<py::array>& image,
                                         const ContiguousFloats& inverse_sigmas,
                                         std::vector<int> fill, int passes, int threads,
                                         std::int64_t max_bytes) {
  const std::size_t n_axes = grid.size();
  expect(n_axes == 2 || n_axes == 3, "expected 2 or 3 axes");
  if (image) expect_image_on(grid, *image);
  const py::ssize_t n_channels = image ? image->shape(static_cast<py::ssize_t>(n_axes)) : 0;
  const auto dim = static_cast<py::ssize_t>(n_axes) + n_channels;
  expect(inverse_sigmas.size() == dim && dim <= 16, "expected one sigma per feature, 2 to 16");
  expect(passes >= 1 && passes <= max_passes, "expected passes from 1 to 8");
  const PixelGrid pixels{grid[n_axes - 2],
                         grid[n_axes - 1],
                         image ? image->data() : nullptr,
                         image ? channel_type(*image) : ChannelType::float32,
                         static_cast<int>(n_channels),
                         inverse_sigmas.data(),
                         n_axes == 3 ? grid[0] : 0};
  const py::gil_scoped_release release;
  return std::make_shared<Lattice>(pixels, std::move(fill), passes, threads, max_bytes);
}

FloatArray filter(const Lattice& lattice, const ContiguousFloats& values, int normalization,
                  bool transpose, int threads) {
  expect(values.ndim() == 2 && values.shape(0) == lattice.n_points, "expected (N, C) values");
  expect(normalization >= 0 && normalization <= 3, "unknown normalization");
  FloatArray out({values.shape(0), values.shape(1)});
  float* target = out.mutable_data();
  const py::gil_scoped_release release;
  lattice_filter(lattice, static_cast<Normalization>(normalization), transpose, values.data(),
                 values.shape(1), threads, target);
  return out;
}

FloatArray scaled_by_gain(const Lattice& lattice, FloatArray out) {
  const double gain = lattice_gain(lattice.dim, lattice.fill, lattice.passes);
  for (py::ssize_t i = 0; i < out.size(); ++i) {
    out.mutable_data()[i] = static_cast<float>(out.data()[i] * gain);
  }
  return out;
}

FloatArray normalizer(const Lattice& lattice, int threads) {
  FloatArray out(lattice.n_points);
  {
    const py::gil_scoped_release release;
    const Buffer<float> sums = lattice.normalizer(threads);
    std::copy(sums.begin(), sums.end(), out.mutable_data());
  }
  return scaled_by_gain(lattice, std::move(out));
}

FloatArray diagonal(const Lattice& lattice, int threads) {
  FloatArray out(lattice.n_points);
  {
    float* target = out.mutable_data();
    const py::gil_scoped_release release;
    self_response(lattice, threads, target);
  }
  return scaled_by_gain(lattice, std::move(out));
}

}  // namespace

void bind_lattice(py::module_& module) {
  module.attr("NORMALIZATION_NONE") = static_cast<int>(Normalization::none);
  module.attr("NORMALIZATION_BEFORE") = static_cast<int>(Normalization::before);
  module.attr("NORMALIZATION_AFTER") = static_cast<int>(Normalization::after);
  module.attr("NORMALIZATION_SYMMETRIC") = static_cast<int>(Normalization::symmetric);
  py::class_<Lattice, std::shared_ptr<Lattice>>(module, "Lattice")
      .def(py::init(&build), py::arg("features"), py::arg("fill"), py::arg("passes"),
           py::arg("threads"), py::arg("max_bytes"))
      .def_static("of_pixels", &build_of_pixels, py::arg("grid"), py::arg("image").none(true),
                  py::arg("inverse_sigmas"), py::arg("fill"), py::arg("passes"), py::arg("threads"),
                  py::arg("max_bytes"))
      .def_property_readonly("n_points", [](const Lattice& l) { return l.n_points; })
      .def_property_readonly("n_vertices", [](const Lattice& l) { return l.n_vertices; })
      .def_property_readonly("dim", [](const Lattice& l) { return l.dim; })
      .def_property_readonly("fill", [](const Lattice& l) { return l.fill; })
      .def_property_readonly("passes", [](const Lattice& l) { return l.passes; })
      .def_property_readonly("gain",
                             [](const Lattice& l) { return lattice_gain(l.dim, l.fill, l.passes); })
      .def_property_readonly("nbytes", &Lattice::nbytes)
      .def("filter", &filter, py::arg("values"), py::arg("normalization"), py::arg("transpose"),
           py::arg("threads"))
      .def("normalizer", &normalizer, py::arg("threads"))
      .def("self_response", &diagonal, py::arg("threads"));
  module.def(
      "lattice_gain",
      [](int dim, const std::vector<int>& fill, int passes) {
        expect(dim >= 1 && dim <= 16 && passes >= 1 && passes <= max_passes,
               "expected 1 to 16 features and passes from 1 to 8");
        const py::gil_scoped_release release;
        return lattice_gain(dim, fill, passes);
      },
      py::arg("dim"), py::arg("fill"), py::arg("passes"));
}

}  // namespace bindings
}  // namespace crfseg

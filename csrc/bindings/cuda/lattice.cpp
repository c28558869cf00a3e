// SPDX-License-Identifier: MIT
#include "cuda/lattice.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bindings/cuda/bindings.h"
#include "cuda/filter.h"
#include "cuda/self_response.h"

namespace crfseg {
namespace bindings {
namespace {

std::shared_ptr<cuda::Lattice> build(cuda::Points points, const ContiguousFloats& lo,
                                     const ContiguousFloats& hi, cuda::BuildOptions options,
                                     int device, Address stream,
                                     const std::optional<Allocator>& allocator) {
  expect(points.dim >= 1 && points.dim <= permutohedral::max_dim, "expected 1 to 16 features");
  expect(lo.size() == points.dim && hi.size() == points.dim, "expected bounds of every feature");
  expect(options.passes >= 1 && options.passes <= 8, "expected passes from 1 to 8");
  expect(points.n_items >= 1 && points.n_points >= 1, "expected points");
  expect(options.side <= cuda::Tiling::side_for(points.dim), "the tiles are too large");
  std::copy_n(lo.data(), points.dim, points.lo);
  std::copy_n(hi.data(), points.dim, points.hi);
  const cuda::Allocate allocate = allocate_by(allocator, stream_of(stream));
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  return std::make_shared<cuda::Lattice>(points, options, allocate, stream_of(stream));
}

std::shared_ptr<cuda::Lattice> of_features(
    Address features, std::int64_t n_items, std::int64_t n_points, int dim, std::int64_t width,
    const ContiguousFloats& lo, const ContiguousFloats& hi, int side, std::vector<int> fill,
    int passes, std::int64_t max_bytes, std::int64_t room_for_rows, std::int64_t room_for_vertices,
    int device, Address stream, const std::optional<Allocator>& allocator) {
  cuda::Points points;
  points.n_items = n_items;
  points.n_points = n_points;
  points.dim = dim;
  points.features = at<const float>(features);
  points.width = width;
  return build(points, lo, hi,
               {side, std::move(fill), passes, max_bytes, room_for_rows, room_for_vertices}, device,
               stream, allocator);
}

std::shared_ptr<cuda::Lattice> of_pixels(
    Address channels, int channel_type, int n_channels, std::int64_t n_items, std::int64_t height,
    std::int64_t width, std::int64_t depth, const ContiguousFloats& inverse_sigmas,
    const ContiguousFloats& lo, const ContiguousFloats& hi, int side, std::vector<int> fill,
    int passes, std::int64_t max_bytes, std::int64_t room_for_rows, std::int64_t room_for_vertices,
    int device, Address stream, const std::optional<Allocator>& allocator) {
  expect(channel_type >= 0 && channel_type <= 2, "unknown type of channels");
  const int n_positions = depth > 0 ? 3 : 2;
  expect(inverse_sigmas.size() == n_positions + n_channels && inverse_sigmas.size() <= 16,
         "expected one sigma per feature, 2 to 16");
  cuda::Points points;
  points.n_items = n_items;
  points.n_points = height * width * (depth > 0 ? depth : 1);
  points.height = depth > 0 ? height : 0;
  points.dim = n_positions + n_channels;
  points.channels = at<const void>(channels);
  points.type = static_cast<ChannelType>(channel_type);
  points.n_channels = n_channels;
  points.width = width;
  std::copy_n(inverse_sigmas.data(), points.dim, points.inverse_sigmas);
  return build(points, lo, hi,
               {side, std::move(fill), passes, max_bytes, room_for_rows, room_for_vertices}, device,
               stream, allocator);
}

void filter(const cuda::Lattice& lattice, Address values, std::int64_t n_channels, Address out,
            int normalization, double gain, bool transpose, int device, Address stream,
            const std::optional<Allocator>& allocator) {
  expect(normalization >= 0 && normalization <= 3, "unknown normalization");
  const cuda::Allocate allocate = allocate_by(allocator, stream_of(stream));
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  cuda::lattice_filter(lattice, static_cast<Normalization>(normalization), gain, transpose,
                       at<const float>(values), n_channels, at<float>(out), allocate,
                       stream_of(stream));
}

void diagonal(const cuda::Lattice& lattice, Address out, int normalization, double gain, int device,
              Address stream, const std::optional<Allocator>& allocator) {
  expect(normalization >= 0 && normalization <= 3, "unknown normalization");
  const cuda::Allocate allocate = allocate_by(allocator, stream_of(stream));
  const py::gil_scoped_release release;
  const cuda::OnDevice current(device);
  cuda::self_response(lattice, static_cast<Normalization>(normalization), gain, at<float>(out),
                      allocate, stream_of(stream));
}

py::array_t<std::uint64_t> keys(const cuda::Lattice& lattice, int device, Address stream) {
  std::vector<std::uint64_t> found;
  {
    const py::gil_scoped_release release;
    const cuda::OnDevice current(device);
    found = lattice.keys(stream_of(stream));
  }
  py::array_t<std::uint64_t> array({static_cast<py::ssize_t>(found.size() / 2), py::ssize_t{2}});
  std::copy(found.begin(), found.end(), array.mutable_data());
  return array;
}

}  // namespace

void bind_lattice(py::module_& module) {
  module.def("side_for", &cuda::Tiling::side_for, py::arg("dim"));
  py::class_<cuda::Lattice, std::shared_ptr<cuda::Lattice>>(module, "Lattice", py::module_local())
      .def_static("of_features", &of_features, py::arg("features"), py::arg("n_items"),
                  py::arg("n_points"), py::arg("dim"), py::arg("width"), py::arg("lo"),
                  py::arg("hi"), py::arg("side"), py::arg("fill"), py::arg("passes"),
                  py::arg("max_bytes"), py::arg("room_for_rows"), py::arg("room_for_vertices"),
                  py::arg("device"), py::arg("stream"), py::arg("allocate").none(true))
      .def_static("of_pixels", &of_pixels, py::arg("channels"), py::arg("channel_type"),
                  py::arg("n_channels"), py::arg("n_items"), py::arg("height"), py::arg("width"),
                  py::arg("depth"), py::arg("inverse_sigmas"), py::arg("lo"), py::arg("hi"),
                  py::arg("side"), py::arg("fill"), py::arg("passes"), py::arg("max_bytes"),
                  py::arg("room_for_rows"), py::arg("room_for_vertices"), py::arg("device"),
                  py::arg("stream"), py::arg("allocate").none(true))
      .def_property_readonly("n_vertices",
                             [](const cuda::Lattice& l) { return l.view().n_vertices; })
      .def_property_readonly("n_rows", [](const cuda::Lattice& l) { return l.view().n_rows; })
      .def_property_readonly("dim", &cuda::Lattice::dim)
      .def_property_readonly("fill", &cuda::Lattice::fill)
      .def_property_readonly("passes", &cuda::Lattice::passes)
      .def_property_readonly("nbytes", &cuda::Lattice::nbytes)
      .def(
          "check",
          [](const cuda::Lattice& lattice, int device, Address stream) {
            const py::gil_scoped_release release;
            const cuda::OnDevice current(device);
            lattice.check(stream_of(stream));
          },
          py::arg("device"), py::arg("stream"))
      .def(
          "repeated",
          [](const cuda::Lattice& lattice, std::int64_t n_items) {
            return std::make_shared<cuda::Lattice>(lattice.repeated(n_items));
          },
          py::arg("n_items"))
      .def("filter", &filter, py::arg("values"), py::arg("n_channels"), py::arg("out"),
           py::arg("normalization"), py::arg("gain"), py::arg("transpose"), py::arg("device"),
           py::arg("stream"), py::arg("allocate").none(true))
      .def("self_response", &diagonal, py::arg("out"), py::arg("normalization"), py::arg("gain"),
           py::arg("device"), py::arg("stream"), py::arg("allocate").none(true))
      .def("keys", &keys, py::arg("device"), py::arg("stream"));
}

}  // namespace bindings
}  // namespace crfseg

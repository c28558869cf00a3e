// SPDX-License-Identifier: MIT
#include "cuda/mean_field.h"

#include <pybind11/stl.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/cuda/bindings.h"

namespace crfseg {
namespace bindings {
namespace {

// The same as Strided, with the type of floats behind the address.
using Typed = std::tuple<Address, int, std::int64_t, std::int64_t, std::int64_t>;

cuda::FloatType float_type_of(int type) {
  expect(type >= 0 && type <= 2, "unknown type of floats");
  return static_cast<cuda::FloatType>(type);
}

template <class Void>
cuda::FloatBatch<Void> floats_of(const std::optional<Typed>& array) {
  if (!array) return {};
  const auto& [address, type, item, label, point] = *array;
  return {at<Void>(address), float_type_of(type), item, label, point};
}

UnaryKind kind_of(int kind) {
  expect(kind >= 0 && kind <= 3, "unknown kind of unary");
  return static_cast<UnaryKind>(kind);
}

// A field and where it is.
class Field {
 public:
  Field(std::int64_t n_items, std::int64_t n_points, std::int64_t width, int side, int n_labels,
        int storage, int device, Address stream, const std::optional<Allocator>& allocator)
      : device_(device), n_labels_(n_labels), n_points_(n_points) {
    expect(n_items >= 1 && n_points >= 1 && (side == 8 || side == 16), "expected points in tiles");
    const cuda::FloatType stored = float_type_of(storage);
    cuda::Allocate allocate = allocate_by(allocator, stream_of(stream));
    on_device([&] {
      field_ = std::make_unique<cuda::MeanField>(cuda::Tiling::of(n_items, n_points, width, side),
                                                 n_labels, std::move(allocate), stream_of(stream),
                                                 stored);
    });
  }

  void set_unary(const Typed& values, int kind, float clip) {
    const cuda::ScoreView view = floats_of<const void>(values);
    const UnaryKind of_kind = kind_of(kind);
    on_device([&] { field_->set_unary(view, of_kind, clip); });
  }

  void set_coarse_unary(const Typed& scores, std::int64_t rows, std::int64_t columns, int kind,
                        float clip, std::int64_t height, std::int64_t width, bool align_corners) {
    const cuda::ScoreView view = floats_of<const void>(scores);
    const UnaryKind of_kind = kind_of(kind);
    expect(of_kind != UnaryKind::energies, "energies are not upsampled");
    expect(rows > 0 && columns > 0 && height * width == n_points_, "expected an image's scores");
    const CoarseGrid grid{rows, columns, height, width, align_corners};
    on_device([&] { field_->set_coarse_unary(view, grid, of_kind, clip); });
  }

  void set_labels(Address labels, float given, float other, float unknown, int forbidden) {
    on_device([&] {
      field_->set_labels(at<const std::int32_t>(labels), {given, other, unknown, forbidden});
    });
  }

  void hold_thin(int side, float factor) {
    on_device([&] { field_->hold_thin(side, factor); });
  }

  std::tuple<bool, float, float> findings() {
    cuda::UnaryFindings found;
    on_device([&] { found = field_->findings(); });
    return {found.is_bad, found.low, found.off};
  }

  void add_kernel(std::shared_ptr<cuda::Lattice> lattice, int normalization, double gain,
                  float weight, const std::optional<ContiguousFloats>& mu, bool exclude_self) {
    expect(normalization >= 0 && normalization <= 3, "unknown normalization");
    const Compatibility compatibility = compatibility_of(mu, n_labels_);
    on_device([&] {
      field_->add_kernel(std::move(lattice), static_cast<Normalization>(normalization), gain,
                         weight, compatibility, exclude_self);
    });
  }

  void infer(const std::optional<Strided>& start, int iterations, float tolerance, float damping,
             bool trace, const std::optional<Typed>& out, int first_label, bool are_logs,
             const std::optional<Address>& labels, bool narrow_labels, float least, int mark) {
    cuda::MarginalView marginals = floats_of<void>(out);
    marginals.first_label = first_label;
    marginals.are_logs = are_logs;
    cuda::LabelTarget target;
    if (labels && narrow_labels) target = at<std::uint8_t>(*labels);
    if (labels && !narrow_labels) target = at<std::int32_t>(*labels);
    target.least = least;
    target.mark = mark;
    const cuda::BatchView<const float> from =
        start ? view_of<const float>(*start) : cuda::BatchView<const float>{};
    on_device(
        [&] { field_->infer(from, {iterations, tolerance, damping, trace}, marginals, target); });
  }

  std::tuple<int, float, std::vector<double>> outcome() {
    cuda::Outcome found;
    on_device([&] { found = field_->outcome(); });
    return {found.iterations, found.max_change, found.trace};
  }

  double free_energy(const Strided& q) {
    double energy = 0.0;
    on_device([&] { energy = field_->free_energy(view_of<const float>(q)); });
    return energy;
  }

  double expected_energy(const Strided& q) {
    double energy = 0.0;
    on_device([&] { energy = field_->expected_energy(view_of<const float>(q)); });
    return energy;
  }

  double energy(Address labels) {
    double energy = 0.0;
    on_device([&] { energy = field_->energy(at<const std::int32_t>(labels)); });
    return energy;
  }

  std::int64_t nbytes() const { return field_->nbytes(); }

 private:
  template <class F>
  void on_device(F&& f) {
    const py::gil_scoped_release release;
    const cuda::OnDevice current(device_);
    f();
  }

  int device_, n_labels_;
  std::int64_t n_points_;
  std::unique_ptr<cuda::MeanField> field_;
};

}  // namespace

void bind_mean_field(py::module_& module) {
  module.attr("MOST_LABELS") = cuda::most_labels;
  module.attr("MOST_TERMS") = cuda::most_terms;
  py::class_<Field>(module, "MeanField", py::module_local())
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, int, int, int, int, Address,
                    const std::optional<Allocator>&>(),
           py::arg("n_items"), py::arg("n_points"), py::arg("width"), py::arg("side"),
           py::arg("n_labels"), py::arg("storage"), py::arg("device"), py::arg("stream"),
           py::arg("allocate").none(true))
      .def_property_readonly("nbytes", &Field::nbytes)
      .def("set_unary", &Field::set_unary, py::arg("values"), py::arg("kind"), py::arg("clip"))
      .def("set_coarse_unary", &Field::set_coarse_unary, py::arg("scores"), py::arg("rows"),
           py::arg("columns"), py::arg("kind"), py::arg("clip"), py::arg("height"),
           py::arg("width"), py::arg("align_corners"))
      .def("set_labels", &Field::set_labels, py::arg("labels"), py::arg("given"), py::arg("other"),
           py::arg("unknown"), py::arg("forbidden"))
      .def("hold_thin", &Field::hold_thin, py::arg("side"), py::arg("factor"))
      .def("findings", &Field::findings)
      .def("add_kernel", &Field::add_kernel, py::arg("lattice"), py::arg("normalization"),
           py::arg("gain"), py::arg("weight"), py::arg("compatibility").none(true),
           py::arg("exclude_self"))
      .def("infer", &Field::infer, py::arg("start").none(true), py::arg("iterations"),
           py::arg("tolerance"), py::arg("damping"), py::arg("trace"), py::arg("out").none(true),
           py::arg("first_label"), py::arg("are_logs"), py::arg("labels").none(true),
           py::arg("narrow_labels"), py::arg("least"), py::arg("mark"))
      .def("outcome", &Field::outcome)
      .def("free_energy", &Field::free_energy, py::arg("q"))
      .def("expected_energy", &Field::expected_energy, py::arg("q"))
      .def("energy", &Field::energy, py::arg("labels"));
}

}  // namespace bindings
}  // namespace crfseg

// SPDX-License-Identifier: MIT
#include "cuda/gradients.h"

#include <pybind11/stl.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/cuda/bindings.h"

namespace crfseg {
namespace bindings {
namespace {

using SharedLattice = std::shared_ptr<cuda::Lattice>;
// A lattice, its normalization and gain, whether the coupling is full, and where that lies.
using Kernel = std::tuple<SharedLattice, int, double, bool, Address>;
// Where features lie, how they get a gradient, and where that goes.
using Moved = std::tuple<Address, int, Address>;
// The kernel in whose place another lattice is, that lattice and its gain, and where the sum goes.
using Probed = std::tuple<int, SharedLattice, double, Address>;

cuda::CoupledKernel kernel_of(const Kernel& given) {
  const auto& [lattice, normalization, gain, is_full, coupling] = given;
  expect(normalization >= 0 && normalization <= 3, "unknown normalization");
  return {lattice, static_cast<Normalization>(normalization), gain, is_full,
          at<const float>(coupling)};
}

cuda::FeatureRequest request_of(const std::optional<Moved>& given) {
  if (!given) return {};
  const auto& [features, form, out] = *given;
  expect(form >= 0 && form <= 2, "unknown form of feature gradients");
  return {at<const float>(features), static_cast<FeatureGradient>(form), at<float>(out)};
}

// A field and where it is.
class Unrolled {
 public:
  Unrolled(std::int64_t n_items, std::int64_t n_points, std::int64_t width, int side, int n_labels,
           const std::vector<Kernel>& kernels, int device, Address stream,
           const std::optional<Allocator>& allocator)
      : device_(device) {
    expect(n_items >= 1 && n_points >= 1 && (side == 8 || side == 16), "expected points in tiles");
    tiling_ = cuda::Tiling::of(n_items, n_points, width, side);
    std::vector<cuda::CoupledKernel> coupled;
    for (const Kernel& kernel : kernels) {
      check(*std::get<SharedLattice>(kernel));
      coupled.push_back(kernel_of(kernel));
    }
    cuda::Allocate allocate = allocate_by(allocator, stream_of(stream));
    on_device([&] {
      field_ = std::make_unique<cuda::UnrolledField>(tiling_, n_labels, coupled,
                                                     std::move(allocate), stream_of(stream));
    });
  }

  void run(const Strided& unary, bool is_energy, int iterations, int differentiated, int every,
           bool fixed_point, float tolerance, bool wants_logits, const Strided& out) {
    on_device([&] {
      field_->run(view_of<const float>(unary), is_energy,
                  {iterations, differentiated, every, fixed_point, tolerance, wants_logits},
                  view_of<float>(out));
    });
  }

  std::tuple<int, float> unrolling() {
    cuda::Unrolling found;
    on_device([&] { found = field_->unrolling(); });
    return {found.iterations, found.max_change};
  }

  void back(const Strided& gradient, const Strided& out,
            const std::vector<std::optional<Moved>>& features,
            const std::vector<Address>& couplings, const std::vector<Probed>& probes,
            int most_terms, float tolerance) {
    cuda::BackOptions options;
    for (const auto& one : features) options.features.push_back(request_of(one));
    for (const Address one : couplings) options.couplings.push_back(at<double>(one));
    for (const auto& [kernel, lattice, gain, sum] : probes) {
      expect(kernel >= 0 && kernel < field_->n_kernels(), "expected probes of kernels there are");
      check(*lattice);
      options.probes.push_back({kernel, lattice, gain, at<double>(sum)});
    }
    options.most_terms = most_terms;
    options.tolerance = tolerance;
    on_device([&] { field_->back(view_of<const float>(gradient), options, view_of<float>(out)); });
  }

  std::tuple<int, bool> series() {
    cuda::Series found;
    on_device([&] { found = field_->series(); });
    return {found.terms, found.converged};
  }

  std::int64_t nbytes() const { return field_->nbytes(); }

 private:
  void check(const cuda::Lattice& lattice) const {
    const cuda::Tiling& other = lattice.view().tiling;
    expect(other.n_items == tiling_.n_items && other.n_points == tiling_.n_points &&
               other.width == tiling_.width && other.side == tiling_.side,
           "lattice and field differ in points or tiles");
  }

  template <class F>
  void on_device(F&& f) {
    const py::gil_scoped_release release;
    const cuda::OnDevice current(device_);
    f();
  }

  cuda::Tiling tiling_;
  int device_;
  std::unique_ptr<cuda::UnrolledField> field_;
};

}  // namespace

void bind_gradients(py::module_& module) {
  py::class_<Unrolled>(module, "UnrolledField", py::module_local())
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, int, int, const std::vector<Kernel>&,
                    int, Address, const std::optional<Allocator>&>(),
           py::arg("n_items"), py::arg("n_points"), py::arg("width"), py::arg("side"),
           py::arg("n_labels"), py::arg("kernels"), py::arg("device"), py::arg("stream"),
           py::arg("allocate").none(true))
      .def_property_readonly("nbytes", &Unrolled::nbytes)
      .def("run", &Unrolled::run, py::arg("unary"), py::arg("is_energy"), py::arg("iterations"),
           py::arg("differentiated"), py::arg("every"), py::arg("fixed_point"),
           py::arg("tolerance"), py::arg("wants_logits"), py::arg("out"))
      .def("unrolling", &Unrolled::unrolling)
      .def("back", &Unrolled::back, py::arg("gradient"), py::arg("out"), py::arg("features"),
           py::arg("couplings"), py::arg("probes"), py::arg("most_terms"), py::arg("tolerance"))
      .def("series", &Unrolled::series);
}

}  // namespace bindings
}  // namespace crfseg

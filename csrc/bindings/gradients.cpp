// SPDX-License-Identifier: MIT
#include "gradients.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"

namespace crfseg {
namespace bindings {
namespace {

using Lattices = std::vector<std::shared_ptr<Lattice>>;
using Doubles = py::array_t<double>;

Coupling coupling_of(const ContiguousFloats& values, int n_labels) {
  expect((values.ndim() == 1 || values.ndim() == 2) && values.shape(0) == n_labels &&
             values.shape(values.ndim() - 1) == n_labels,
         "expected couplings of (C,) or (C, C)");
  return {values.ndim() == 2, std::vector<float>(values.data(), values.data() + values.size())};
}

std::unique_ptr<UnrolledField> build(std::int64_t n_points, int n_labels, const Lattices& lattices,
                                     const std::vector<int>& normalizations,
                                     const std::vector<ContiguousFloats>& couplings, int threads) {
  expect(lattices.size() == normalizations.size() && lattices.size() == couplings.size(),
         "expected a lattice, a normalization and a coupling for each kernel");
  expect(n_labels >= 1, "expected a label");
  std::vector<CoupledKernel> kernels;
  for (std::size_t k = 0; k < lattices.size(); ++k) {
    expect(lattices[k]->n_points == n_points, "lattice and field differ in points");
    expect(normalizations[k] >= 0 && normalizations[k] <= 3, "unknown normalization");
    kernels.push_back({lattices[k], static_cast<Normalization>(normalizations[k]),
                       coupling_of(couplings[k], n_labels)});
  }
  const py::gil_scoped_release release;
  return std::make_unique<UnrolledField>(n_points, n_labels, kernels, threads);
}

LabelView<const float> checked(const UnrolledField& field, const FloatArray& values) {
  const LabelView<const float> view = view_of(values);
  expect(view.n_labels == field.n_labels() && view.n_points == field.n_points(),
         "expected a (C, N) array");
  return view;
}

LabelView<float> writable(const UnrolledField& field, FloatArray* values) {
  const LabelView<const float> view = checked(field, *values);
  return {values->mutable_data(), view.n_labels, view.n_points, view.label_stride,
          view.point_stride};
}

void look_at_signals() {
  const py::gil_scoped_acquire acquire;
  raise_pending_signals();
}

std::tuple<int, float> run(UnrolledField& field, const FloatArray& unary, bool is_energy,
                           int iterations, int differentiated, int every, bool fixed_point,
                           float tolerance, bool wants_logits, FloatArray out, int threads) {
  const LabelView<const float> from = checked(field, unary);
  const LabelView<float> to = writable(field, &out);
  UnrollOptions options;
  options.iterations = iterations;
  options.differentiated = differentiated;
  options.every = every;
  options.fixed_point = fixed_point;
  options.tolerance = tolerance;
  options.wants_logits = wants_logits;
  options.threads = threads;
  options.between_iterations = look_at_signals;
  const py::gil_scoped_release release;
  const Unrolling result = field.run(from, is_energy, options, to);
  return {result.iterations, result.max_change};
}

// What each kernel's features are to get; arrays without elements ask for nothing.
std::vector<FeatureRequest> requests(const UnrolledField& field,
                                     const std::vector<ContiguousFloats>& features, int form,
                                     std::vector<FloatArray>* out) {
  expect(static_cast<int>(features.size()) == field.n_kernels(),
         "expected features for each kernel");
  expect(form >= 0 && form <= 2, "unknown form of feature gradients");
  std::vector<FeatureRequest> requests(features.size());
  for (std::size_t k = 0; k < features.size(); ++k) {
    const bool is_wanted = form > 0 && features[k].size() > 0;
    const std::int64_t dim = field.lattice(static_cast<int>(k)).dim;
    if (is_wanted) {
      expect(features[k].ndim() == 2 && features[k].shape(0) == field.n_points() &&
                 features[k].shape(1) == dim,
             "expected (N, d) features of the lattice");
    }
    out->emplace_back(
        std::vector<py::ssize_t>{is_wanted ? field.n_points() : 0, static_cast<py::ssize_t>(dim)});
    if (is_wanted) {
      requests[k] = {features[k].data(), static_cast<FeatureGradient>(form),
                     out->back().mutable_data()};
    }
  }
  return requests;
}

Doubles coupling_array(const UnrolledField& field, int kernel, const std::vector<double>& values) {
  const py::ssize_t n = field.n_labels();
  Doubles out(field.is_full(kernel) ? std::vector<py::ssize_t>{n, n} : std::vector<py::ssize_t>{n});
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

std::tuple<std::vector<Doubles>, std::vector<FloatArray>, std::vector<double>, int, bool> back(
    UnrolledField& field, const FloatArray& gradient, FloatArray out,
    const std::vector<ContiguousFloats>& features, int form, const std::vector<int>& probe_kernels,
    const Lattices& probe_lattices, int most_terms, float tolerance, int threads) {
  const LabelView<const float> from = checked(field, gradient);
  const LabelView<float> to = writable(field, &out);
  std::vector<FloatArray> feature_gradients;
  BackOptions options;
  options.features = requests(field, features, form, &feature_gradients);
  expect(probe_kernels.size() == probe_lattices.size(), "expected a lattice for each probe");
  for (std::size_t i = 0; i < probe_kernels.size(); ++i) {
    expect(probe_kernels[i] >= 0 && probe_kernels[i] < field.n_kernels() &&
               probe_lattices[i]->n_points == field.n_points(),
           "expected probes of kernels there are, over the field's points");
    options.probes.push_back({probe_kernels[i], probe_lattices[i]});
  }
  options.most_terms = most_terms;
  options.tolerance = tolerance;
  options.threads = threads;
  options.between_iterations = look_at_signals;
  Gradients result;
  {
    const py::gil_scoped_release release;
    result = field.back(from, options, to);
  }
  std::vector<Doubles> couplings;
  for (std::size_t k = 0; k < result.couplings.size(); ++k) {
    couplings.push_back(coupling_array(field, static_cast<int>(k), result.couplings[k]));
  }
  return {couplings, feature_gradients, result.probes, result.terms, result.converged};
}

}  // namespace

void bind_gradients(py::module_& module) {
  module.attr("FEATURES_NONE") = static_cast<int>(FeatureGradient::none);
  module.attr("FEATURES_EXACT") = static_cast<int>(FeatureGradient::exact);
  module.attr("FEATURES_SMOOTH") = static_cast<int>(FeatureGradient::smooth);
  py::class_<UnrolledField>(module, "UnrolledField")
      .def(py::init(&build), py::arg("n_points"), py::arg("n_labels"), py::arg("lattices"),
           py::arg("normalizations"), py::arg("couplings"), py::arg("threads"))
      .def_property_readonly("nbytes", &UnrolledField::nbytes)
      .def("run", &run, py::arg("unary").noconvert(), py::arg("is_energy"), py::arg("iterations"),
           py::arg("differentiated"), py::arg("every"), py::arg("fixed_point"),
           py::arg("tolerance"), py::arg("wants_logits"), py::arg("out").noconvert(),
           py::arg("threads"))
      .def("back", &back, py::arg("gradient").noconvert(), py::arg("out").noconvert(),
           py::arg("features"), py::arg("form"), py::arg("probe_kernels"),
           py::arg("probe_lattices"), py::arg("most_terms"), py::arg("tolerance"),
           py::arg("threads"));
}

}  // namespace bindings
}  // namespace crfseg

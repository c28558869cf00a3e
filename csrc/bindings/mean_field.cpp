// SPDX-License-Identifier: MIT
#include "mean_field.h"

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <optional>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"

namespace crfseg {
namespace bindings {
namespace {

using Labels = py::array_t<std::int32_t, py::array::c_style>;
using OptionalFloats = std::optional<FloatArray>;

LabelView<const float> checked(const MeanField& field, const FloatArray& array) {
  const LabelView<const float> view = view_of(array);
  expect(view.n_labels == field.n_labels() && view.n_points == field.n_points(),
         "array does not have the field's (C, N)");
  return view;
}

using Report = std::tuple<std::int64_t, float, std::int64_t, float, std::int64_t>;

Report as_tuple(const UnaryReport& report) {
  return {report.bad, report.low, report.low_at, report.off, report.off_at};
}

Report set_unary(MeanField& field, const FloatArray& values, int kind, float clip, int threads) {
  const LabelView<const float> view = checked(field, values);
  UnaryReport report;
  {
    const py::gil_scoped_release release;
    report = field.set_unary(view, static_cast<UnaryKind>(kind), clip, threads);
  }
  return as_tuple(report);
}

// (C, n) scores of the field's labels; of foreground probabilities there is one row for two.
LabelView<const float> scores_of(const MeanField& field, const FloatArray& array, UnaryKind kind) {
  LabelView<const float> view = view_of(array);
  if (kind == UnaryKind::foreground && view.n_labels == 1) {
    view.n_labels = 2;
    view.label_stride = 0;
  }
  expect(view.n_labels == field.n_labels(), "array does not have the field's C");
  return view;
}

void lend_unary(MeanField& field, const FloatArray& values, int kind, float clip) {
  const auto of_kind = static_cast<UnaryKind>(kind);
  const LabelView<const float> view = scores_of(field, values, of_kind);
  expect(view.n_points == field.n_points(), "array does not have the field's N");
  field.lend_unary(view, of_kind, clip);
}

Report set_coarse_unary(MeanField& field, const FloatArray& scores, std::int64_t columns, int kind,
                        float clip, std::int64_t height, std::int64_t width, bool align_corners,
                        int threads) {
  const auto of_kind = static_cast<UnaryKind>(kind);
  const LabelView<const float> view = scores_of(field, scores, of_kind);
  expect(columns > 0 && view.n_points > 0 && view.n_points % columns == 0,
         "expected scores of whole rows");
  expect(height > 0 && width > 0 && height * width == field.n_points(),
         "expected an image of the field's points");
  const CoarseGrid grid{view.n_points / columns, columns, height, width, align_corners};
  UnaryReport report;
  {
    const py::gil_scoped_release release;
    report = field.set_coarse_unary(view, grid, of_kind, clip, threads);
  }
  return as_tuple(report);
}

void lend_labels(MeanField& field, const Labels& labels, float given, float other, float unknown,
                 int forbidden) {
  expect(labels.size() == field.n_points(), "expected (N,) labels");
  field.lend_labels(labels.data(), {given, other, unknown, forbidden});
}

void add_kernel(MeanField& field, std::shared_ptr<Lattice> lattice, int normalization, float weight,
                const std::optional<ContiguousFloats>& mu, bool exclude_self, int threads) {
  expect(lattice->n_points == field.n_points(), "lattice and field differ in points");
  expect(normalization >= 0 && normalization <= 3, "unknown normalization");
  Compatibility compatibility = compatibility_of(mu, field.n_labels());
  const py::gil_scoped_release release;
  field.add_kernel(std::move(lattice), static_cast<Normalization>(normalization), weight,
                   std::move(compatibility), exclude_self, threads);
}

std::tuple<int, float, std::vector<double>, std::int64_t> infer(
    MeanField& field, const OptionalFloats& start, int iterations, float tolerance,
    const Solver& solver, bool trace, bool skip, OptionalFloats out, std::optional<Labels> labels,
    const std::optional<py::typing::Callable<void(Report)>>& after_reading,
    const std::optional<py::typing::Callable<void()>>& between_iterations, int threads) {
  LabelView<const float> from;
  if (start) from = checked(field, *start);
  LabelView<float> to;
  if (out) {
    const LabelView<const float> view = checked(field, *out);
    to = {out->mutable_data(), view.n_labels, view.n_points, view.label_stride, view.point_stride};
  }
  if (labels) expect(labels->size() == field.n_points(), "expected (N,) labels");
  std::int32_t* map = labels ? labels->mutable_data() : nullptr;
  InferenceOptions options;
  options.iterations = iterations;
  options.tolerance = tolerance;
  options.solver = solver;
  options.trace = trace;
  options.skip = skip;
  options.threads = threads;
  options.between_iterations = [&] {
    const py::gil_scoped_acquire acquire;
    raise_pending_signals();
    if (between_iterations) (*between_iterations)();
  };
  if (after_reading) {
    options.after_reading = [&](const UnaryReport& report) {
      const py::gil_scoped_acquire acquire;
      (*after_reading)(as_tuple(report));
    };
  }
  Inference result;
  {
    const py::gil_scoped_release release;
    result = field.infer(from, options, to, map);
  }
  return {result.iterations, result.max_change, result.trace, result.evaluations};
}

}  // namespace

void bind_mean_field(py::module_& module) {
  module.attr("UNARY_ENERGIES") = static_cast<int>(UnaryKind::energies);
  module.attr("UNARY_PROBABILITIES") = static_cast<int>(UnaryKind::probabilities);
  module.attr("UNARY_LOGITS") = static_cast<int>(UnaryKind::logits);
  module.attr("UNARY_FOREGROUND") = static_cast<int>(UnaryKind::foreground);
  module.attr("STEPS_FIXED") = static_cast<int>(Solver::Steps::fixed);
  module.attr("STEPS_DIMINISHING") = static_cast<int>(Solver::Steps::diminishing);
  module.attr("STEPS_LINE_SEARCH") = static_cast<int>(Solver::Steps::line_search);
  py::class_<Solver>(module, "Solver")
      .def(py::init([](float damping, bool euclidean, int steps, float step, float strength) {
             return Solver{damping, euclidean, static_cast<Solver::Steps>(steps), step, strength};
           }),
           py::arg("damping"), py::arg("euclidean"), py::arg("steps"), py::arg("step"),
           py::arg("strength"));
  py::class_<MeanField>(module, "MeanField")
      .def(py::init<std::int64_t, int>(), py::arg("n_points"), py::arg("n_labels"))
      .def_property_readonly("nbytes", &MeanField::nbytes)
      .def("set_unary", &set_unary, py::arg("values").noconvert(), py::arg("kind"), py::arg("clip"),
           py::arg("threads"))
      .def("lend_unary", &lend_unary, py::arg("values").noconvert(), py::arg("kind"),
           py::arg("clip"))
      .def("set_coarse_unary", &set_coarse_unary, py::arg("scores").noconvert(), py::arg("columns"),
           py::arg("kind"), py::arg("clip"), py::arg("height"), py::arg("width"),
           py::arg("align_corners"), py::arg("threads"))
      .def("lend_labels", &lend_labels, py::arg("labels").noconvert(), py::arg("given"),
           py::arg("other"), py::arg("unknown"), py::arg("forbidden"))
      .def("add_kernel", &add_kernel, py::arg("lattice"), py::arg("normalization"),
           py::arg("weight"), py::arg("compatibility").none(true), py::arg("exclude_self"),
           py::arg("threads"))
      .def("clear_kernels", &MeanField::clear_kernels, py::call_guard<py::gil_scoped_release>())
      .def("infer", &infer, py::arg("start").noconvert().none(true), py::arg("iterations"),
           py::arg("tolerance"), py::arg("solver"), py::arg("trace"), py::arg("skip"),
           py::arg("out").noconvert().none(true), py::arg("labels").noconvert().none(true),
           py::arg("after_reading").none(true), py::arg("between_iterations").none(true),
           py::arg("threads"))
      .def(
          "free_energy",
          [](MeanField& field, const FloatArray& q, int threads) {
            const LabelView<const float> view = checked(field, q);
            const py::gil_scoped_release release;
            return field.free_energy(view, threads);
          },
          py::arg("q"), py::arg("threads"))
      .def(
          "expected_energy",
          [](MeanField& field, const FloatArray& q, int threads) {
            const LabelView<const float> view = checked(field, q);
            const py::gil_scoped_release release;
            return field.expected_energy(view, threads);
          },
          py::arg("q"), py::arg("threads"))
      .def(
          "energy",
          [](MeanField& field, const Labels& labels, int threads) {
            expect(labels.size() == field.n_points(), "expected (N,) labels");
            const py::gil_scoped_release release;
            return field.energy(labels.data(), threads);
          },
          py::arg("labels"), py::arg("threads"));
}

}  // namespace bindings
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Mean fields that are differentiated by both twins.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/gradients.h"
#include "gradients.h"
#include "twins.h"

namespace coupled {

namespace cuda = twins::cuda;
using crfseg::FeatureGradient;
using crfseg::LabelView;
using crfseg::Normalization;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Kernel {
  int dim = 2;
  bool is_shared = false;  // one lattice for all items
  Floats features;         // (n_items or 1, n_points, dim)
  Normalization normalization = Normalization::symmetric;
  bool is_full = false;
  Floats coupling;
  std::vector<int> fill;
  int passes = 1;
  bool has_room = false;  // on a device, for more vertices than there are

  double gain() const { return crfseg::lattice_gain(dim, fill, passes); }
};

struct Problem {
  std::int64_t n_items = 1, width = 0, n_points = 1;
  int n_labels = 3;
  std::vector<Kernel> kernels;
  Floats unary, gradient;  // (n_items, n_labels, n_points)
  bool is_energy = false;

  std::int64_t of_item() const { return n_labels * n_points; }
};

struct Asked {
  cuda::UnrollOptions run;
  FeatureGradient form = FeatureGradient::exact;
  bool probes = true;
  bool by_point = false;  // points, then labels
};

struct Found {
  Floats out, unary;
  std::vector<Floats> features;
  std::vector<Doubles> couplings;
  Doubles probes;
  int iterations = 0, terms = 0;
  float max_change = 0.0F;
  bool converged = true;
};

// Points of an image of the width, or in a row, with noise as their colours.
inline Kernel kernel_of(const Problem& problem, int dim, bool is_shared, std::uint64_t seed) {
  Kernel kernel;
  kernel.dim = dim;
  kernel.is_shared = is_shared;
  check::Random random(seed);
  const std::int64_t width = problem.width > 0 ? problem.width : 12;
  for (std::int64_t i = 0; i < (is_shared ? 1 : problem.n_items) * problem.n_points; ++i) {
    const std::int64_t p = i % problem.n_points;
    const float block = static_cast<float>((p / width / 5 + p % width / 6) % 3);
    for (int axis = 0; axis < dim; ++axis) {
      const std::int64_t place = axis == 0 ? p % width : p / width;
      kernel.features.push_back(axis < 2 ? 0.2F * static_cast<float>(place)
                                         : block + random.uniform(0.0F, 0.5F));
    }
  }
  return kernel;
}

inline void couple(Kernel* kernel, int n_labels, bool is_full, std::uint64_t seed) {
  check::Random random(seed);
  kernel->is_full = is_full;
  kernel->coupling = random.uniforms(is_full ? n_labels * n_labels : n_labels, -0.2F, 0.6F);
}

inline Problem problem_of(std::int64_t n_items, std::int64_t height, std::int64_t width,
                          int n_labels) {
  Problem problem;
  problem.n_items = n_items;
  problem.width = width;
  problem.n_points = height * width;
  problem.n_labels = n_labels;
  check::Random random(5);
  problem.unary = random.uniforms(n_items * problem.of_item(), -2.0F, 2.0F);
  problem.gradient = random.uniforms(n_items * problem.of_item(), -1.0F, 1.0F);
  problem.kernels = {kernel_of(problem, 2, true, 1), kernel_of(problem, 5, false, 2)};
  couple(&problem.kernels[0], n_labels, true, 3);
  couple(&problem.kernels[1], n_labels, false, 4);
  return problem;
}

inline Kernel widened(Kernel kernel) {
  for (float& feature : kernel.features) feature *= 1.05F;
  return kernel;
}

inline std::shared_ptr<crfseg::Lattice> cpu_lattice(const Problem& problem, const Kernel& kernel,
                                                    std::int64_t item) {
  const std::int64_t first = kernel.is_shared ? 0 : item * problem.n_points * kernel.dim;
  return std::make_shared<crfseg::Lattice>(kernel.features.data() + first, problem.n_points,
                                           kernel.dim, kernel.fill, kernel.passes, 1);
}

inline std::shared_ptr<cuda::Lattice> device_lattice(const Problem& problem, const Kernel& kernel,
                                                     int side) {
  cuda::Points points;
  points.n_items = kernel.is_shared ? 1 : problem.n_items;
  points.n_points = problem.n_points;
  points.dim = kernel.dim;
  points.features = kernel.features.data();
  points.width = problem.width;
  for (int axis = 0; axis < kernel.dim; ++axis) {
    points.lo[axis] = points.hi[axis] = kernel.features[static_cast<std::size_t>(axis)];
  }
  for (std::size_t i = 0; i < kernel.features.size(); ++i) {
    const std::size_t axis = i % static_cast<std::size_t>(kernel.dim);
    points.lo[axis] = std::min(points.lo[axis], kernel.features[i]);
    points.hi[axis] = std::max(points.hi[axis], kernel.features[i]);
  }
  cuda::BuildOptions options = twins::options_of(kernel.dim, kernel.fill, kernel.passes);
  options.side = side;
  auto lattice = std::make_shared<cuda::Lattice>(points, options, twins::allocate(), nullptr);
  if (kernel.has_room) {
    options.room_for_rows = lattice->view().n_rows + 40;
    options.room_for_vertices = lattice->view().n_vertices + 5;
    lattice = std::make_shared<cuda::Lattice>(points, options, twins::allocate(), nullptr);
  }
  if (!kernel.is_shared) return lattice;
  return std::make_shared<cuda::Lattice>(lattice->repeated(problem.n_items));
}

inline Found empty(const Problem& problem) {
  Found found;
  found.out.assign(problem.unary.size(), NAN);
  found.unary.assign(problem.unary.size(), NAN);
  for (const Kernel& kernel : problem.kernels) {
    found.features.emplace_back(kernel.features.size(), NAN);
    found.couplings.emplace_back(kernel.coupling.size(), NAN);
  }
  return found;
}

template <class T>
LabelView<T> item_of(const Problem& problem, bool by_point, T* data, std::int64_t item) {
  T* first = data + item * problem.of_item();
  if (by_point) return {first, problem.n_labels, problem.n_points, 1, problem.n_labels};
  return {first, problem.n_labels, problem.n_points, problem.n_points, 1};
}

template <class T>
cuda::BatchView<T> view_of(const Problem& problem, bool by_point, T* data) {
  if (by_point) return {data, problem.of_item(), 1, problem.n_labels};
  return {data, problem.of_item(), problem.n_points, 1};
}

inline void add_to(Doubles* sums, const Doubles& values) {
  for (std::size_t i = 0; i < values.size(); ++i) (*sums)[i] += values[i];
}

// One item; what is summed over items is added.
inline void add_cpu_item(const Problem& problem, const Asked& asked, std::int64_t item,
                         Found* found) {
  std::vector<crfseg::CoupledKernel> kernels;
  crfseg::BackOptions back;
  std::vector<Floats> features;
  for (const Kernel& kernel : problem.kernels) {
    kernels.push_back({cpu_lattice(problem, kernel, item),
                       kernel.normalization,
                       {kernel.is_full, kernel.coupling}});
    features.emplace_back(static_cast<std::size_t>(problem.n_points * kernel.dim));
  }
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    const Kernel& kernel = problem.kernels[k];
    const std::int64_t first = kernel.is_shared ? 0 : item * problem.n_points * kernel.dim;
    back.features.push_back({kernel.features.data() + first, asked.form, features[k].data()});
    if (asked.probes) {
      back.probes.push_back({static_cast<int>(k), cpu_lattice(problem, widened(kernel), item)});
    }
  }
  crfseg::UnrolledField field(problem.n_points, problem.n_labels, kernels, 1);
  crfseg::UnrollOptions run;
  run.iterations = asked.run.iterations;
  run.differentiated = asked.run.differentiated;
  run.every = asked.run.every;
  run.fixed_point = asked.run.fixed_point;
  run.tolerance = asked.run.tolerance;
  run.wants_logits = asked.run.wants_logits;
  const crfseg::Unrolling unrolling =
      field.run(item_of(problem, asked.by_point, problem.unary.data(), item), problem.is_energy,
                run, item_of(problem, asked.by_point, found->out.data(), item));
  const crfseg::Gradients gradients =
      field.back(item_of(problem, asked.by_point, problem.gradient.data(), item), back,
                 item_of(problem, asked.by_point, found->unary.data(), item));
  found->iterations = unrolling.iterations;
  found->max_change = unrolling.max_change;
  found->terms = gradients.terms;
  found->converged = found->converged && gradients.converged;
  add_to(&found->probes, gradients.probes);
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    add_to(&found->couplings[k], gradients.couplings[k]);
    float* to = found->features[k].data();
    if (!problem.kernels[k].is_shared) to += item * static_cast<std::int64_t>(features[k].size());
    for (std::size_t i = 0; i < features[k].size(); ++i) to[i] += features[k][i];
  }
}

inline Found on_cpu(const Problem& problem, const Asked& asked) {
  Found found = empty(problem);
  found.probes.assign(asked.probes ? problem.kernels.size() : 0, 0.0);
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    std::fill(found.features[k].begin(), found.features[k].end(), 0.0F);
    std::fill(found.couplings[k].begin(), found.couplings[k].end(), 0.0);
  }
  for (std::int64_t item = 0; item < problem.n_items; ++item) {
    add_cpu_item(problem, asked, item, &found);
  }
  return found;
}

struct DeviceField {
  DeviceField(const Problem& problem, bool with_probes) {
    int side = 16;
    for (const Kernel& kernel : problem.kernels) {
      side = std::min(side, cuda::Tiling::side_for(kernel.dim));
    }
    std::vector<cuda::CoupledKernel> kernels;
    for (const Kernel& kernel : problem.kernels) {
      kernels.push_back({device_lattice(problem, kernel, side), kernel.normalization, kernel.gain(),
                         kernel.is_full, kernel.coupling.data()});
      if (!with_probes) continue;
      cuda::Probe probe;
      probe.kernel = static_cast<int>(probes.size());
      probe.lattice = device_lattice(problem, widened(kernel), side);
      probe.gain = kernel.gain();
      probes.push_back(probe);
    }
    const cuda::Tiling tiling =
        cuda::Tiling::of(problem.n_items, problem.n_points, problem.width, side);
    field = std::make_unique<cuda::UnrolledField>(tiling, problem.n_labels, kernels,
                                                  twins::allocate(), nullptr);
  }
  std::unique_ptr<cuda::UnrolledField> field;
  std::vector<cuda::Probe> probes;
};

inline void go_back(const Problem& problem, const Asked& asked, DeviceField* device, Found* found) {
  cuda::BackOptions back;
  found->probes.assign(device->probes.size(), NAN);
  back.probes = device->probes;
  for (std::size_t i = 0; i < back.probes.size(); ++i) back.probes[i].out = &found->probes[i];
  for (std::size_t k = 0; k < problem.kernels.size(); ++k) {
    back.features.push_back(
        {problem.kernels[k].features.data(), asked.form, found->features[k].data()});
    back.couplings.push_back(found->couplings[k].data());
  }
  device->field->back(view_of(problem, asked.by_point, problem.gradient.data()), back,
                      view_of(problem, asked.by_point, found->unary.data()));
  found->terms = device->field->series().terms;
  found->converged = device->field->series().converged;
}

inline Found on_device(const Problem& problem, const Asked& asked) {
  Found found = empty(problem);
  DeviceField device(problem, asked.probes);
  device.field->run(view_of(problem, asked.by_point, problem.unary.data()), problem.is_energy,
                    asked.run, view_of(problem, asked.by_point, found.out.data()));
  found.iterations = device.field->unrolling().iterations;
  found.max_change = device.field->unrolling().max_change;
  go_back(problem, asked, &device, &found);
  return found;
}

}  // namespace coupled

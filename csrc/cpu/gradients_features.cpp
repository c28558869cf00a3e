// SPDX-License-Identifier: MIT
#include "cpu/gradients_features.h"

#include <algorithm>
#include <numeric>

#include "cpu/corners.h"
#include "cpu/dispatch.h"
#include "cpu/features.h"
#include "cpu/gradients_kernel.h"
#include "cpu/simplex_frame.h"
#include "math/permutohedral.h"
#include "parallel.h"

namespace crfseg {
namespace {

template <class F>
void each_point(const Strips& strips, int threads, F&& f) {
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    for (std::int64_t p = strips.begin(s); p < strips.end(s); ++p) f(s, p);
  });
}

// From the mass to what the normaliser is filtered with: times 1/n, or 1/2n.
void weigh_mass(const CoupledTerm& term, int threads, float* mass) {
  const bool is_root = term.normalization() == Normalization::symmetric;
  each_point(term.lattice().strips, threads, [&](std::int64_t, std::int64_t p) {
    const bool on_slice = scales_slice(term.normalization());
    const float scale = on_slice ? *term.scales().slice(p) : *term.scales().splat(p);
    mass[p] *= is_root ? 0.5F * scale * scale : scale;
  });
}

// One channel's rows of the lattice, blurred; no values stand for ones.
VertexRows blurred_channel(const Lattice& lattice, const float* values, bool transpose,
                           int threads) {
  VertexRows rows(lattice, 1);
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = lattice.strips.begin(s), n = lattice.strips.end(s) - begin;
    const std::vector<float> ones(values != nullptr ? 0 : static_cast<std::size_t>(n), 1.0F);
    active_kernels().splat(corners_of(lattice, s), nullptr,
                           values != nullptr ? values + begin : ones.data(), n, 1,
                           rows.cleared_rows(s));
  });
  VertexRows::blur({&rows}, transpose, threads);
  return rows;
}

// Calls f(first, batch) with the ranks of the coordinates of all points from begin to end, in the
// simplices that the lattice was built of.
template <class F>
void each_simplex(const kernels::SimplexFrame& frame, const Features& features, std::int64_t begin,
                  std::int64_t end, F&& f) {
  Buffer<float> weights(kernels::simplex_batch * (frame.dim + 1));
  kernels::SimplexBatch batch{};
  batch.weight = weights.data();
  for (std::int64_t first = begin; first < end; first += kernels::simplex_batch) {
    batch.count = static_cast<int>(std::min<std::int64_t>(kernels::simplex_batch, end - first));
    features.load(first, batch.count, batch.feature);
    active_kernels().find_simplices(frame, &batch);
    f(first, batch);
  }
}

kernels::SimplexFrame frame_of(const Lattice& lattice) {
  const float nowhere[permutohedral::max_dim] = {};
  return simplex_frame(KeyRanges::of(lattice.dim, lattice.passes, 0, nowhere, nowhere), false);
}

// What every corner's weight is worth becomes what a step along every feature is: E^T of what steps
// along the coordinates are, along which a weight falls and the next one rises.
void pull(const kernels::SimplexFrame& frame, const kernels::SimplexBatch& batch, int i,
          const float* corner, float* gradient) {
  const int dim = frame.dim;
  const float unit = 1.0F / static_cast<float>(dim + 1);
  float before = 0.0F;  // of the coordinates up to this one
  for (int j = 0; j <= dim; ++j) {
    const int rank = batch.rank[j][i];
    const float rising = corner[rank == 0 ? 0 : dim + 1 - rank];
    const float along = (corner[dim - rank] - rising) * unit;
    if (j > 0) gradient[j - 1] = frame.scale[j - 1] * (before - static_cast<float>(j) * along);
    before += along;
  }
}

}  // namespace

ExactFeatures::ExactFeatures(const CoupledTerm& term, const FeatureRequest& request, int threads)
    : term_(term), request_(request), threads_(threads) {
  corner_.resize(term.lattice().n_points * (term.lattice().dim + 1));
  mass_.resize(term.lattice().n_points);
  std::fill(corner_.begin(), corner_.end(), 0.0F);
  std::fill(mass_.begin(), mass_.end(), 0.0F);
}

void ExactFeatures::lend(std::int64_t first_point, kernels::AdjointKernel* kernel) {
  kernel->corner = corner_.data() + first_point * (term_.lattice().dim + 1);
  kernel->mass = mass_.data() + first_point;
  kernel->slice_has_mass = scales_slice(term_.normalization());
  kernel->splat_has_mass = scales_splat(term_.normalization());
}

void ExactFeatures::take_normalizer_out() {
  const Lattice& lattice = term_.lattice();
  weigh_mass(term_, threads_, mass_.data());
  const VertexRows ones = blurred_channel(lattice, nullptr, false, threads_);
  const VertexRows masses = blurred_channel(lattice, mass_.data(), true, threads_);
  const float gain = ones.gain();
  const int corners = lattice.dim + 1;
  parallel_for(lattice.strips.count, threads_, [&](std::int64_t s) {
    const float *of_ones = ones.blurred(s), *of_masses = masses.blurred(s);
    for (std::int64_t p = lattice.strips.begin(s); p < lattice.strips.end(s); ++p) {
      for (int k = 0; k < corners; ++k) {
        const std::uint32_t row = lattice.row_of(s, p, k);
        corner_[p * corners + k] -= gain * (mass_[p] * of_ones[row] + of_masses[row]);
      }
    }
  });
}

void ExactFeatures::finish() {
  const Lattice& lattice = term_.lattice();
  if (term_.normalization() != Normalization::none) take_normalizer_out();
  const Features features(request_.features, lattice.dim);
  const kernels::SimplexFrame frame = frame_of(lattice);
  const int dim = lattice.dim;
  parallel_for(lattice.strips.count, threads_, [&](std::int64_t s) {
    each_simplex(frame, features, lattice.strips.begin(s), lattice.strips.end(s),
                 [&](std::int64_t first, const kernels::SimplexBatch& batch) {
                   for (int i = 0; i < batch.count; ++i) {
                     pull(frame, batch, i, corner_.data() + (first + i) * (dim + 1),
                          request_.out + (first + i) * dim);
                   }
                 });
  });
}

SmoothFeatures::SmoothFeatures(const CoupledTerm& term, const FeatureRequest& request, int width,
                               int threads)
    : term_(term), request_(request), width_(width), threads_(threads) {
  mass_.resize(term.lattice().n_points);
  std::fill(mass_.begin(), mass_.end(), 0.0F);
  std::fill_n(request_.out, term.lattice().n_points * term.lattice().dim, 0.0F);
}

void SmoothFeatures::add(const float* a, const float* b) {
  const Lattice& lattice = term_.lattice();
  Buffer<float> scaled_a(lattice.n_points * width_), scaled_b(lattice.n_points * width_);
  each_point(lattice.strips, threads_, [&](std::int64_t, std::int64_t p) {
    const float *on_slice = term_.scales().slice(p), *on_splat = term_.scales().splat(p);
    for (std::int64_t i = p * width_; i < (p + 1) * width_; ++i) {
      scaled_a[i] = on_slice != nullptr ? a[i] * *on_slice : a[i];
      scaled_b[i] = on_splat != nullptr ? b[i] * *on_splat : b[i];
    }
  });
  add_scaled(scaled_a.data(), scaled_b.data(), width_, 1.0F);
}

// Adds sign * g(a, b), and the mass where sign is positive.
void SmoothFeatures::add_scaled(const float* a, const float* b, int width, float sign) {
  const Lattice& lattice = term_.lattice();
  const int dim = lattice.dim;
  const Normalization how = term_.normalization();
  const std::int64_t size = lattice.n_points * width;
  Buffer<float> values(size), filtered_a(size), filtered_b(size);
  // The gain that gives unnormalised filters the height 1 stays out of those that are normalised.
  const double gain = lattice_gain(dim, lattice.fill, lattice.passes);
  const float unit = how == Normalization::none ? 1.0F : static_cast<float>(1.0 / gain);
  const auto filter = [&](const float* of, int axis, bool transpose, Buffer<float>* out) {
    each_point(lattice.strips, threads_, [&](std::int64_t, std::int64_t p) {
      const float by = unit * (axis < 0 ? 1.0F : request_.features[p * dim + axis]);
      for (std::int64_t i = p * width; i < (p + 1) * width; ++i) values[i] = by * of[i];
    });
    lattice_filter(lattice, Normalization::none, transpose, values.data(), width, threads_,
                   out->data());
  };
  const auto product = [&](std::int64_t p, const float* x, const Buffer<float>& y) {
    return std::inner_product(x + p * width, x + (p + 1) * width, y.data() + p * width, 0.0F);
  };
  filter(a, -1, true, &filtered_a);
  filter(b, -1, false, &filtered_b);
  Buffer<float> still(lattice.n_points);
  each_point(lattice.strips, threads_, [&](std::int64_t, std::int64_t p) {
    const float of_slice = product(p, a, filtered_b), of_splat = product(p, b, filtered_a);
    still[p] = of_slice + of_splat;
    if (sign < 0.0F) return;
    mass_[p] += (scales_slice(how) ? of_slice : 0.0F) + (scales_splat(how) ? of_splat : 0.0F);
  });
  for (int axis = 0; axis < dim; ++axis) {
    filter(a, axis, true, &filtered_a);
    filter(b, axis, false, &filtered_b);
    each_point(lattice.strips, threads_, [&](std::int64_t, std::int64_t p) {
      const float moved = product(p, a, filtered_b) + product(p, b, filtered_a);
      request_.out[p * dim + axis] += sign * (moved - request_.features[p * dim + axis] * still[p]);
    });
  }
}

void SmoothFeatures::finish() {
  if (term_.normalization() == Normalization::none) return;
  weigh_mass(term_, threads_, mass_.data());
  const std::vector<float> ones(static_cast<std::size_t>(mass_.size()), 1.0F);
  add_scaled(mass_.data(), ones.data(), 1, -1.0F);
}

Buffer<float> coupled_rows(const CoupledTerm& term, const float* delta, int width, int threads) {
  const Strips& strips = term.lattice().strips;
  Buffer<float> rows(strips.n_points * width);
  parallel_for(strips.count, threads, [&](std::int64_t s) {
    const std::int64_t first = strips.begin(s) * width;
    term.couple_transposed(delta + first, strips.end(s) - strips.begin(s), rows.data() + first);
  });
  return rows;
}

double filtered_product(const Lattice& lattice, Normalization normalization, const float* a,
                        const float* b, int width, int threads) {
  Buffer<float> filtered(lattice.n_points * width);
  lattice_filter(lattice, normalization, false, b, width, threads, filtered.data());
  std::vector<double> parts(static_cast<std::size_t>(lattice.strips.count), 0.0);
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    double sum = 0.0;
    for (std::int64_t i = lattice.strips.begin(s) * width; i < lattice.strips.end(s) * width; ++i) {
      sum += static_cast<double>(a[i]) * static_cast<double>(filtered[i]);
    }
    parts[s] = sum;
  });
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

}  // namespace crfseg

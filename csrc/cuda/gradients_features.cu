// SPDX-License-Identifier: MIT
#include <algorithm>

#include "cuda/gradients_features.h"
#include "cuda/grid.h"
#include "cuda/passes.cuh"
#include "cuda/sums.cuh"
#include "cuda/with_dim.h"
#include "math/key_ranges.h"

namespace crfseg {
namespace cuda {
namespace {

// <values of a slot, factor times the rows at its corners>, and where that goes.
struct Products {
  LatticeView lattice;
  int width = 0;
  const float* values = nullptr;  // (slots, width)
  const float* rows = nullptr;    // (vertices, width)
  const float* factor = nullptr;  // (width) or null
  const float* scale = nullptr;   // (built slots) or null
  float gain = 1.0F;
  float* corner = nullptr;
  float* mass = nullptr;
  float* pair = nullptr;
  bool starts = false;
};

CRFSEG_DEVICE float product_of(const Products& p, const float* values, const float* row) {
  Quad sum = no_quad();
  for (int x = 0; x < p.width; x += 4) {
    Quad value = load_quad(values + x);
    if (p.factor != nullptr) value = load_quad(p.factor + x) * value;
    sum = sum + value * load_quad(row + x);
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

CRFSEG_KERNEL note_products(CRFSEG_CONSTANT Products p) {
  const LatticeView& lattice = p.lattice;
  const Tiling& tiling = lattice.tiling;
  const std::int64_t slots = tiling.size(), corners = lattice.dim + 1;
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / slots, slot = i % slots;
    if (tiling.point(tile, static_cast<int>(slot)) < 0) continue;
    const std::int64_t built = lattice.built_tile(tile), first = built * slots * corners + slot;
    const float* rows = p.rows + lattice.copy_of(tile) * lattice.n_vertices * p.width;
    const float scale = p.scale != nullptr ? p.gain * p.scale[built * slots + slot] : p.gain;
    float total = 0.0F;
    for (std::int64_t k = 0; k < corners; ++k) {
      const std::int64_t vertex = lattice.corner_vertex[first + k * slots];
      const float product = scale * product_of(p, p.values + i * p.width, rows + vertex * p.width);
      total += lattice.corner_weight[first + k * slots] * product;
      if (p.corner != nullptr) p.corner[(tile * corners + k) * slots + slot] += product;
    }
    if (p.mass != nullptr) p.mass[i] += total;
    if (p.pair != nullptr) p.pair[i] = p.starts ? total : p.pair[i] + total;
  }
}

// From the mass to what the normaliser is filtered with: times 1/n, or 1/2n.
CRFSEG_KERNEL lay_out_mass(CRFSEG_CONSTANT LatticeView lattice, const float* mass,
                           const float* scale, bool is_root, float* rows, float* ones) {
  const Tiling& tiling = lattice.tiling;
  for (std::int64_t i = grid_first(); i < tiling.n_slots(); i += grid_stride()) {
    const std::int64_t tile = i / tiling.size(), slot = i % tiling.size();
    const bool is_there = tiling.point(tile, static_cast<int>(slot)) >= 0;
    const float own = is_there ? scale[lattice.built_tile(tile) * tiling.size() + slot] : 0.0F;
    const float weighed = is_there ? mass[i] * (is_root ? 0.5F * own * own : own) : 0.0F;
    store_quad(rows + 4 * i, {weighed, 0.0F, 0.0F, 0.0F});
    store_quad(ones + 4 * i, {1.0F, 0.0F, 0.0F, 0.0F});
  }
}

// Where a slot's point has its features, or -1.
CRFSEG_DEVICE std::int64_t place_of_slot(const Tiling& tiling, std::int64_t i) {
  const std::int64_t tile = i / tiling.size();
  const std::int64_t point = tiling.point(tile, static_cast<int>(i % tiling.size()));
  return point < 0 ? -1 : tile / tiling.per_item * tiling.n_points + point;
}

// Adds up what items share.
CRFSEG_KERNEL add_copies(std::int64_t n, std::int64_t n_copies, float* values) {
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    float sum = values[i];
    for (std::int64_t copy = 1; copy < n_copies; ++copy) sum += values[copy * n + i];
    values[i] = sum;
  }
}

struct Elevation {
  float scale[permutohedral::max_dim];
};

// What every corner's weight is worth becomes what a step along every feature is: E^T of what steps
// along the coordinates are, along which a weight falls and the next one rises.
template <int dim>
CRFSEG_KERNEL pull_features(CRFSEG_CONSTANT LatticeView lattice,
                            CRFSEG_CONSTANT Elevation elevation, const float* features,
                            const float* corner, float* out) {
  const std::int64_t slots = lattice.tiling.size();
  for (std::int64_t i = grid_first(); i < lattice.built_slots(); i += grid_stride()) {
    const std::int64_t place = place_of_slot(lattice.tiling, i);
    if (place < 0) continue;
    float feature[dim], elevated[dim + 1], weight[dim + 1];
    int quotient[dim + 1], rank[dim + 1];
    CRFSEG_UNROLL
    for (int axis = 0; axis < dim; ++axis) feature[axis] = features[place * dim + axis];
    permutohedral::elevate(feature, dim, elevation.scale, elevated);
    permutohedral::find_simplex(elevated, dim, quotient, rank, weight);
    const float* own = corner + i / slots * slots * (dim + 1) + i % slots;
    float before = 0.0F;  // of the coordinates up to this one
    CRFSEG_UNROLL
    for (int j = 0; j <= dim; ++j) {
      const float rising = own[(rank[j] == 0 ? 0 : dim + 1 - rank[j]) * slots];
      const float along = (own[(dim - rank[j]) * slots] - rising) / static_cast<float>(dim + 1);
      if (j > 0) {
        const float step = before - static_cast<float>(j) * along;
        out[place * dim + j - 1] = elevation.scale[j - 1] * step;
      }
      before += along;
    }
  }
}

CRFSEG_KERNEL scale_by_feature(CRFSEG_CONSTANT LatticeView lattice, const float* features, int axis,
                               const float* scale, float* out) {
  for (std::int64_t i = grid_first(); i < lattice.built_slots(); i += grid_stride()) {
    const std::int64_t place = place_of_slot(lattice.tiling, i);
    if (place < 0) continue;
    out[i] = features[place * lattice.dim + axis] * (scale != nullptr ? scale[i] : 1.0F);
  }
}

// What pairs of points pull at each other by: <.., f_j> - f_i <.., 1>.
CRFSEG_KERNEL move_features(CRFSEG_CONSTANT LatticeView lattice, const float* features, int axis,
                            const float* moved, const float* still, float sign, float* out) {
  const std::int64_t n = lattice.built_slots();
  for (std::int64_t i = grid_first(); i < n; i += grid_stride()) {
    const std::int64_t place = place_of_slot(lattice.tiling, i);
    if (place < 0) continue;
    const float feature = features[place * lattice.dim + axis];
    float sum = 0.0F;
    for (std::int64_t copy = 0; copy < lattice.n_copies(); ++copy) {
      sum += moved[copy * n + i] - feature * still[copy * n + i];
    }
    out[place * lattice.dim + axis] += sign * sum;
  }
}

CRFSEG_KERNEL add_message_products(CRFSEG_CONSTANT TermView term, int n_labels, int width,
                                   const float* delta, double* tile_sums) {
  CRFSEG_SHARED(shared);
  double* room = reinterpret_cast<double*>(shared);
  const Tiling& tiling = term.lattice.tiling;
  const int slots = tiling.size(), quads = width / 4;
  for (std::int64_t tile = block_index(); tile < tiling.n_tiles(); tile += grid_size()) {
    double sum = 0.0;
    for (int i = thread_index(); i < slots * quads; i += block_size()) {
      if (tiling.point(tile, i / quads) < 0) continue;
      const Quad d = load_quad(delta + tile * slots * width + std::int64_t{4} * i);
      const Quad m = message_of(term, tile, i / quads, n_labels, width, i % quads, nullptr);
      sum += static_cast<double>(d.x) * static_cast<double>(m.x) +
             static_cast<double>(d.y) * static_cast<double>(m.y) +
             static_cast<double>(d.z) * static_cast<double>(m.z) +
             static_cast<double>(d.w) * static_cast<double>(m.w);
    }
    const double all = sum_of_block(sum, room);
    if (thread_index() == 0) tile_sums[tile] += all;
  }
}

// Through the weights of the corners: a <filtered b at corner k> + b <filtered a at corner k> is
// what a change of weight k brings.
class ExactFeatures : public MovedFeatures {
 public:
  using MovedFeatures::MovedFeatures;
  void finish() override;

 private:
  void add_ends(const End& a, const End& b, const float* filtered, float* mass_of_a,
                float* mass_of_b) override;
  void take_normalizer_out();

  Array<float> corner_ = zeros(view_.tiling.n_slots() * (view_.dim + 1));
};

void ExactFeatures::add_ends(const End& a, const End& b, const float* filtered, float* mass_of_a,
                             float* mass_of_b) {
  note(a, filtered, width_, term_.factor(), 1.0F, {corner_.data(), mass_of_a, nullptr, false});
  note(b, term_.came_back(), width_, term_.factor(), 1.0F,
       {corner_.data(), mass_of_b, nullptr, false});
}

void ExactFeatures::take_normalizer_out() {
  weigh_mass();
  Values rows(term_.lattice(), 4, allocate_);
  rows.splat(ones_.data(), nullptr, stream_);
  note({mass_rows_.data(), nullptr}, rows.blur(false, nullptr, stream_), 4, nullptr, -1.0F,
       {corner_.data(), nullptr, nullptr, false});
  rows.splat(mass_rows_.data(), nullptr, stream_);
  note({ones_.data(), nullptr}, rows.blur(true, nullptr, stream_), 4, nullptr, -1.0F,
       {corner_.data(), nullptr, nullptr, false});
}

void ExactFeatures::finish() {
  if (term_.normalization() != Normalization::none) take_normalizer_out();
  const std::int64_t n = view_.built_slots() * (view_.dim + 1);
  if (view_.n_copies() > 1) {
    CRFSEG_LAUNCH(add_copies, elementwise(n), block_threads, 0, stream_, n, view_.n_copies(),
                  corner_.data());
  }
  const float nowhere[permutohedral::max_dim] = {};
  const KeyRanges ranges = KeyRanges::of(view_.dim, term_.lattice().passes(), 0, nowhere, nowhere);
  Elevation elevation;
  std::copy_n(ranges.scale, permutohedral::max_dim, elevation.scale);
  with_dim(view_.dim, [&](auto dim) {
    CRFSEG_LAUNCH((pull_features<decltype(dim)::value>), elementwise(view_.built_slots()),
                  block_threads, 0, stream_, view_, elevation, request_.features, corner_.data(),
                  request_.out);
  });
}

// Of the Gaussian: a (K(b f) - f K b) + b (K^T(a f) - f K^T a).
class SmoothFeatures : public MovedFeatures {
 public:
  SmoothFeatures(CoupledTerm* term, const FeatureRequest& request, int width,
                 const Allocate& allocate, Stream stream);
  void finish() override;

 private:
  void add_ends(const End& a, const End& b, const float* filtered, float* mass_of_a,
                float* mass_of_b) override;
  // spread(values, scale, transpose): their rows, of this width.
  template <class F>
  void add_moved(const End& a, const End& b, int width, const float* factor, float sign,
                 F&& spread);

  const float* scaled(const float* scale, int axis);

  Array<float> scale_, still_, moved_;  // (built slots), (slots), (slots)
};

SmoothFeatures::SmoothFeatures(CoupledTerm* term, const FeatureRequest& request, int width,
                               const Allocate& allocate, Stream stream)
    : MovedFeatures(term, request, width, allocate, stream),
      scale_(view_.built_slots(), allocate),
      still_(view_.tiling.n_slots(), allocate),
      moved_(view_.tiling.n_slots(), allocate) {
  const Tiling& tiling = view_.tiling;
  const std::int64_t n_items = view_.is_repeated ? 1 : tiling.n_items;
  const std::int64_t size = n_items * tiling.n_points * view_.dim;
  fill_bytes(request_.out, 0, static_cast<std::size_t>(size) * sizeof(float), stream_);
}

const float* SmoothFeatures::scaled(const float* scale, int axis) {
  CRFSEG_LAUNCH(scale_by_feature, elementwise(view_.built_slots()), block_threads, 0, stream_,
                view_, request_.features, axis, scale, scale_.data());
  return scale_.data();
}

template <class F>
void SmoothFeatures::add_moved(const End& a, const End& b, int width, const float* factor,
                               float sign, F&& spread) {
  for (int axis = 0; axis < view_.dim; ++axis) {
    note(a, spread(b.values, scaled(b.scale, axis), false), width, factor, 1.0F,
         {nullptr, nullptr, moved_.data(), true});
    note(b, spread(a.values, scaled(a.scale, axis), true), width, factor, 1.0F,
         {nullptr, nullptr, moved_.data(), false});
    CRFSEG_LAUNCH(move_features, elementwise(view_.built_slots()), block_threads, 0, stream_, view_,
                  request_.features, axis, moved_.data(), still_.data(), sign, request_.out);
  }
}

void SmoothFeatures::add_ends(const End& a, const End& b, const float* filtered, float* mass_of_a,
                              float* mass_of_b) {
  note(a, filtered, width_, term_.factor(), 1.0F, {nullptr, mass_of_a, still_.data(), true});
  note(b, term_.came_back(), width_, term_.factor(), 1.0F,
       {nullptr, mass_of_b, still_.data(), false});
  add_moved(a, b, width_, term_.factor(), 1.0F,
            [&](const float* values, const float* scale, bool transpose) {
              return term_.spread(values, scale, transpose);
            });
}

void SmoothFeatures::finish() {
  if (term_.normalization() == Normalization::none) return;
  weigh_mass();
  const End a{mass_rows_.data(), nullptr}, b{ones_.data(), nullptr};
  Values rows(term_.lattice(), 4, allocate_);
  const auto spread = [&](const float* values, const float* scale, bool transpose) {
    rows.splat(values, scale, stream_);
    return rows.blur(transpose, nullptr, stream_);
  };
  note(a, spread(b.values, nullptr, false), 4, nullptr, 1.0F,
       {nullptr, nullptr, still_.data(), true});
  note(b, spread(a.values, nullptr, true), 4, nullptr, 1.0F,
       {nullptr, nullptr, still_.data(), false});
  add_moved(a, b, 4, nullptr, -1.0F, spread);
}

}  // namespace

MovedFeatures::MovedFeatures(CoupledTerm* term, const FeatureRequest& request, int width,
                             const Allocate& allocate, Stream stream)
    : term_(*term),
      request_(request),
      width_(width),
      allocate_(allocate),
      stream_(stream),
      view_(term->lattice().view()),
      mass_(zeros(view_.tiling.n_slots())) {}

Array<float> MovedFeatures::zeros(std::int64_t size) const {
  Array<float> made(size, allocate_);
  fill_bytes(made.data(), 0, static_cast<std::size_t>(made.nbytes()), stream_);
  return made;
}

void MovedFeatures::add(const float* delta, const float* q, int t) {
  const Scales& scales = term_.scales();
  float* mass = mass_.data();
  add_ends({delta, scales.slice}, {q, scales.splat}, term_.filtered(t),
           scales_slice(term_.normalization()) ? mass : nullptr,
           scales_splat(term_.normalization()) ? mass : nullptr);
}

void MovedFeatures::note(const End& end, const float* rows, int width, const float* factor,
                         float gain, const Notes& notes) {
  Products products;
  products.lattice = view_;
  products.width = width;
  products.values = end.values;
  products.rows = rows;
  products.factor = factor;
  products.scale = end.scale;
  products.gain = gain;
  products.corner = notes.corner;
  products.mass = notes.mass;
  products.pair = notes.pair;
  products.starts = notes.starts;
  CRFSEG_LAUNCH(note_products, elementwise(view_.tiling.n_slots()), block_threads, 0, stream_,
                products);
}

void MovedFeatures::weigh_mass() {
  const Scales& scales = term_.scales();
  const std::int64_t n_slots = view_.tiling.n_slots();
  mass_rows_ = Array<float>(4 * n_slots, allocate_);
  ones_ = Array<float>(4 * n_slots, allocate_);
  CRFSEG_LAUNCH(lay_out_mass, elementwise(n_slots), block_threads, 0, stream_, view_, mass_.data(),
                scales.slice != nullptr ? scales.slice : scales.splat,
                term_.normalization() == Normalization::symmetric, mass_rows_.data(), ones_.data());
}

std::unique_ptr<MovedFeatures> moved_features(CoupledTerm* term, const FeatureRequest& request,
                                              int width, const Allocate& allocate, Stream stream) {
  switch (request.form) {
    case FeatureGradient::exact:
      return std::make_unique<ExactFeatures>(term, request, width, allocate, stream);
    case FeatureGradient::smooth:
      return std::make_unique<SmoothFeatures>(term, request, width, allocate, stream);
    default:
      return nullptr;
  }
}

ProbedTerm::ProbedTerm(const CoupledKernel& kernel, int n_labels, int width,
                       const Allocate& allocate, Stream stream)
    : term_(kernel, n_labels, width, allocate, stream),
      n_labels_(n_labels),
      width_(width),
      stream_(stream),
      tile_sums_(kernel.lattice->view().tiling.n_tiles(), allocate) {
  term_.start_messages();
  fill_bytes(tile_sums_.data(), 0, static_cast<std::size_t>(tile_sums_.nbytes()), stream);
}

void ProbedTerm::add(const float* delta, const float* q) {
  term_.splat(q);
  term_.exchange(-1, nullptr);
  CRFSEG_LAUNCH(add_message_products, blocks_of(tile_sums_.size()), block_threads,
                block_threads * sizeof(double), stream_, term_.forth(), n_labels_, width_, delta,
                tile_sums_.data());
}

void ProbedTerm::write(double* out) {
  CRFSEG_LAUNCH(add_up<double>, 1, block_threads, block_threads * sizeof(double), stream_,
                tile_sums_.size(), tile_sums_.data(), out, nullptr);
}

}  // namespace cuda
}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Vertices, their numbers, neighbours and rows against a slow lattice of coordinates in a map,
// whichever way keys are looked up.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "check.h"
#include "cpu/blur_plan.h"
#include "cpu/dense_keys.h"
#include "cpu/dispatch.h"
#include "instruction_sets.h"
#include "lattice.h"

using crfseg::Lattice;

namespace {

using Vertex = std::array<int, crfseg::kernels::max_corners>;
enum class Keys { dense, narrow, wide };

struct Points {
  std::int64_t n;
  int dim;
  std::vector<float> features;
};

Points cloud(std::int64_t n, int dim, float reach) {
  return {n, dim, check::Random(std::uint64_t(n + dim)).uniforms(n * dim, -reach, reach)};
}

// x, y and some channels, on the scale of 1 / sigma.
Points image(std::int64_t height, std::int64_t width, int channels, float step) {
  check::Random random(3);
  Points points{height * width, 2 + channels, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      points.features.push_back(float(x) * step);
      points.features.push_back(float(y) * step);
      for (int c = 0; c < channels; ++c) points.features.push_back(random.uniform(0.0F, 20.0F));
    }
  }
  return points;
}

crfseg::KeyRanges ranges_of(const Points& points, std::int64_t begin, std::int64_t end, int rounds,
                            int passes) {
  std::vector<float> lo(points.features.begin() + begin * points.dim,
                        points.features.begin() + (begin + 1) * points.dim);
  std::vector<float> hi = lo;
  for (std::int64_t i = begin * points.dim; i < end * points.dim; ++i) {
    float& low = lo[std::size_t(i % points.dim)];
    float& high = hi[std::size_t(i % points.dim)];
    low = std::min(low, points.features[std::size_t(i)]);
    high = std::max(high, points.features[std::size_t(i)]);
  }
  return crfseg::KeyRanges::of(points.dim, passes, rounds, lo.data(), hi.data());
}

Keys kind_of_keys(const Points& points, int rounds, int passes) {
  const crfseg::KeyRanges ranges = ranges_of(points, 0, points.n, rounds, passes);
  const crfseg::Strips strips = crfseg::Strips::of(points.n);
  std::vector<crfseg::KeyRanges> parts;
  for (std::int64_t s = 0; s < strips.count; ++s) {
    parts.push_back(ranges_of(points, strips.begin(s), strips.end(s), rounds, passes));
  }
  if (crfseg::keys_are_dense(ranges, parts, strips)) return Keys::dense;
  return names_fit(ranges) ? Keys::narrow : Keys::wide;
}

// The d + 1 vertices around each point, from quotients and ranks (math/permutohedral.h).
std::vector<Vertex> corners_of(const Points& points, int passes, std::vector<float>* weights) {
  crfseg::kernels::SimplexFrame frame =
      crfseg::simplex_frame(ranges_of(points, 0, points.n, 0, passes), false);
  frame.names_origin = false;  // quotients, please
  crfseg::kernels::SimplexBatch batch;
  std::memset(&batch, 0, sizeof(batch));
  const int dim = points.dim;
  std::vector<Vertex> corners;
  weights->resize(std::size_t(points.n * (dim + 1)));
  for (std::int64_t p = 0; p < points.n; ++p) {
    batch.count = 1;
    batch.weight = weights->data() + p * (dim + 1);
    for (int axis = 0; axis < dim; ++axis) {
      batch.feature[axis][0] = points.features[std::size_t(p * dim + axis)];
    }
    crfseg::active_kernels().find_simplices(frame, &batch);
    for (int k = 0; k <= dim; ++k) {
      Vertex corner{};
      for (int i = 0; i <= dim; ++i) {
        const int quotient = batch.quotient[i][0] - (batch.rank[i][0] > dim - k ? 1 : 0);
        corner[i] = quotient * (dim + 1) + k;
      }
      corners.push_back(corner);
    }
  }
  return corners;
}

Vertex step(Vertex at, int dim, int axis, int sign) {
  for (int i = 0; i <= dim; ++i) at[i] += sign * (i == axis ? -dim : 1);
  return at;
}

class SlowLattice {
 public:
  SlowLattice(const std::vector<Vertex>& corners, int dim, const std::vector<int>& fill)
      : dim_(dim) {
    for (const Vertex& corner : corners) add(corner);
    for (int at_least : fill) fill_in(at_least);
  }

  std::int64_t size() const { return std::int64_t(vertices_.size()); }
  std::uint32_t number(const Vertex& vertex) const {
    const auto found = numbers_.find(vertex);
    return found == numbers_.end() ? std::uint32_t(size()) : found->second;
  }
  const std::vector<Vertex>& vertices() const { return vertices_; }

 private:
  void add(const Vertex& vertex) {
    if (numbers_.emplace(vertex, std::uint32_t(vertices_.size())).second) {
      vertices_.push_back(vertex);
    }
  }

  void fill_in(int at_least) {
    std::map<Vertex, int> count;
    std::vector<Vertex> missing;
    for (const Vertex& vertex : vertices_) {
      for (int axis = 0; axis <= dim_; ++axis) {
        for (int sign : {1, -1}) {
          const Vertex next = step(vertex, dim_, axis, sign);
          if (numbers_.count(next) == 0 && ++count[next] == 1) missing.push_back(next);
        }
      }
    }
    for (const Vertex& vertex : missing) {
      if (count[vertex] >= at_least) add(vertex);
    }
  }

  int dim_;
  std::vector<Vertex> vertices_;
  std::map<Vertex, std::uint32_t> numbers_;
};

void points_see_their_corners(const Lattice& lattice, const SlowLattice& slow,
                              const std::vector<Vertex>& corners) {
  const int n_corners = lattice.dim + 1;
  for (std::int64_t s = 0; s < lattice.strips.count; ++s) {
    std::uint32_t n_seen = 0;  // rows are numbered in order of first touch
    for (std::int64_t i = lattice.strips.begin(s) * n_corners;
         i < lattice.strips.end(s) * n_corners; ++i) {
      const std::uint32_t row = lattice.row_of(s, i / n_corners, int(i % n_corners));
      CHECK(row <= n_seen);
      n_seen = std::max(n_seen, row + 1);
      CHECK(lattice.local_vertex[lattice.local_begin[s] + row] ==
            slow.number(corners[std::size_t(i)]));
    }
    CHECK(n_seen == lattice.local_rows(s));
  }
}

void neighbours_are_steps(const Lattice& lattice, const SlowLattice& slow) {
  const auto neighbours = lattice.blur_plan().neighbours(lattice, 2);
  for (int axis = 0; axis <= lattice.dim; ++axis) {
    for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
      const Vertex& vertex = slow.vertices()[std::size_t(v)];
      const std::uint32_t* pair = &neighbours[(axis * lattice.n_vertices + v) * 2];
      CHECK(pair[0] == slow.number(step(vertex, lattice.dim, axis, 1)));
      CHECK(pair[1] == slow.number(step(vertex, lattice.dim, axis, -1)));
    }
  }
}

// The rows of every vertex that has several, in order.
void shared_rows_are_chained(const Lattice& lattice) {
  std::vector<std::vector<std::uint32_t>> rows(std::size_t(lattice.n_vertices));
  for (std::int64_t row = 0; row < lattice.n_local(); ++row) {
    rows[lattice.local_vertex[row]].push_back(std::uint32_t(row));
  }
  std::vector<std::uint32_t> chained;
  for (const auto& of_vertex : rows) {
    if (of_vertex.size() < 2) continue;
    for (const std::uint32_t row : of_vertex) chained.push_back(row | crfseg::kernels::linked);
    chained.back() &= ~crfseg::kernels::linked;
  }
  const crfseg::Chains& shared = lattice.blur_plan().shared;
  CHECK(shared.size() == std::int64_t(chained.size()));
  CHECK(std::equal(chained.begin(), chained.end(), shared.data()));
}

void lattice_is_the_slow_one(const Points& points, Keys keys, const std::vector<int>& fill = {},
                             int passes = 1) {
  CHECK(kind_of_keys(points, int(fill.size()), passes) == keys);
  std::vector<float> weights;
  const std::vector<Vertex> corners = corners_of(points, passes, &weights);
  const SlowLattice slow(corners, points.dim, fill);
  for (int threads : {1, 2, 5}) {
    const Lattice lattice(points.features.data(), points.n, points.dim, fill, passes, threads);
    CHECK(lattice.n_vertices == slow.size());
    if (lattice.n_vertices != slow.size()) return;
    CHECK(std::equal(weights.begin(), weights.end(), lattice.corner_weight.begin()));
    points_see_their_corners(lattice, slow, corners);
    neighbours_are_steps(lattice, slow);
    shared_rows_are_chained(lattice);
  }
}

template <class T>
bool same(const crfseg::Buffer<T>& a, const crfseg::Buffer<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

void pixels_are_rows_of_features(std::int64_t height, std::int64_t width, int channels) {
  check::Random random(8);
  const auto values = random.uniforms(height * width * channels, 0.0F, 255.0F);
  const auto inverse = random.uniforms(2 + channels, 0.05F, 0.3F);
  std::vector<float> features;
  for (std::int64_t i = 0; i < height * width; ++i) {
    features.push_back(float(i % width) * inverse[0]);
    features.push_back(float(i / width) * inverse[1]);
    for (int c = 0; c < channels; ++c) {
      features.push_back(values[std::size_t(i * channels + c)] * inverse[std::size_t(2 + c)]);
    }
  }
  const Lattice rows(features.data(), height * width, 2 + channels, {1}, 1, 2);
  const crfseg::PixelGrid grid{height,   width,         values.data(), crfseg::ChannelType::float32,
                               channels, inverse.data()};
  const Lattice pixels(grid, {1}, 1, 2);
  CHECK(same(rows.corner_row, pixels.corner_row));
  CHECK(same(rows.corner_weight, pixels.corner_weight));
  CHECK(same(rows.local_vertex, pixels.local_vertex));
  CHECK(same(rows.blur_plan().neighbours(rows, 1), pixels.blur_plan().neighbours(pixels, 1)));
}

void voxels_are_rows_of_features(std::int64_t depth, std::int64_t height, std::int64_t width,
                                 int channels) {
  check::Random random(9);
  const std::int64_t n = depth * height * width;
  const auto values = random.uniforms(n * channels, 0.0F, 255.0F);
  const auto inverse = random.uniforms(3 + channels, 0.05F, 0.9F);
  std::vector<float> features;
  for (std::int64_t i = 0; i < n; ++i) {
    features.push_back(float(i % width) * inverse[0]);
    features.push_back(float(i / width % height) * inverse[1]);
    features.push_back(float(i / width / height) * inverse[2]);
    for (int c = 0; c < channels; ++c) {
      features.push_back(values[std::size_t(i * channels + c)] * inverse[std::size_t(3 + c)]);
    }
  }
  const Lattice rows(features.data(), n, 3 + channels, {1}, 1, 2);
  const crfseg::PixelGrid grid{
      height, width, values.data(), crfseg::ChannelType::float32, channels, inverse.data(), depth};
  const Lattice voxels(grid, {1}, 1, 2);
  CHECK(same(rows.corner_row, voxels.corner_row));
  CHECK(same(rows.corner_weight, voxels.corner_weight));
  CHECK(same(rows.local_vertex, voxels.local_vertex));
  CHECK(same(rows.blur_plan().neighbours(rows, 1), voxels.blur_plan().neighbours(voxels, 1)));
}

void bad_pixels_are_named() {
  std::vector<float> channels(60, 1.0F);
  channels[31] = NAN;
  std::vector<float> inverse{1.0F, 1.0F, 1.0F};
  const crfseg::PixelGrid grid{
      6, 10, channels.data(), crfseg::ChannelType::float32, 1, inverse.data()};
  const auto bad_axis = [&] {
    try {
      Lattice(grid, {}, 1, 2);
    } catch (const crfseg::NonFiniteFeature& error) {
      return std::pair<std::int64_t, int>(error.point, error.axis);
    }
    return std::pair<std::int64_t, int>(-1, -1);
  };
  CHECK(bad_axis() == std::make_pair(std::int64_t{31}, 2));
  inverse[1] = 1e38F;  // y = 4 overflows, before the channel of point 31 does
  channels[31] = 1.0F;
  CHECK(bad_axis() == std::make_pair(std::int64_t{40}, 1));
}

}  // namespace

int main() {
  for (const std::string& isa : check::instruction_sets()) {
    crfseg::set_isa(isa);
    lattice_is_the_slow_one(image(40, 150, 0, 0.4F), Keys::dense);
    lattice_is_the_slow_one(image(40, 150, 0, 4.0F), Keys::narrow);
    lattice_is_the_slow_one(image(40, 50, 1, 0.05F), Keys::narrow, {1, 2}, 2);
    lattice_is_the_slow_one(image(40, 150, 3, 0.1F), Keys::narrow);
    lattice_is_the_slow_one(cloud(600, 9, 60.0F), Keys::wide);
  }
  lattice_is_the_slow_one(image(1, 9001, 0, 0.3F), Keys::dense, {1});
  lattice_is_the_slow_one(image(9001, 1, 0, 0.3F), Keys::narrow, {1});
  lattice_is_the_slow_one(image(1, 1, 0, 1.0F), Keys::dense, {1, 4}, 2);
  lattice_is_the_slow_one(image(1, 1, 3, 1.0F), Keys::narrow, {1, 4}, 2);
  lattice_is_the_slow_one(image(90, 100, 0, 1.0F), Keys::dense, {1, 4}, 2);
  lattice_is_the_slow_one(image(30, 30, 3, 0.05F), Keys::narrow, {1, 4}, 2);
  lattice_is_the_slow_one(cloud(5000, 1, 500.0F), Keys::dense, {2}, 3);
  lattice_is_the_slow_one(cloud(5000, 1, 50000.0F), Keys::narrow, {2}, 3);
  lattice_is_the_slow_one(cloud(4000, 3, 2.0F), Keys::dense, {3});
  lattice_is_the_slow_one(cloud(100, 8, 0.5F), Keys::narrow, {4});
  lattice_is_the_slow_one(cloud(100, 16, 4.0F), Keys::wide);
  lattice_is_the_slow_one(cloud(20, 6, 400.0F), Keys::wide, {1});
  lattice_is_the_slow_one(image(400, 400, 0, 1.0F), Keys::dense);  // chains are followed together
  for (int channels : {0, 1, 3, 4}) pixels_are_rows_of_features(61, 103, channels);
  pixels_are_rows_of_features(1, 70, 3);
  pixels_are_rows_of_features(70, 1, 0);
  pixels_are_rows_of_features(1, 1, 3);
  for (int channels : {0, 1, 2}) voxels_are_rows_of_features(7, 33, 41, channels);
  voxels_are_rows_of_features(1, 61, 103, 1);  // no strip but the last ends where a slice does
  voxels_are_rows_of_features(300, 1, 31, 0);
  voxels_are_rows_of_features(90, 101, 1, 2);
  bad_pixels_are_named();
  return check::result();
}

// SPDX-License-Identifier: MIT
// The diagonal of the filter: how much of a point's own value comes back to it.
#include <algorithm>

#include "cpu/blur_plan.h"
#include "lattice.h"
#include "math/self_paths.h"
#include "parallel.h"

namespace crfseg {
namespace {

using permutohedral::max_corners;

static_assert(self_paths::most_passes == max_passes);

struct Table {
  std::uint32_t next(std::uint32_t v, int axis, bool forth) const {
    return neighbours[(axis * n_vertices + v) * 2 + (forth ? 0 : 1)];
  }

  const std::uint32_t* neighbours;  // (dim + 1, n_vertices, 2)
  std::int64_t n_vertices;
};

class Walker {
 public:
  Walker(const Lattice& lattice, const Buffer<std::uint32_t>& neighbours)
      : table_{neighbours.data(), lattice.n_vertices},
        blur_{lattice.dim + 1, lattice.passes, BlurShape::of(lattice.passes).side,
              static_cast<std::uint32_t>(lattice.n_vertices)} {}

  // sum over corners a, b of weight[a] weight[b] B[b][a]
  double response(const std::uint32_t* vertex, const float* weight) {
    if (!std::equal(vertex, vertex + blur_.corners, simplex_)) {
      std::copy_n(vertex, blur_.corners, simplex_);
      fill_matrix();
    }
    double sum = 0.0;
    for (int a = 0; a < blur_.corners; ++a) {
      for (int b = 0; b < blur_.corners; ++b) {
        sum += static_cast<double>(weight[a]) * static_cast<double>(weight[b]) * matrix_[a][b];
      }
    }
    return sum;
  }

 private:
  void fill_matrix() {
    int axis_to_next[max_corners];
    self_paths::find_axes(blur_, table_, simplex_, axis_to_next);
    for (int a = 0; a < blur_.corners; ++a) {
      for (int b = 0; b < blur_.corners; ++b) {
        matrix_[a][b] = self_paths::between(blur_, table_, simplex_, axis_to_next, a, b);
      }
    }
  }

  Table table_;
  self_paths::Blur blur_;
  std::uint32_t simplex_[max_corners] = {};
  double matrix_[max_corners][max_corners] = {};
};

}  // namespace

void self_response(const Lattice& lattice, int threads, float* out) {
  const int corners = lattice.dim + 1;
  const Buffer<std::uint32_t> neighbours = lattice.blur_plan().neighbours(lattice, threads);
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    Walker walker(lattice, neighbours);
    const std::uint32_t* vertex_of_row = lattice.local_vertex.data() + lattice.local_begin[s];
    std::uint32_t vertex[max_corners];
    for (std::int64_t p = lattice.strips.begin(s); p < lattice.strips.end(s); ++p) {
      for (int k = 0; k < corners; ++k) vertex[k] = vertex_of_row[lattice.row_of(s, p, k)];
      out[p] =
          static_cast<float>(walker.response(vertex, lattice.corner_weight.data() + p * corners));
    }
  });
}

}  // namespace crfseg

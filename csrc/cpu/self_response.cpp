// SPDX-License-Identifier: MIT
// The diagonal of the filter: how much of a point's own value comes back to it.
//
// A value splat to corner a reaches corner b of the same simplex along few paths. Let S be the axes
// that lead from a to b. A path that moves t_j steps along axis j ends in b exactly if
// t = 1_S + c (1, ..., 1) for some integer c, because one step along every axis leads back to where
// it started. Each candidate is walked axis by axis, as the blur does, through vertices that exist.
#include <algorithm>
#include <cstdlib>

#include "cpu/blur_plan.h"
#include "lattice.h"
#include "math/permutohedral.h"
#include "parallel.h"

namespace crfseg {
namespace {

using permutohedral::max_corners;

class Walker {
 public:
  Walker(const Lattice& lattice, const Buffer<std::uint32_t>& neighbours)
      : lattice_(lattice),
        neighbours_(neighbours),
        corners_(lattice.dim + 1),
        absent_(static_cast<std::uint32_t>(lattice.n_vertices)),
        side_(BlurShape::of(lattice.passes).side),
        centre_(1.0 - 2.0 * side_) {}

  // sum over corners a, b of weight[a] weight[b] B[b][a]
  double response(const std::uint32_t* vertex, const float* weight) {
    if (!std::equal(vertex, vertex + corners_, simplex_)) {
      std::copy_n(vertex, corners_, simplex_);
      fill_matrix();
    }
    double sum = 0.0;
    for (int a = 0; a < corners_; ++a) {
      for (int b = 0; b < corners_; ++b) {
        sum += static_cast<double>(weight[a]) * static_cast<double>(weight[b]) * matrix_[a][b];
      }
    }
    return sum;
  }

 private:
  std::uint32_t next(std::uint32_t v, int axis, bool forth) const {
    return neighbours_[(axis * lattice_.n_vertices + v) * 2 + (forth ? 0 : 1)];
  }

  void fill_matrix() {
    int axis_to_next[max_corners];  // from each corner to the one behind it
    for (int k = 0; k + 1 < corners_; ++k) {
      int axis = 0;
      while (next(simplex_[k], axis, true) != simplex_[k + 1]) ++axis;
      axis_to_next[k] = axis;
    }
    for (int a = 0; a < corners_; ++a) {
      for (int b = 0; b < corners_; ++b) {
        int steps[max_corners] = {};
        for (int k = std::min(a, b); k < std::max(a, b); ++k)
          steps[axis_to_next[k]] = a < b ? 1 : -1;
        matrix_[a][b] = paths(simplex_[a], steps);
      }
    }
  }

  double paths(std::uint32_t from, const int* steps) const {
    double sum = 0.0;
    for (int c = -lattice_.passes - 1; c <= lattice_.passes + 1; ++c) {
      double product = 1.0;
      std::uint32_t v = from;
      for (int axis = 0; axis < corners_ && product > 0.0; ++axis) {
        product *= move(axis, steps[axis] + c, &v);
      }
      sum += product;
    }
    return sum;
  }

  // The share of a value at *v that `passes` blurs along one axis carry `steps` steps away; *v goes
  // along.
  double move(int axis, int steps, std::uint32_t* v) const {
    const int passes = lattice_.passes;
    if (std::abs(steps) > passes) return 0.0;
    // share[i]: what is i - passes steps away; values that reach a missing vertex are lost.
    double share[2 * max_passes + 1] = {};
    bool exists[2 * max_passes + 1] = {};
    exists[passes] = true;
    share[passes] = 1.0;
    std::uint32_t target = *v;
    for (const int direction : {1, -1}) {
      std::uint32_t at = *v;
      for (int i = 1; i <= passes && at != absent_; ++i) {
        at = next(at, axis, direction > 0);
        exists[passes + direction * i] = at != absent_;
        if (steps == direction * i) target = at;
      }
      if (steps * direction > 0 && !exists[passes + steps]) return 0.0;
    }
    for (int pass = 0; pass < passes; ++pass) {
      double before = 0.0;
      for (int i = 0; i <= 2 * passes; ++i) {
        const double own = share[i];
        const double after = i < 2 * passes ? share[i + 1] : 0.0;
        share[i] = exists[i] ? centre_ * own + side_ * (before + after) : 0.0;
        before = own;
      }
    }
    *v = target;
    return share[passes + steps];
  }

  const Lattice& lattice_;
  const Buffer<std::uint32_t>& neighbours_;
  int corners_;
  std::uint32_t absent_;
  double side_, centre_;
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

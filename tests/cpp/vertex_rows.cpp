// SPDX-License-Identifier: MIT
// Adding up and blurring rows against a slow blur over the table of neighbours, for every width and
// number of threads.
#include "cpu/vertex_rows.h"

#include <algorithm>

#include "check.h"
#include "cpu/dispatch.h"

using crfseg::Lattice;
using crfseg::VertexRows;

namespace {

// One number per vertex.
using Column = std::vector<double>;

Lattice lattice_of(std::int64_t n_points, int dim, float spread, std::vector<int> fill,
                   int passes) {
  check::Random random(7);
  return Lattice(random.uniforms(n_points * dim, -spread, spread).data(), n_points, dim,
                 std::move(fill), passes, 1);
}

void blur_slowly(const Lattice& lattice, const std::uint32_t* neighbours, Column* values) {
  const double side = crfseg::BlurShape::of(lattice.passes).side;
  for (int pass = 0; pass < lattice.passes; ++pass) {
    Column before = *values;
    before.push_back(0.0);  // what is missing
    for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
      const double sides = before[neighbours[2 * v]] + before[neighbours[2 * v + 1]];
      (*values)[v] = (1.0 - 2.0 * side) * before[v] + side * sides;
    }
  }
}

// The values (n_local, width) that strips have added, blurred, as the strips' rows see them.
std::vector<float> blurred_slowly(const Lattice& lattice, const std::vector<float>& added,
                                  int width, bool transpose) {
  std::vector<float> result(added.size());
  const crfseg::Buffer<std::uint32_t> neighbours = lattice.blur_plan().neighbours(lattice, 1);
  for (int column = 0; column < width; ++column) {
    Column values(static_cast<std::size_t>(lattice.n_vertices));
    for (std::int64_t row = 0; row < lattice.n_local(); ++row) {
      values[lattice.local_vertex[row]] += added[row * width + column];
    }
    for (int i = 0; i <= lattice.dim; ++i) {
      const int axis = transpose ? lattice.dim - i : i;
      blur_slowly(lattice, neighbours.data() + axis * lattice.n_vertices * 2, &values);
    }
    for (std::int64_t row = 0; row < lattice.n_local(); ++row) {
      result[row * width + column] = static_cast<float>(values[lattice.local_vertex[row]]);
    }
  }
  return result;
}

void add(const std::vector<float>& values, VertexRows* rows) {
  const Lattice& lattice = rows->lattice();
  for (std::int64_t s = 0; s < lattice.strips.count; ++s) {
    const float* from = values.data() + lattice.local_begin[s] * rows->width();
    float* to = rows->cleared_rows(s);
    for (std::int64_t i = 0; i < lattice.local_rows(s) * rows->width(); ++i) to[i] += from[i];
  }
}

// What points slice from.
std::vector<float> fetched(const VertexRows& rows) {
  const Lattice& lattice = rows.lattice();
  std::vector<float> all(static_cast<std::size_t>(lattice.n_local() * rows.width()));
  for (std::int64_t s = 0; s < lattice.strips.count; ++s) {
    rows.fetch(s, all.data() + lattice.local_begin[s] * rows.width());
  }
  return all;
}

std::vector<float> random_rows(const Lattice& lattice, int width, std::uint64_t seed) {
  return check::Random(seed).uniforms(lattice.n_local() * width, 0.0F, 1.0F);
}

void every_width_and_mode_is_the_slow_blur() {
  struct Shape {
    std::int64_t n_points;
    int dim;
    float spread;
    std::vector<int> fill;
    int passes;
  };
  for (const Shape& shape :
       {Shape{9000, 2, 9.0F, {}, 1}, Shape{9000, 5, 2.0F, {}, 1}, Shape{300, 5, 0.6F, {1, 4}, 2},
        Shape{9000, 3, 2.0F, {2}, 3}, Shape{200, 5, 1.0F, {}, 8}, Shape{1, 1, 1.0F, {}, 1}}) {
    const Lattice lattice =
        lattice_of(shape.n_points, shape.dim, shape.spread, shape.fill, shape.passes);
    for (const int width : {1, 4, 8, 16, 24, 32, 40, 88}) {
      const std::vector<float> values = random_rows(lattice, width, 3);
      for (const bool transpose : {false, true}) {
        const std::vector<float> expected = blurred_slowly(lattice, values, width, transpose);
        VertexRows rows(lattice, width);
        add(values, &rows);
        VertexRows::blur({&rows}, transpose, 1);
        const std::vector<float> found = fetched(rows);
        CHECK(check::largest_difference(found, expected) < 1e-5);
        VertexRows again(lattice, width);
        add(values, &again);
        VertexRows::blur({&again}, transpose, 3);
        CHECK(fetched(again) == found);
      }
    }
  }
}

void every_instruction_set_blurs() {
  const Lattice lattice = lattice_of(3000, 5, 1.5F, {1}, 2);
  const std::string before = crfseg::active_kernels().name;
  for (const int width : {1, 4, 24, 40}) {
    const std::vector<float> values = random_rows(lattice, width, 4);
    const std::vector<float> expected = blurred_slowly(lattice, values, width, false);
    for (const std::string& isa : crfseg::available_isas()) {
      crfseg::set_isa(isa);
      VertexRows rows(lattice, width);
      add(values, &rows);
      VertexRows::blur({&rows}, false, 1);
      CHECK(check::largest_difference(fetched(rows), expected) < 1e-5);
    }
  }
  crfseg::set_isa(before);
}

void several_lattices_go_together() {
  const Lattice plane = lattice_of(9000, 2, 9.0F, {}, 1), space = lattice_of(9000, 5, 2.0F, {}, 1);
  for (const int threads : {1, 2, 5}) {
    VertexRows first(plane, 16), second(space, 40);
    std::vector<std::vector<float>> expected;
    for (VertexRows* rows : {&first, &second}) {
      const std::vector<float> values = random_rows(rows->lattice(), rows->width(), 5);
      expected.push_back(blurred_slowly(rows->lattice(), values, rows->width(), false));
      add(values, rows);
    }
    VertexRows::blur({&first, &second}, false, threads);
    CHECK(check::largest_difference(fetched(first), expected[0]) < 1e-5);
    CHECK(check::largest_difference(fetched(second), expected[1]) < 1e-5);
  }
}

void what_is_fetched_has_the_factor() {
  const Lattice lattice = lattice_of(9000, 5, 1.0F, {}, 2);
  for (const int width : {1, 4, 24, 40}) {
    const std::vector<float> values = random_rows(lattice, width, 3);
    const std::vector<float> factor = check::Random(2).uniforms(width, -2.0F, 2.0F);
    std::vector<float> expected = blurred_slowly(lattice, values, width, false);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] *= factor[i % static_cast<std::size_t>(width)];
    }
    VertexRows rows(lattice, width, factor);
    add(values, &rows);
    VertexRows::blur({&rows}, false, 1);
    CHECK(check::largest_difference(fetched(rows), expected) < 1e-5);
  }
}

void the_largest_entry_is_found() {
  const Lattice lattice = lattice_of(9000, 2, 9.0F, {}, 1);
  for (const int width : {1, 4, 8, 16, 24, 40}) {
    VertexRows rows(lattice, width);
    add(random_rows(lattice, width, 9), &rows);
    VertexRows::blur({&rows}, false, 1);
    const std::vector<float> weight = check::Random(4).uniforms(lattice.n_local(), 0.1F, 3.0F);
    for (std::int64_t s = 0; s < lattice.strips.count; ++s) {
      const std::int64_t n = lattice.local_rows(s), first = lattice.local_begin[s];
      std::vector<float> copy(static_cast<std::size_t>(n * width));
      float plain = 0.0F, weighted = 0.0F;
      const float found_plain = rows.fetch_with_largest(s, nullptr, copy.data());
      const float found_weighted = rows.fetch_with_largest(s, weight.data() + first, copy.data());
      for (std::int64_t i = 0; i < n * width; ++i) {
        plain = std::max(plain, copy[i]);
        weighted = std::max(weighted, copy[i] * weight[first + i / width]);
      }
      CHECK(found_plain == plain);
      CHECK(found_weighted == weighted);
    }
  }
}

void a_matrix_mixes_labels() {
  const Lattice lattice = lattice_of(3000, 2, 2.0F, {}, 1);
  for (const int n_labels : {3, 8, 21}) {
    const int width = crfseg::row_width(n_labels);
    const std::vector<float> matrix =
        check::Random(6).uniforms(std::int64_t{n_labels} * width, -1.0F, 1.0F);
    VertexRows rows(lattice, width);
    add(random_rows(lattice, width, 8), &rows);
    VertexRows::blur({&rows}, false, 2);
    const std::vector<float> before = fetched(rows);
    std::vector<float> expected(before.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::size_t column = i % static_cast<std::size_t>(width);
      for (int label = 0; label < n_labels; ++label) {
        expected[i] += before[i - column + label] * matrix[label * width + column];
      }
    }
    rows.mix(matrix.data(), n_labels, 2);
    CHECK(check::largest_difference(fetched(rows), expected) < 1e-5);
  }
}

}  // namespace

int main() {
  every_width_and_mode_is_the_slow_blur();
  every_instruction_set_blurs();
  several_lattices_go_together();
  what_is_fetched_has_the_factor();
  the_largest_entry_is_found();
  a_matrix_mixes_labels();
  return check::result();
}

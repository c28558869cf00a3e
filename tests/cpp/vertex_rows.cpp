// SPDX-License-Identifier: MIT
// Adding up and blurring rows against a slow blur over the table of neighbours, for every width,
// mode, selection of slabs and number of threads.
#include "cpu/vertex_rows.h"

#include <algorithm>

#include "check.h"
#include "cpu/dispatch.h"

using crfseg::Lattice;
using crfseg::VertexRows;
using Sums = VertexRows::Sums;

namespace {

// One number per vertex.
using Column = std::vector<double>;

Lattice lattice_of(std::int64_t n_points, int dim, float spread, std::vector<int> fill,
                   int passes) {
  check::Random random(7);
  return Lattice(random.uniforms(n_points * dim, -spread, spread).data(), n_points, dim,
                 std::move(fill), passes, 1);
}

void blur_slowly(const Lattice& lattice, int axis, Column* values) {
  const double side = crfseg::BlurShape::of(lattice.passes).side;
  const std::uint32_t* neighbours = lattice.neighbours.data() + axis * lattice.n_vertices * 2;
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
  for (int column = 0; column < width; ++column) {
    Column values(static_cast<std::size_t>(lattice.n_vertices));
    for (std::int64_t row = 0; row < lattice.n_local(); ++row) {
      values[lattice.local_vertex[row]] += added[row * width + column];
    }
    for (int i = 0; i <= lattice.dim; ++i) {
      blur_slowly(lattice, transpose ? lattice.dim - i : i, &values);
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
    float* to = rows->rows(s);
    for (std::int64_t i = 0; i < lattice.local_rows(s) * rows->width(); ++i) to[i] += from[i];
  }
}

void clear(VertexRows* rows) {
  for (std::int64_t s = 0; s < rows->lattice().strips.count; ++s) rows->cleared_rows(s);
}

std::vector<float> fetched(const VertexRows& rows, crfseg::SlabList slabs = nullptr) {
  const Lattice& lattice = rows.lattice();
  std::vector<float> all(static_cast<std::size_t>(lattice.n_local() * rows.width()));
  const std::vector<float> factor(static_cast<std::size_t>(rows.width()), 2.0F);
  for (std::int64_t s = 0; s < lattice.strips.count; ++s) {
    rows.fetch(s, factor.data(), all.data() + lattice.local_begin[s] * rows.width(), slabs);
  }
  for (float& value : all) value *= 0.5F;
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
        for (const Sums sums : {Sums::replaced, Sums::kept}) {
          VertexRows rows(lattice, width, 1, sums);
          clear(&rows);
          add(values, &rows);
          VertexRows::blur({&rows}, transpose, 1);
          const std::vector<float> found = fetched(rows);
          CHECK(check::largest_difference(found, expected) < 1e-5);
          VertexRows again(lattice, width, 3, sums);
          clear(&again);
          add(values, &again);
          VertexRows::blur({&again}, transpose, 3);
          CHECK(fetched(again) == found);
        }
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
      VertexRows rows(lattice, width, 1);
      clear(&rows);
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
    VertexRows first(plane, 16, threads), second(space, 40, threads);
    std::vector<std::vector<float>> expected;
    for (VertexRows* rows : {&first, &second}) {
      const std::vector<float> values = random_rows(rows->lattice(), rows->width(), 5);
      expected.push_back(blurred_slowly(rows->lattice(), values, rows->width(), false));
      clear(rows);
      add(values, rows);
    }
    VertexRows::blur({&first, &second}, false, threads);
    CHECK(check::largest_difference(fetched(first), expected[0]) < 1e-5);
    CHECK(check::largest_difference(fetched(second), expected[1]) < 1e-5);
  }
}

// Splat changes only: the sums go on, whatever has been blurred of them.
void kept_sums_take_changes() {
  const Lattice lattice = lattice_of(9000, 5, 1.0F, {1}, 1);
  const int width = 24;
  VertexRows rows(lattice, width, 2, Sums::kept);
  clear(&rows);
  std::vector<float> sum(static_cast<std::size_t>(lattice.n_local() * width));
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const std::vector<float> change = random_rows(lattice, width, seed);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += change[i];
    add(change, &rows);
    VertexRows::blur({&rows}, false, 2);
    CHECK(check::largest_difference(fetched(rows), blurred_slowly(lattice, sum, width, false)) <
          2e-5);
  }
}

bool chosen(const std::vector<int>& slabs, std::size_t i, int width) {
  const int slab = static_cast<int>(i % static_cast<std::size_t>(width)) / 8;
  return std::find(slabs.begin(), slabs.end(), slab) != slabs.end();
}

// Where a slab is chosen, `found` holds `there`, elsewhere `elsewhere`.
void check_slabs(const std::vector<float>& found, const std::vector<int>& slabs, int width,
                 const std::vector<float>& there, const std::vector<float>& elsewhere) {
  std::vector<float> expected = elsewhere;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (chosen(slabs, i, width)) expected[i] = there[i];
  }
  CHECK(found == expected);
}

void only_the_slabs_asked_for_are_touched() {
  const Lattice lattice = lattice_of(9000, 5, 1.0F, {1}, 1);
  for (const int width : {8, 24, 88}) {
    const std::vector<float> first = random_rows(lattice, width, 1);
    const std::vector<float> change = random_rows(lattice, width, 2);
    const std::vector<float> zeros(first.size());
    for (const std::vector<int>& slabs :
         {std::vector<int>{}, {0}, {width / 8 - 1}, {0, 1, 2}, {0, 2, 3, 4, 5, 6, 7, 8, 10}}) {
      if (!slabs.empty() && slabs.back() >= width / 8) continue;
      for (const int threads : {1, 3}) {
        VertexRows rows(lattice, width, threads, Sums::kept);
        clear(&rows);
        add(first, &rows);
        VertexRows::blur({&rows}, false, threads);
        const std::vector<float> before = fetched(rows);
        add(change, &rows);
        VertexRows all(lattice, width, threads);
        clear(&all);
        add(first, &all);
        add(change, &all);
        VertexRows::blur({&all}, false, threads);
        VertexRows::blur({&rows}, false, threads, &slabs);
        check_slabs(fetched(rows), slabs, width, fetched(all), before);
        check_slabs(fetched(rows, &slabs), slabs, width, fetched(all), zeros);
        // Rows that hold the blurred values in place of the sums keep the others as they are.
        clear(&all);
        add(first, &all);
        VertexRows::blur({&all}, false, threads, &slabs);
        for (std::int64_t s = 0; s < lattice.strips.count; ++s) all.cleared_rows(s, &slabs);
        std::vector<float> left = first;
        for (float& value : left) value *= all.gain();
        check_slabs(fetched(all), slabs, width, zeros, left);
      }
    }
  }
}

void a_matrix_mixes_labels() {
  const Lattice lattice = lattice_of(3000, 2, 2.0F, {}, 1);
  for (const int n_labels : {3, 8, 21}) {
    const int width = crfseg::row_width(n_labels);
    const std::vector<float> matrix =
        check::Random(6).uniforms(std::int64_t{n_labels} * width, -1.0F, 1.0F);
    VertexRows rows(lattice, width, 2);
    clear(&rows);
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
  kept_sums_take_changes();
  only_the_slabs_asked_for_are_touched();
  a_matrix_mixes_labels();
  return check::result();
}

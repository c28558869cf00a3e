// SPDX-License-Identifier: MIT
// The blur x -> (1 - 2 side) x + side (neighbours) leaves its factor 1 - 2 side to gain(), so that
// vertices without neighbours are not touched: x -> x + side / (1 - 2 side) (neighbours).
#include "cpu/vertex_rows.h"

#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"
#include "parallel.h"

namespace crfseg {
namespace {

constexpr std::int64_t rows_per_piece = 4096;

// What the blur of so many axes leaves out.
float gain_of(const Lattice& lattice, int axes) {
  return static_cast<float>(
      std::pow(1.0 - 2.0 * BlurShape::of(lattice.passes).side, axes * lattice.passes));
}

// Values at most double with each pass: after so many axes the factors are taken in, lest they
// overflow.
int axes_between_rescales(const Lattice& lattice) { return 32 / lattice.passes; }

void clear(float* rows, std::int64_t n, kernels::Columns columns) {
  if (columns.count == columns.width) {
    std::fill_n(rows, n * columns.width, 0.0F);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    std::fill_n(rows + i * columns.width + columns.first, columns.count, 0.0F);
  }
}

}  // namespace

// A sweep over rows or chains that has to be through before the next one begins.
struct VertexRows::Step {
  enum class Kind { clear, add_up, blur, rescale, spread };
  Kind kind;
  const Chains* chains;
  std::int64_t first_row, n_pieces;
};

VertexRows::VertexRows(const Lattice& lattice, int width, const std::vector<float>& factor)
    : lattice_(&lattice),
      plan_(&lattice.blur_plan()),
      width_(width),
      factor_(factor.empty() ? std::vector<float>(static_cast<std::size_t>(width), 1.0F) : factor),
      values_(plan_->n_rows * width) {
  for (float& value : factor_) value *= gain();
}

// Runs of up to `most` neighbouring columns that cover all.
std::vector<kernels::Columns> VertexRows::columns(int most) const {
  if (width_ <= std::min(most, 24)) return {{width_, 0, width_}};
  std::vector<kernels::Columns> runs;
  for (int first = 0; first < width_; first += most) {
    runs.push_back({width_, first, std::min(most, width_ - first)});
  }
  return runs;
}

float* VertexRows::cleared_rows(std::int64_t strip) {
  float* rows = values_.data() + first_row(strip);
  std::fill_n(rows, lattice_->local_rows(strip) * width_, 0.0F);
  return rows;
}

float VertexRows::gain() const {
  return gain_of(*lattice_, (lattice_->dim + 1) % axes_between_rescales(*lattice_));
}

const float* VertexRows::fetch(std::int64_t strip, float* copy) const {
  fetch_with_largest(strip, nullptr, copy);
  return copy;
}

float VertexRows::fetch_with_largest(std::int64_t strip, const float* weight, float* copy) const {
  return active_kernels().scale(blurred(strip), {width_, 0, width_}, factor_.data(), weight,
                                lattice_->local_rows(strip), copy);
}

void VertexRows::mix(const float* matrix, int n_labels, int threads) {
  parallel_ranges(lattice_->n_local(), 256, threads, [&](std::int64_t first, std::int64_t last) {
    float* rows = values_.data() + first * width_;
    Buffer<float> before((last - first) * width_);
    std::copy_n(rows, before.size(), before.data());
    active_kernels().mix(before.data(), matrix, n_labels, last - first, width_, rows);
  });
}

std::vector<VertexRows::Step> VertexRows::steps(bool transpose) const {
  const auto over_rows = [&](Step::Kind kind, std::int64_t first) {
    const std::int64_t n = plan_->n_rows - first;
    return Step{kind, nullptr, first, (n + rows_per_piece - 1) / rows_per_piece};
  };
  const auto over_chains = [](Step::Kind kind, const Chains& chains) {
    return Step{kind, &chains, 0, chains.n_pieces()};
  };
  std::vector<Step> all;
  all.push_back(over_rows(Step::Kind::clear, lattice_->n_local()));
  all.push_back(over_chains(Step::Kind::add_up, plan_->shared));
  for (int i = 0; i <= lattice_->dim; ++i) {
    all.push_back(over_chains(Step::Kind::blur, plan_->axes[transpose ? lattice_->dim - i : i]));
    if ((i + 1) % axes_between_rescales(*lattice_) == 0) {
      all.push_back(over_rows(Step::Kind::rescale, 0));
    }
  }
  all.push_back(over_chains(Step::Kind::spread, plan_->shared));
  return all;
}

void VertexRows::take(const Step& step, std::int64_t piece, kernels::Columns columns) {
  const kernels::Table& kernels = active_kernels();
  float* all = values_.data();
  const std::int64_t first = step.first_row + piece * rows_per_piece;
  const std::int64_t last = std::min(first + rows_per_piece, plan_->n_rows);
  const BlurShape shape = BlurShape::of(lattice_->passes);
  switch (step.kind) {
    case Step::Kind::clear:
      return clear(all + first * width_, last - first, columns);
    case Step::Kind::rescale: {
      const std::vector<float> by(static_cast<std::size_t>(width_),
                                  gain_of(*lattice_, axes_between_rescales(*lattice_)));
      kernels.scale(all + first * width_, columns, by.data(), nullptr, last - first,
                    all + first * width_);
      return;
    }
    case Step::Kind::add_up:
      return kernels.add_up(all, columns, step.chains->piece(piece), step.chains->length(piece));
    case Step::Kind::spread:
      return kernels.spread(all, columns, step.chains->piece(piece), step.chains->length(piece));
    case Step::Kind::blur:
      return kernels.blur(all, columns, step.chains->piece(piece), step.chains->length(piece),
                          static_cast<float>(shape.side / (1.0 - 2.0 * shape.side)),
                          lattice_->passes);
  }
}

// Columns of one lattice, which a thread can take through all steps.
struct VertexRows::Part {
  std::int64_t floats() const { return rows->plan_->nbytes() / 4 * columns.count; }  // walked over
  std::int64_t n_pieces(std::size_t step) const {
    return step < steps.size() ? steps[step].n_pieces : 0;
  }

  VertexRows* rows;
  std::vector<Step> steps;
  kernels::Columns columns;
};

// Whether threads that take whole parts, the largest first, are through about as early as if they
// shared every step and waited for each other after it.
bool VertexRows::shares_are_even(const std::vector<Part>& parts, int threads) {
  const std::int64_t floats_per_wait = 50000;  // walked over in some microseconds
  std::vector<std::int64_t> load(static_cast<std::size_t>(std::max(threads, 1)));
  std::int64_t sum = 0;
  for (const Part& part : parts) {
    sum += part.floats();
    *std::min_element(load.begin(), load.end()) += part.floats();
  }
  const auto n_waits = static_cast<std::int64_t>(parts.empty() ? 0 : parts.front().steps.size());
  return *std::max_element(load.begin(), load.end()) <=
         sum / static_cast<std::int64_t>(load.size()) + n_waits * floats_per_wait;
}

void VertexRows::blur(const std::vector<VertexRows*>& all, bool transpose, int threads) {
  std::vector<Part> parts;
  for (VertexRows* rows : all) {
    for (const kernels::Columns& run : rows->columns(32)) {
      parts.push_back({rows, rows->steps(transpose), run});
    }
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& a, const Part& b) { return a.floats() > b.floats(); });
  if (shares_are_even(parts, threads)) {
    parallel_for(static_cast<std::int64_t>(parts.size()), threads, [&](std::int64_t i) {
      for (const Step& step : parts[i].steps) {
        for (std::int64_t piece = 0; piece < step.n_pieces; ++piece) {
          parts[i].rows->take(step, piece, parts[i].columns);
        }
      }
    });
    return;
  }
  std::size_t n_steps = 0;
  for (const Part& part : parts) n_steps = std::max(n_steps, part.steps.size());
  for (std::size_t step = 0; step < n_steps; ++step) {
    std::vector<std::pair<const Part*, std::int64_t>> pieces;
    for (const Part& part : parts) {
      for (std::int64_t i = 0; i < part.n_pieces(step); ++i) pieces.emplace_back(&part, i);
    }
    parallel_for(static_cast<std::int64_t>(pieces.size()), threads, [&](std::int64_t i) {
      const auto& [part, piece] = pieces[i];
      part->rows->take(part->steps[step], piece, part->columns);
    });
  }
}

}  // namespace crfseg

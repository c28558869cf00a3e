// SPDX-License-Identifier: MIT
// Splat, blur, slice of one lattice, with normalisation.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "cpu/dispatch.h"
#include "cpu/scales.h"
#include "cpu/vertex_rows.h"
#include "parallel.h"

namespace crfseg {
namespace {

// A range of one lattice's vertices.
struct Piece {
  VertexRows* rows;
  std::int64_t first, last;
};

std::vector<Piece> cut(const std::vector<VertexRows*>& all, std::int64_t floats) {
  std::vector<Piece> pieces;
  for (VertexRows* rows : all) {
    const std::int64_t n = rows->lattice().n_vertices;
    const std::int64_t grain = std::max<std::int64_t>(256, floats / rows->width());
    for (std::int64_t first = 0; first < n; first += grain) {
      pieces.push_back({rows, first, std::min(first + grain, n)});
    }
  }
  return pieces;
}

void pad_rows(const float* values, std::int64_t n, std::int64_t n_channels, int width,
              float* rows) {
  for (std::int64_t p = 0; p < n; ++p) {
    float* row = rows + p * width;
    std::copy_n(values + p * n_channels, n_channels, row);
    std::fill(row + n_channels, row + width, 0.0F);
  }
}

}  // namespace

VertexRows::VertexRows(const Lattice& lattice, int width)
    : lattice_(&lattice),
      width_(width),
      local_(lattice.n_local() * width),
      front_((lattice.n_vertices + 1) * width),
      back_((lattice.n_vertices + 1) * width) {
  for (int slab = 0; slab < n_slabs(); ++slab) {
    const std::int64_t zero_row = (slab + 1) * slab_stride() - lanes();
    std::fill_n(front_.data() + zero_row, lanes(), 0.0F);
    std::fill_n(back_.data() + zero_row, lanes(), 0.0F);
  }
}

float* VertexRows::cleared_rows(std::int64_t strip) {
  float* rows = local_.data() + lattice_->local_begin[strip] * width_;
  std::fill_n(rows, lattice_->local_rows(strip) * width_, 0.0F);
  return rows;
}

void VertexRows::fetch(std::int64_t strip, const float* factor, float* rows) const {
  const kernels::Slabs from{const_cast<float*>(front_.data()), slab_stride()};
  active_kernels().gather(from, lattice_->local_vertex.data() + lattice_->local_begin[strip],
                          factor, lattice_->local_rows(strip), width_, rows);
}

void VertexRows::mix(const float* matrix, int n_labels, int threads) {
  parallel_ranges(lattice_->n_vertices, 1024, threads, [&](std::int64_t first, std::int64_t last) {
    active_kernels().mix(slabs(front_), matrix, n_labels, first, last, width_, slabs(back_));
  });
  std::swap(front_, back_);
}

void VertexRows::add_up(std::int64_t first, std::int64_t last) {
  active_kernels().reduce(local_.data(), lattice_->gather_begin.data(), lattice_->gather_row.data(),
                          first, last, width_, slabs(front_));
}

void VertexRows::blur_step(int step, bool transpose, int slab, std::int64_t first,
                           std::int64_t last) {
  const int axis = step / lattice_->passes;
  const std::int64_t table = (transpose ? lattice_->dim - axis : axis) * lattice_->n_vertices * 2;
  Buffer<float>& from = step % 2 == 0 ? front_ : back_;
  Buffer<float>& to = step % 2 == 0 ? back_ : front_;
  active_kernels().blur(from.data() + slab * slab_stride(), lattice_->neighbours.data() + table,
                        static_cast<float>(BlurShape::of(lattice_->passes).side), first, last,
                        lanes(), to.data() + slab * slab_stride());
}

void VertexRows::blur(const std::vector<VertexRows*>& all, bool transpose, int threads) {
  const std::vector<Piece> pieces = cut(all, 65536);
  const auto n_pieces = static_cast<std::int64_t>(pieces.size());
  parallel_for(n_pieces, threads,
               [&](std::int64_t i) { pieces[i].rows->add_up(pieces[i].first, pieces[i].last); });

  struct Slab {
    VertexRows* rows;
    int index;
  };
  std::vector<Slab> work;
  for (VertexRows* rows : all) {
    for (int slab = 0; slab < rows->n_slabs(); ++slab) work.push_back({rows, slab});
  }
  if (static_cast<int>(work.size()) >= 3 * threads || threads == 1) {
    // A thread takes a slab through all axes: nobody waits for anybody. Large ones go first.
    std::stable_sort(work.begin(), work.end(), [](const Slab& a, const Slab& b) {
      return a.rows->slab_stride() * a.rows->n_blurs() > b.rows->slab_stride() * b.rows->n_blurs();
    });
    parallel_for(static_cast<std::int64_t>(work.size()), threads, [&](std::int64_t i) {
      VertexRows& rows = *work[i].rows;
      for (int step = 0; step < rows.n_blurs(); ++step) {
        rows.blur_step(step, transpose, work[i].index, 0, rows.lattice().n_vertices);
      }
    });
  } else {
    int steps = 0;
    for (const VertexRows* rows : all) steps = std::max(steps, rows->n_blurs());
    for (int step = 0; step < steps; ++step) {
      parallel_for(n_pieces, threads, [&](std::int64_t i) {
        VertexRows& rows = *pieces[i].rows;
        for (int slab = 0; slab < rows.n_slabs() && step < rows.n_blurs(); ++slab) {
          rows.blur_step(step, transpose, slab, pieces[i].first, pieces[i].last);
        }
      });
    }
  }
  for (VertexRows* rows : all) {
    if (rows->n_blurs() % 2 == 1) std::swap(rows->front_, rows->back_);
  }
}

namespace {

// S^T B S with its normalisation, on rows of any number of channels.
void filter(const Lattice& lattice, const Scales& scales, bool transpose, const float* values,
            std::int64_t n_channels, int threads, float* out) {
  const int width = row_width(n_channels);
  const int corners = lattice.dim + 1;
  const bool padded = width != n_channels;
  VertexRows rows(lattice, width);
  const std::vector<float> factor(static_cast<std::size_t>(width), scales.gain());
  const auto strip_corners = [&](std::int64_t begin) {
    return kernels::Corners{corners, lattice.corner_row.data() + begin * corners,
                            lattice.corner_weight.data() + begin * corners};
  };

  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = lattice.strips.begin(s);
    const std::int64_t n = lattice.strips.end(s) - begin;
    const float* source = values + begin * n_channels;
    Buffer<float> copy(padded ? n * width : 0);
    if (padded) pad_rows(source, n, n_channels, width, copy.data());
    active_kernels().splat(strip_corners(begin),
                           transpose ? scales.slice(begin) : scales.splat(begin),
                           padded ? copy.data() : source, n, width, rows.cleared_rows(s));
  });
  VertexRows::blur({&rows}, transpose, threads);
  parallel_for(lattice.strips.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = lattice.strips.begin(s);
    const std::int64_t n = lattice.strips.end(s) - begin;
    Buffer<float> incoming(lattice.local_rows(s) * width);
    rows.fetch(s, factor.data(), incoming.data());
    float* target = out + begin * n_channels;
    Buffer<float> copy(padded ? n * width : 0);
    active_kernels().slice(strip_corners(begin),
                           transpose ? scales.splat(begin) : scales.slice(begin), incoming.data(),
                           n, width, padded ? copy.data() : target);
    for (std::int64_t p = 0; padded && p < n; ++p) {
      std::copy_n(copy.data() + p * width, n_channels, target + p * n_channels);
    }
  });
}

}  // namespace

const Buffer<float>& Lattice::normalizer(int threads) const {
  const std::lock_guard<std::mutex> lock(normalizer_mutex_);
  if (normalizer_.size() != n_points) {
    const std::vector<float> ones(static_cast<std::size_t>(n_points), 1.0F);
    Buffer<float> sums(n_points);
    filter(*this, Scales{}, false, ones.data(), 1, threads, sums.data());
    normalizer_ = std::move(sums);
  }
  return normalizer_;
}

Scales::Scales(const Lattice& lattice, Normalization normalization, int threads)
    : on_slice_(normalization == Normalization::after || normalization == Normalization::symmetric),
      on_splat_(normalization == Normalization::before ||
                normalization == Normalization::symmetric) {
  if (normalization == Normalization::none) {
    gain_ = static_cast<float>(lattice_gain(lattice.dim, lattice.fill, lattice.passes));
    return;
  }
  const bool root = normalization == Normalization::symmetric;
  const Buffer<float>& sums = lattice.normalizer(threads);
  scale_.resize(sums.size());
  std::transform(sums.begin(), sums.end(), scale_.begin(),
                 [root](float n) { return 1.0F / (root ? std::sqrt(n) : n); });
}

void lattice_filter(const Lattice& lattice, Normalization normalization, bool transpose,
                    const float* values, std::int64_t n_channels, int threads, float* out) {
  filter(lattice, Scales(lattice, normalization, threads), transpose, values, n_channels, threads,
         out);
}

}  // namespace crfseg

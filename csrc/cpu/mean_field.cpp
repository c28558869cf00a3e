// SPDX-License-Identifier: MIT
#include "mean_field.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "cpu/scales.h"
#include "cpu/scratch.h"
#include "cpu/vertex_rows.h"
#include "parallel.h"

namespace crfseg {
namespace {

kernels::LabelStrip strip_of(const LabelView<const float>& view, std::int64_t begin) {
  return {const_cast<float*>(view.data) + begin * view.point_stride, view.label_stride,
          view.point_stride};
}

// Rows (n_labels, width) of -w gain mu: row b holds what label b adds to every label.
std::vector<float> message_matrix(const Compatibility& compatibility, float weight, int n_labels,
                                  int width) {
  std::vector<float> rows(static_cast<std::size_t>(n_labels) * width, 0.0F);
  for (int a = 0; a < n_labels; ++a) {
    for (int b = 0; b < n_labels; ++b) {
      const float mu = compatibility.values[static_cast<std::size_t>(a) * n_labels + b];
      rows[static_cast<std::size_t>(b) * width + a] = -weight * mu;
    }
  }
  return rows;
}

}  // namespace

struct MeanField::Kernel {
  Kernel(std::shared_ptr<const Lattice> shared, Normalization mode, float w,
         const Compatibility& mu, bool exclude, int n_labels, int width, int threads)
      : lattice(std::move(shared)),
        scales(*lattice, mode, threads),
        rows(*lattice, width, threads),
        normalization(mode),
        weight(w),
        kind(mu.kind) {
    const float factor_weight = w * scales.gain();
    const bool diagonal = kind != Compatibility::Kind::matrix;
    // Potts is taken as -1 times the identity, which differs by the same amount for all labels.
    factor.assign(static_cast<std::size_t>(width), diagonal ? 0.0F : 1.0F);
    for (int a = 0; diagonal && a < n_labels; ++a) {
      factor[a] = factor_weight * (kind == Compatibility::Kind::vector ? mu.values[a] : 1.0F);
    }
    if (!diagonal) matrix = message_matrix(mu, factor_weight, n_labels, width);
    if (exclude) {
      self.resize(lattice->n_points);
      self_response(*lattice, threads, self.data());
      for (std::int64_t p = 0; p < self.size(); ++p) {
        if (scales.slice(p) != nullptr) self[p] *= *scales.slice(p);
        if (scales.splat(p) != nullptr) self[p] *= *scales.splat(p);
      }
    }
  }

  kernels::Message message(std::int64_t strip, float* incoming, bool splat) {
    const std::int64_t begin = lattice->strips.begin(strip);
    const std::int64_t corner = begin * (lattice->dim + 1);
    kernels::Message m{};
    m.at = {lattice->dim + 1, lattice->corner_row.data() + corner,
            lattice->corner_weight.data() + corner};
    m.slice_scale = scales.slice(begin);
    m.splat_scale = scales.splat(begin);
    m.incoming = incoming;
    if (incoming != nullptr) rows.fetch(strip, factor.data(), incoming);
    m.outgoing = splat ? rows.cleared_rows(strip) : nullptr;
    if (self.size() > 0) {
      m.self = self.data() + begin;
      m.self_factor = factor.data();
      m.self_rows = kind == Compatibility::Kind::matrix ? matrix.data() : nullptr;
    }
    return m;
  }

  // Half of the sum of w K~ over all pairs of points.
  double half_total_weight(int threads) {
    if (!half_total) {
      const std::vector<float> ones(static_cast<std::size_t>(lattice->n_points), 1.0F);
      std::vector<float> mass(ones.size());
      lattice_filter(*lattice, normalization, false, ones.data(), 1, threads, mass.data());
      double total = 0.0;
      for (const float m : mass) total += static_cast<double>(m);
      for (const float s : self) total -= static_cast<double>(s * scales.gain());
      half_total = 0.5 * static_cast<double>(weight) * total;
    }
    return *half_total;
  }

  std::int64_t nbytes() const { return rows.nbytes() + scales.nbytes() + self.nbytes(); }

  std::shared_ptr<const Lattice> lattice;
  Scales scales;
  VertexRows rows;
  Normalization normalization;
  float weight;
  Compatibility::Kind kind;
  std::vector<float> factor;  // (width) what blurred rows are multiplied by on their way to points
  std::vector<float> matrix;  // (n_labels, width), see message_matrix; empty where not needed
  Buffer<float> self;         // (n_points) with exclude_self: the diagonal of K~ / gain
  std::optional<double> half_total;  // half_total_weight, once asked for
};

struct MeanField::Pass {
  bool slice = true, splat = true;
  bool change = false, energy = false, entropy = true;
  bool keep_q = false, given_q = false;
  float damping = 0.0F;
  LabelView<float> out;
  std::int32_t* labels = nullptr;
  int threads = 1;
};

MeanField::MeanField(std::int64_t n_points, int n_labels)
    : strips_(Strips::of(n_points)),
      n_labels_(n_labels <= max_labels ? n_labels
                                       : throw std::invalid_argument("at most 2^20 labels")),
      width_(std::max(4, row_width(n_labels))),
      log_unary_(n_points * width_) {}

MeanField::~MeanField() = default;

std::int64_t MeanField::nbytes() const {
  std::int64_t sum = log_unary_.nbytes() + q_.nbytes() + z_.nbytes();
  for (const auto& kernel : kernels_) sum += kernel->nbytes();
  return sum;
}

UnaryReport MeanField::set_unary(LabelView<const float> values, UnaryKind kind, float clip,
                                 int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<kernels::UnaryStats> parts(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, threads, [&](std::int64_t s) {
    const std::int64_t begin = strips_.begin(s);
    parts[s] = {-1, -1, -1, infinity, 0.0F, 0.0};
    active_kernels().load_unary(strip_of(values, begin), static_cast<kernels::UnaryKind>(kind),
                                clip, strips_.end(s) - begin, n_labels_, width_,
                                log_unary_.data() + begin * width_, &parts[s]);
  });
  UnaryReport report;
  report.low = infinity;
  unary_offset_ = 0.0;
  for (std::int64_t s = 0; s < strips_.count; ++s) {
    // Strips count places in themselves.
    const kernels::UnaryStats& part = parts[s];
    unary_offset_ += part.offset;
    const std::int64_t n = strips_.end(s) - strips_.begin(s);
    const auto flat = [&](std::int64_t place) {
      return place / n * strips_.n_points + strips_.begin(s) + place % n;
    };
    if (part.bad >= 0 && (report.bad < 0 || flat(part.bad) < report.bad)) {
      report.bad = flat(part.bad);
    }
    if (part.low < report.low) {
      report.low = part.low;
      report.low_at = flat(part.low_at);
    }
    if (part.off > report.off) {
      report.off = part.off;
      report.off_at = strips_.begin(s) + part.off_at;
    }
  }
  return report;
}

void MeanField::add_kernel(std::shared_ptr<const Lattice> lattice, Normalization normalization,
                           float weight, Compatibility compatibility, bool exclude_self,
                           int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  kernels_.push_back(std::make_unique<Kernel>(std::move(lattice), normalization, weight,
                                              compatibility, exclude_self, n_labels_, width_,
                                              threads));
}

void MeanField::clear_kernels() {
  const std::lock_guard<std::mutex> lock(mutex_);
  kernels_.clear();
}

void MeanField::exchange(int threads) {
  std::vector<VertexRows*> all;
  for (const auto& kernel : kernels_) all.push_back(&kernel->rows);
  VertexRows::blur(all, false, threads);
  for (const auto& kernel : kernels_) {
    if (kernel->kind == Compatibility::Kind::matrix) {
      kernel->rows.mix(kernel->matrix.data(), n_labels_, threads);
    }
  }
}

MeanField::Totals MeanField::run(const Pass& wanted) {
  int batch = 32;
  while (batch > 8 && batch * width_ > 8192) batch /= 2;
  std::vector<std::int64_t> incoming_at;
  std::int64_t scratch_size = batch * width_;
  for (const auto& kernel : kernels_) {
    incoming_at.push_back(scratch_size);
    std::int64_t most = 0;
    for (std::int64_t s = 0; s < strips_.count; ++s) {
      most = std::max(most, kernel->lattice->local_rows(s));
    }
    if (wanted.slice) scratch_size += most * width_;
  }
  Scratch scratch(scratch_size);
  std::vector<float> changes(static_cast<std::size_t>(strips_.count));
  std::vector<double> energies(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, wanted.threads, [&](std::int64_t s) {
    Scratch::Loan loan = scratch.borrow();
    std::vector<kernels::Message> messages;
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      messages.push_back(kernels_[k]->message(
          s, wanted.slice ? loan.data() + incoming_at[k] : nullptr, wanted.splat));
    }
    const std::int64_t begin = strips_.begin(s);
    float* q = wanted.keep_q || wanted.given_q ? q_.data() + begin * width_ : nullptr;
    kernels::FieldPass pass{};
    pass.n_points = strips_.end(s) - begin;
    pass.n_labels = n_labels_;
    pass.width = width_;
    pass.log_unary = log_unary_.data() + begin * width_;
    pass.messages = messages.data();
    pass.n_messages = static_cast<int>(messages.size());
    pass.scratch = loan.data();
    pass.batch = batch;
    pass.damping = wanted.damping;
    pass.z = wanted.damping > 0.0F ? z_.data() + begin * width_ : nullptr;
    pass.q = wanted.given_q ? nullptr : q;
    pass.fixed_q = wanted.given_q ? q : nullptr;
    if (wanted.out) {
      pass.out = {wanted.out.data + begin * wanted.out.point_stride, wanted.out.label_stride,
                  wanted.out.point_stride};
    }
    pass.labels = wanted.labels != nullptr ? wanted.labels + begin : nullptr;
    pass.want_change = wanted.change;
    pass.want_energy = wanted.energy;
    pass.entropy = wanted.entropy;
    active_kernels().field_pass(&pass);
    changes[s] = pass.max_change;
    energies[s] = pass.energy;
  });
  Totals totals;
  for (const float change : changes) totals.change = std::max(totals.change, change);
  for (const double energy : energies) totals.energy += energy;
  return totals;
}

void MeanField::load_q(LabelView<const float> q, int threads) {
  q_.resize(strips_.n_points * width_);
  parallel_for(strips_.count, threads, [&](std::int64_t s) {
    for (std::int64_t p = strips_.begin(s); p < strips_.end(s); ++p) {
      float* row = q_.data() + p * width_;
      for (int label = 0; label < n_labels_; ++label) row[label] = q(label, p);
      std::fill(row + n_labels_, row + width_, 0.0F);
    }
  });
}

// The natural parameters that damping starts from: -U, or the logarithm of a given Q.
void MeanField::start_damping(bool given_q, int threads) {
  z_.resize(log_unary_.size());
  const float tiny = std::numeric_limits<float>::min();
  parallel_ranges(z_.size(), 65536, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      z_[i] = given_q ? std::log(std::max(q_[i], tiny)) : log_unary_[i];
    }
  });
}

bool MeanField::excludes_self() const {
  return std::any_of(kernels_.begin(), kernels_.end(),
                     [](const auto& kernel) { return kernel->self.size() > 0; });
}

Inference MeanField::infer(LabelView<const float> start, const InferenceOptions& options,
                           LabelView<float> out, std::int32_t* labels) {
  if (!(options.damping >= 0.0F && options.damping < 1.0F)) {
    throw std::invalid_argument("damping must be at least 0 and, in float32, below 1");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  Inference result;
  const bool watch = options.tolerance > 0.0F || options.trace;
  const bool keep_q = watch || excludes_self();
  const bool given = static_cast<bool>(start);
  if (given) load_q(start, options.threads);
  if (keep_q) q_.resize(log_unary_.size());
  if (options.damping > 0.0F) start_damping(given, options.threads);

  Pass first;
  first.threads = options.threads;
  first.slice = false;
  first.splat = options.iterations > 0 || options.trace;
  first.given_q = given;
  first.keep_q = keep_q;
  if (options.iterations == 0) {
    first.out = out;
    first.labels = labels;
  }
  run(first);

  Pass step;
  step.threads = options.threads;
  step.change = watch;
  step.keep_q = keep_q;
  step.damping = options.damping;
  bool done = options.iterations == 0;
  while (!done) {
    if (options.between_iterations) options.between_iterations();
    exchange(options.threads);
    if (options.trace) result.trace.push_back(evaluate(true, options.threads));
    ++result.iterations;
    const bool last = result.iterations == options.iterations;
    if (last && !watch) {
      step.out = out;
      step.labels = labels;
      step.splat = false;
    }
    const Totals totals = run(step);
    if (watch) result.max_change = totals.change;
    done = last || (options.tolerance > 0.0F && totals.change < options.tolerance);
  }
  if (options.trace) {
    exchange(options.threads);
    result.trace.push_back(evaluate(true, options.threads));
  }
  if (watch && result.iterations > 0) {
    Pass write;
    write.threads = options.threads;
    write.slice = write.splat = false;
    write.given_q = true;
    write.out = out;
    write.labels = labels;
    run(write);
  }
  if (!watch || result.iterations == 0) {
    result.max_change = std::numeric_limits<float>::quiet_NaN();
  }
  return result;
}

// The free energy of q_ (without the entropy: its expected energy), its splat having been
// exchanged.
double MeanField::evaluate(bool entropy, int threads) {
  Pass pass;
  pass.threads = threads;
  pass.splat = false;
  pass.keep_q = true;
  pass.energy = true;
  pass.entropy = entropy;
  return run(pass).energy + unary_offset_ + potts_constant(threads);
}

// The passes take Potts' [a != b] as -[a == b]; what that leaves out of the energy is half the
// total weight of all pairs.
double MeanField::potts_constant(int threads) {
  double sum = 0.0;
  for (const auto& kernel : kernels_) {
    if (kernel->kind == Compatibility::Kind::potts) sum += kernel->half_total_weight(threads);
  }
  return sum;
}

double MeanField::energy_of_q(bool entropy, int threads) {
  Pass splat;
  splat.threads = threads;
  splat.slice = false;
  splat.given_q = true;
  run(splat);
  exchange(threads);
  return evaluate(entropy, threads);
}

double MeanField::free_energy(LabelView<const float> q, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  load_q(q, threads);
  return energy_of_q(true, threads);
}

double MeanField::energy(const std::int32_t* labels, int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  q_.resize(log_unary_.size());
  std::fill(q_.begin(), q_.end(), 0.0F);
  for (std::int64_t p = 0; p < strips_.n_points; ++p) q_[p * width_ + labels[p]] = 1.0F;
  return energy_of_q(false, threads);
}

}  // namespace crfseg

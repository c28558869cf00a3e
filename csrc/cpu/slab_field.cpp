// SPDX-License-Identifier: MIT
#include "cpu/slab_field.h"

#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"
#include "parallel.h"

namespace crfseg {
namespace {

constexpr std::int64_t line = 16;  // floats; rows of slabs had better not straddle two lines

std::int64_t to_lines(std::int64_t floats) { return (floats + line - 1) / line * line; }

// Where rows of vertices are more than points, walks along them take most of the time, and one over
// wide rows takes less than two over narrow ones.
int most_together(const SlabField::Kernels& kernels, const Strips& strips) {
  std::int64_t rows = 0;
  for (const auto& kernel : kernels) rows += kernel->lattice().n_local();
  return rows > strips.n_points ? kernels::widest_slab : kernels::slab_width;
}

// Small batches leave more out.
int batch_of(int n_slabs) {
  int batch = n_slabs > 1 ? kernels::most_batched / 2 : kernels::most_batched;
  while (batch > 8 && batch * n_slabs > 4096) batch /= 2;
  return batch;
}

// Of what passes over points work in, without rows of vertices.
std::int64_t scratch_size(int n_slabs, int batch) {
  return to_lines((std::int64_t{n_slabs} + 1) * kernels::widest_slab * batch +
                  std::int64_t{n_slabs} * batch);
}

}  // namespace

// What a thread needs for one strip.
struct SlabField::Work {
  explicit Work(Scratch* scratch) : loan(scratch->borrow()) {}

  Scratch::Loan loan;
  std::vector<kernels::Slab> slabs;
  std::vector<kernels::Message> messages;
  std::vector<const float*> incoming;
  std::vector<float*> outgoing;
  std::vector<float> growth;
  std::vector<unsigned char> is_live;
};

bool SlabField::apply(const Kernels& kernels, int n_labels) {
  return n_labels > 1 && std::all_of(kernels.begin(), kernels.end(), [](const auto& kernel) {
           return kernel->attracts() && kernel->is_normalized() && !kernel->excludes_self();
         });
}

SlabField::SlabField(const UnarySupply& unary, const Kernels& kernels, const Strips& strips,
                     int n_labels, int width, bool skip, int threads, Buffer<float>* p)
    : kernels_(by_corners(kernels)),
      strips_(strips),
      n_labels_(n_labels),
      threads_(threads),
      tolerance_(skip ? tolerance : 0.0F),
      supply_(unary, strips, n_labels, width, most_together(kernels, strips), p),
      batch_(batch_of(supply_.n_slabs())),
      batches_per_strip_((std::min(strips.size, strips.n_points) + batch_ - 1) / batch_),
      mass_(strips.count * batches_per_strip_ * supply_.n_slabs()),
      top_(supply_.needs_top() ? strips.n_points : 0),
      scratch_(scratch_size(supply_.n_slabs(), batch_) +
               to_lines(most_rows(kernels, strips) * supply_.width()) +
               line * static_cast<std::int64_t>(kernels.size()) * supply_.n_slabs()) {
  for (FieldKernel* kernel : kernels_) kernel->hold_slabs(supply_);
}

kernels::SlabPass SlabField::pass(std::int64_t strip, const Result& result, Work* work) {
  const std::int64_t begin = strips_.begin(strip);
  work->slabs = supply_.slabs(strip);
  work->is_live.resize(work->slabs.size());
  for (const FieldKernel* kernel : kernels_) work->messages.push_back(kernel->points(strip));
  kernels::SlabPass pass{};
  pass.unary = supply_.source(strip);
  pass.slabs = work->slabs.data();
  pass.n_slabs = supply_.n_slabs();
  pass.n_labels = n_labels_;
  pass.place = supply_.place();
  pass.messages = work->messages.data();
  pass.n_messages = static_cast<int>(kernels_.size());
  pass.mass = mass_.data() + strip * batches_per_strip_ * pass.n_slabs;
  pass.top = top_.size() > 0 ? top_.data() + begin : nullptr;
  pass.scratch = work->loan.data();
  pass.is_live = work->is_live.data();
  pass.batch = batch_;
  pass.tolerance = tolerance_;
  if (result.out) pass.out = strip_of(result.out, begin);
  pass.labels = result.labels != nullptr ? result.labels + begin : nullptr;
  return pass;
}

// In this order: blurred rows lie where the sums will.
void SlabField::fetch_rows(std::int64_t strip, kernels::SlabPass* pass, Work* work) const {
  float* room = work->loan.data() + scratch_size(pass->n_slabs, batch_);
  std::vector<float> reach(work->slabs.size());
  for (FieldKernel* kernel : kernels_) {
    for (int g = 0; g < pass->n_slabs; ++g) {
      const VertexRows& rows = kernel->rows(g);
      reach[g] += rows.fetch_with_largest(strip, kernel->row_scale(strip), room);
      work->incoming.push_back(room);
      room += to_lines(rows.lattice().local_rows(strip) * rows.width());
    }
  }
  for (const float value : reach) work->growth.push_back(std::exp2(value));
  pass->incoming = work->incoming.data();
  pass->growth = work->growth.data();
}

void SlabField::clear_rows(std::int64_t strip, kernels::SlabPass* pass, Work* work) const {
  for (FieldKernel* kernel : kernels_) {
    for (int g = 0; g < pass->n_slabs; ++g) {
      work->outgoing.push_back(kernel->rows(g).cleared_rows(strip));
    }
  }
  pass->outgoing = work->outgoing.data();
}

UnaryReport SlabField::start() {
  std::vector<kernels::UnaryStats> found(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(&scratch_);
    kernels::SlabPass pass = this->pass(s, {}, &work);
    found[s] = empty_stats();
    pass.stats = &found[s];
    clear_rows(s, &pass, &work);
    active_kernels().slab_start(&pass);
  });
  return merge(strips_, found);
}

bool SlabField::evaluate(bool is_last, bool is_kept, const Result& result) {
  std::vector<std::int64_t> evaluated(static_cast<std::size_t>(strips_.count));
  std::vector<char> overflows(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(&scratch_);
    kernels::SlabPass pass = this->pass(s, result, &work);
    fetch_rows(s, &pass, &work);
    if (!is_last) clear_rows(s, &pass, &work);
    // Marginals that are handed out are those of all labels, lest any is 0 that is not impossible.
    if (is_kept || result.out) pass.tolerance = 0.0F;
    pass.keep = is_kept;
    active_kernels().slab_step(&pass);
    evaluated[s] = pass.evaluated;
    overflows[s] = pass.overflows ? 1 : 0;
  });
  for (const std::int64_t n : evaluated) evaluated_ += n;
  return std::all_of(overflows.begin(), overflows.end(), [](char c) { return c == 0; });
}

bool SlabField::step() { return evaluate(false, false, {}); }

bool SlabField::finish(LabelView<float> out, std::int32_t* labels) {
  return evaluate(true, false, {out, labels});
}

bool SlabField::keep() { return evaluate(true, true, {}); }

void SlabField::write(LabelView<float> out, std::int32_t* labels) {
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(&scratch_);
    const kernels::SlabPass pass = this->pass(s, {out, labels}, &work);
    active_kernels().slab_write(&pass);
  });
}

}  // namespace crfseg

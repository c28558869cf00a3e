// SPDX-License-Identifier: MIT
#include "cpu/skipping.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "cpu/dispatch.h"
#include "cpu/unary_supply.h"
#include "parallel.h"

namespace crfseg {
namespace {

// Where more points than this share get a slot, looking at all of them costs less.
constexpr double most_slots = 0.8;
constexpr std::int64_t group = 64;
constexpr float most_dormant = std::numeric_limits<float>::max();  // limits beyond: there is a slot

std::int64_t groups_of(std::int64_t n) { return (n + group - 1) / group; }

}  // namespace

// What a thread holds while it works on a strip.
struct Skipping::Work {
  Work(Skipping* owner, std::int64_t s)
      : strip(s),
        n_points(owner->strips_.end(s) - owner->strips_.begin(s)),
        loan(owner->scratch_.borrow()),
        batches(loan.data()),
        drift_in(batches + 3 * owner->batch_ * owner->width_),
        incoming(drift_in + owner->rows_of(s)) {
    float* points = incoming + owner->rows_of(s) * owner->width_;
    due = {reinterpret_cast<std::uint32_t*>(points), points + owner->strips_.size, 0};
  }

  std::int64_t strip, n_points;
  Scratch::Loan loan;
  float* batches;   // (3 batch, width)
  float* drift_in;  // (rows)
  float* incoming;  // (rows, width)
  kernels::Due due;
  std::vector<kernels::Message> messages;
};

Skipping::Skipping(const UnarySupply& unary,
                   const std::vector<std::unique_ptr<FieldKernel>>& kernels, const Strips& strips,
                   int n_labels, int width, LabelView<float> out, std::int32_t* labels, int threads)
    : unary_(unary),
      kernels_(kernels),
      strips_(strips),
      n_labels_(n_labels),
      width_(width),
      batch_(batch_points(width)),
      threads_(threads),
      out_(out),
      labels_(labels),
      scratch_([&] {
        std::int64_t most = 0;
        for (std::int64_t s = 0; s < strips.count; ++s) most = std::max(most, rows_of(s));
        return 3 * batch_ * width + most * (width + 1) + 2 * strips.size;
      }()),
      parts_(static_cast<std::size_t>(strips.count)),
      limit_(strips.n_points) {
  for (const auto& kernel : kernels_) {
    kernel->keep_sums(true);
    kernel->start_drift();
  }
}

std::int64_t Skipping::rows_of(std::int64_t strip) const {
  std::int64_t rows = 0;
  for (const auto& kernel : kernels_) rows += kernel->lattice().local_rows(strip);
  return rows;
}

// The strip with its messages, which do not yet read or write anything.
kernels::SkippingPass Skipping::pass(Work* work) {
  const std::int64_t s = work->strip, begin = strips_.begin(s);
  Strip& part = parts_[s];
  std::uint32_t* row = part.row.data();
  float *weight = part.weight.data(), *scale = part.scale.data();
  for (const auto& kernel : kernels_) {
    kernels::Message m = kernel->message(s, nullptr, false);
    m.slot_row = row;
    m.slot_weight = weight;
    m.slot_scale = m.slice_scale != m.splat_scale ? scale : nullptr;
    row += work->n_points * m.at.corners;
    weight += work->n_points * m.at.corners;
    scale += work->n_points;
    work->messages.push_back(m);
  }
  kernels::SkippingPass pass{};
  pass.unary = unary_.strip(strips_, s, width_);
  pass.n_labels = n_labels_;
  pass.width = width_;
  pass.messages = work->messages.data();
  pass.n_messages = static_cast<int>(work->messages.size());
  pass.scratch = work->batches;
  pass.batch = batch_;
  pass.tolerance = tolerance;
  pass.slots = part.slots;
  pass.limit = limit_.data() + begin;
  if (out_) {
    pass.out = {out_.data + begin * out_.point_stride, out_.label_stride, out_.point_stride};
  }
  pass.labels = labels_ != nullptr ? labels_ + begin : nullptr;
  return pass;
}

UnaryReport Skipping::start() {
  std::vector<kernels::UnaryStats> parts(static_cast<std::size_t>(strips_.count));
  std::vector<double> uncertainty(parts.size());
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(this, s);
    kernels::SkippingPass pass = this->pass(&work);
    parts[s] = empty_stats();
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      pass.messages[k].outgoing = kernels_[k]->rows().cleared_rows(s);
    }
    active_kernels().start_pass(&pass, &parts[s], &uncertainty[s]);
  });
  for (const double part : uncertainty) uncertainty_ += part;
  return merge(strips_, parts);
}

void Skipping::make_room(std::int64_t strip) {
  const std::int64_t n = strips_.end(strip) - strips_.begin(strip);
  std::int64_t corners = 0;
  for (const auto& kernel : kernels_) corners += kernel->lattice().dim + 1;
  Strip& part = parts_[strip];
  part.rows.reserve(n * 2 * width_);
  part.limit.reserve(n);
  part.point.reserve(n);
  part.row.reserve(n * corners);
  part.weight.reserve(n * corners);
  part.scale.reserve(n * n_kernels());
  part.slots = {part.rows.data(), part.point.data(), part.limit.data(), 0};
  part.alarm.resize(n);
  part.drift.resize(rows_of(strip));
  std::fill(part.drift.begin(), part.drift.end(), 0.0F);
}

bool Skipping::settle() {
  // Messages will move by about as much as Q does in the first iteration, which mostly takes what
  // probability is left to it from a point's other labels. Points whose limit is well beyond that
  // start dormant.
  float expected = 0.0F;
  for (const auto& kernel : kernels_) expected += kernel->drift_weight();
  expected *= static_cast<float>(uncertainty_ / static_cast<double>(strips_.n_points));
  const float dormant_from = std::clamp(1.5F * expected, 1.0F, 4.0F);
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(this, s);
    make_room(s);
    kernels::SkippingPass pass = this->pass(&work);
    float* incoming = work.incoming;
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      kernels::Message& m = pass.messages[k];
      m.incoming = kernels_[k]->fetch(s, incoming);
      m.outgoing = kernels_[k]->rows().cleared_rows(s);
      m.moved = kernels_[k]->drift_rows().cleared_rows(s);
      incoming += kernels_[k]->lattice().local_rows(s) * width_;
    }
    active_kernels().settle_pass(&pass, dormant_from);
    parts_[s].slots = pass.slots;
    note_groups(work);
  });
  std::int64_t n_slots = 0;
  for (const Strip& part : parts_) n_slots += part.slots.count;
  evaluations_ += strips_.n_points;
  return static_cast<double>(n_slots) < most_slots * static_cast<double>(strips_.n_points);
}

// The rows that the dormant points of each group read, each once.
void Skipping::note_groups(const Work& work) {
  const std::int64_t begin = strips_.begin(work.strip);
  const float* limit = limit_.data() + begin;
  Strip& part = parts_[work.strip];
  std::copy_n(limit, work.n_points, part.alarm.data());
  part.clock.assign(groups_of(work.n_points), 0.0F);
  part.rows_read.clear();
  part.rows_end.clear();
  part.group_scale.clear();
  std::vector<std::int64_t> last_group(rows_of(work.strip), -1);
  for (std::int64_t first = 0; first < work.n_points; first += group) {
    const std::int64_t last = std::min(first + group, work.n_points);
    std::int64_t* seen = last_group.data();
    std::uint32_t offset = 0;
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      const kernels::Message& m = work.messages[k];
      float most = 0.0F;
      for (std::int64_t p = first; p < last; ++p) {
        if (limit[p] > most_dormant) continue;
        most = std::max(most, m.slice_scale != nullptr ? m.slice_scale[p] : 1.0F);
        for (std::int64_t c = p * m.at.corners; c < (p + 1) * m.at.corners; ++c) {
          const std::uint32_t row = m.at.row[c];
          if (std::exchange(seen[row], first) != first) part.rows_read.push_back(offset + row);
        }
      }
      part.group_scale.push_back(most);
      part.rows_end.push_back(static_cast<std::uint32_t>(part.rows_read.size()));
      const std::int64_t n_rows = kernels_[k]->lattice().local_rows(work.strip);
      offset += static_cast<std::uint32_t>(n_rows);
      seen += n_rows;
    }
  }
}

// The strip's drift; the groups' clocks go on by how much it has grown.
void Skipping::fetch_drift(Work* work) {
  Strip& part = parts_[work->strip];
  float* before = part.drift.data();
  float* grown = work->incoming;  // not needed yet
  for (std::int64_t k = 0; k < n_kernels(); ++k) {
    const std::int64_t n = kernels_[k]->lattice().local_rows(work->strip);
    const float* now = kernels_[k]->fetch_drift(work->strip, work->drift_in);
    work->messages[k].drift = now;
    for (std::int64_t r = 0; r < n; ++r) grown[r] = now[r] - before[r];
    std::copy_n(now, n, before);
    grown += n;
    before += n;
  }
  const std::uint32_t* row = part.rows_read.data();
  for (std::size_t i = 0; i < part.rows_end.size(); ++i) {
    const std::uint32_t* end = part.rows_read.data() + part.rows_end[i];
    float most = 0.0F;
    for (; row != end; ++row) most = std::max(most, work->incoming[*row]);
    part.clock[i / kernels_.size()] += part.group_scale[i] * most;
  }
}

// Slots that are due; dormant points that are, are given one.
void Skipping::find_due(Work* work) {
  Strip& part = parts_[work->strip];
  kernels::SkippingPass pass = this->pass(work);
  fetch_drift(work);
  active_kernels().find_due(&pass, &work->due);
  for (std::int64_t first = 0; first < work->n_points; first += group) {
    const float clock = part.clock[first / group];
    const std::int64_t n = std::min(group, work->n_points - first);
    float* alarm = part.alarm.data() + first;
    if (*std::min_element(alarm, alarm + n) >= clock) continue;
    std::uint32_t index[group];
    kernels::Due woken{index, work->due.drift + work->due.count, 0};
    active_kernels().find_woken(&pass, first, static_cast<int>(n), clock, alarm, &woken);
    for (int i = 0; i < woken.count; ++i) {
      work->due.index[work->due.count++] = static_cast<std::uint32_t>(pass.slots.count + i);
    }
    active_kernels().wake(&pass, woken);
  }
  part.slots = pass.slots;
}

void Skipping::step(bool last) {
  std::vector<VertexRows*> drift;
  for (const auto& kernel : kernels_) drift.push_back(&kernel->drift_rows());
  VertexRows::blur(drift, false, threads_);
  std::vector<std::int64_t> evaluated(parts_.size());
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Work work(this, s);
    find_due(&work);
    evaluated[s] = work.due.count;
    if (work.due.count == 0) return;
    work.messages.clear();
    kernels::SkippingPass pass = this->pass(&work);
    float* incoming = work.incoming;
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      kernels::Message& m = pass.messages[k];
      m.incoming = kernels_[k]->fetch(s, incoming);
      m.outgoing = last ? nullptr : kernels_[k]->rows().rows(s);
      m.moved = kernels_[k]->drift_rows().rows(s);
      incoming += kernels_[k]->lattice().local_rows(s) * width_;
    }
    active_kernels().active_pass(&pass, work.due);
  });
  for (const std::int64_t n : evaluated) evaluations_ += n;
}

void Skipping::write() {
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    const kernels::Slots& slots = parts_[s].slots;
    for (int slot = 0; slot < slots.count; ++slot) {
      const std::int64_t at = strips_.begin(s) + slots.point[slot];
      const float* q = slots.rows + (std::int64_t{slot} * 2 + 1) * width_;
      for (int label = 0; out_ && label < n_labels_; ++label) out_(label, at) = shown(q[label]);
      if (labels_ != nullptr) {
        labels_[at] = static_cast<std::int32_t>(std::max_element(q, q + n_labels_) - q);
      }
    }
  });
}

}  // namespace crfseg

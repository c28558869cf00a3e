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
        grown(batches + 3 * owner->batch_ * owner->width_) {
    float* points = grown + owner->rows_of(s);
    due = {reinterpret_cast<std::uint32_t*>(points), points + owner->strips_.size, 0};
    slots = points + 2 * owner->strips_.size;
  }

  std::int64_t strip, n_points;
  Scratch::Loan loan;
  float* batches;  // (3 batch, width)
  float* grown;    // (rows) drift, since the last iteration
  kernels::Due due;
  float* slots;  // room for all points
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
        for (const auto& kernel : kernels) corners_ += kernel->lattice().dim + 1;
        return 3 * batch_ * width + most + (2 + slot_floats()) * strips.size;
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

std::int64_t Skipping::slot_floats() const { return 2 * width_ + 2 * corners_ + n_kernels() + 2; }

Skipping::Places Skipping::places_in(float* memory, std::int64_t room) const {
  Places at{};
  at.room = room;
  at.rows = memory;
  at.weight = at.rows + room * 2 * width_;
  at.scale = at.weight + room * corners_;
  at.limit = at.scale + room * n_kernels();
  at.row = reinterpret_cast<std::uint32_t*>(at.limit + room);
  at.point = at.row + room * corners_;
  return at;
}

void Skipping::move_slots(const Places& from, std::int64_t room, Strip* part) const {
  Buffer<float> memory(room * slot_floats());
  const Places to = places_in(memory.data(), room);
  const std::int64_t n = part->n_slots;
  std::copy_n(from.rows, n * 2 * width_, to.rows);
  std::copy_n(from.limit, n, to.limit);
  std::copy_n(from.point, n, to.point);
  std::int64_t before = 0;  // corners of the lattices so far
  for (std::int64_t k = 0; k < n_kernels(); ++k) {
    const int corners = kernels_[k]->lattice().dim + 1;
    std::copy_n(from.weight + before * from.room, n * corners, to.weight + before * room);
    std::copy_n(from.row + before * from.room, n * corners, to.row + before * room);
    std::copy_n(from.scale + k * from.room, n, to.scale + k * room);
    before += corners;
  }
  part->memory = std::move(memory);
  part->places = to;
}

// The strip with its messages, which do not yet write anything.
kernels::SkippingPass Skipping::pass(Work* work, const Places& places) {
  const std::int64_t s = work->strip, begin = strips_.begin(s);
  std::uint32_t* row = places.row;
  float *weight = places.weight, *scale = places.scale;
  work->messages.clear();
  for (const auto& kernel : kernels_) {
    kernels::Message m = kernel->message(s, nullptr, false);
    m.incoming = kernel->kept(s);
    m.drift = kernel->drift(s);
    m.slot_row = row;
    m.slot_weight = weight;
    m.slot_scale = m.slice_scale != m.splat_scale ? scale : nullptr;
    row += places.room * m.at.corners;
    weight += places.room * m.at.corners;
    scale += places.room;
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
  pass.slots = {places.rows, places.point, places.limit, parts_[s].n_slots};
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
    kernels::SkippingPass pass = this->pass(&work, {});
    parts[s] = empty_stats();
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      pass.messages[k].outgoing = kernels_[k]->rows().cleared_rows(s);
    }
    active_kernels().start_pass(&pass, &parts[s], &uncertainty[s]);
  });
  for (const double part : uncertainty) uncertainty_ += part;
  return merge(strips_, parts);
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
    const Places places = places_in(work.slots, work.n_points);
    kernels::SkippingPass pass = this->pass(&work, places);
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      kernels::Message& m = pass.messages[k];
      m.outgoing = kernels_[k]->rows().cleared_rows(s);
      m.moved = kernels_[k]->drift_rows().cleared_rows(s);
    }
    active_kernels().settle_pass(&pass, dormant_from);
    parts_[s].n_slots = pass.slots.count;
    move_slots(places, pass.slots.count + pass.slots.count / 8 + group, &parts_[s]);
    note_groups(work);
  });
  std::int64_t n_slots = 0;
  for (const Strip& part : parts_) n_slots += part.n_slots;
  evaluations_ += strips_.n_points;
  return static_cast<double>(n_slots) < most_slots * static_cast<double>(strips_.n_points);
}

// The rows that the dormant points of each group read, each once.
void Skipping::note_groups(const Work& work) {
  const std::int64_t begin = strips_.begin(work.strip);
  const float* limit = limit_.data() + begin;
  Strip& part = parts_[work.strip];
  part.alarm.resize(work.n_points);
  part.drift.resize(rows_of(work.strip));
  std::fill(part.drift.begin(), part.drift.end(), 0.0F);
  std::copy_n(limit, work.n_points, part.alarm.data());
  part.clock.assign(groups_of(work.n_points), 0.0F);
  part.rows_read.clear();
  part.rows_end.clear();
  part.group_scale.clear();
  part.first_alarm.clear();
  std::vector<std::uint32_t> last_group(rows_of(work.strip), 0U);
  for (std::int64_t first = 0; first < work.n_points; first += group) {
    const std::int64_t last = std::min(first + group, work.n_points);
    part.first_alarm.push_back(*std::min_element(limit + first, limit + last));
    if (part.first_alarm.back() > most_dormant) {  // all have slots
      part.group_scale.insert(part.group_scale.end(), kernels_.size(), 0.0F);
      part.rows_end.insert(part.rows_end.end(), kernels_.size(),
                           static_cast<std::uint32_t>(part.rows_read.size()));
      continue;
    }
    std::uint32_t* seen = last_group.data();
    const auto now = static_cast<std::uint32_t>(first + 1);
    std::uint32_t offset = 0;
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      const kernels::Message& m = work.messages[k];
      float most = 0.0F;
      for (std::int64_t p = first; p < last; ++p) {
        if (limit[p] > most_dormant) continue;
        most = std::max(most, m.slice_scale != nullptr ? m.slice_scale[p] : 1.0F);
        for (int c = 0; c < m.at.corners; ++c) {
          const std::uint32_t row = kernels_[k]->lattice().row_of(work.strip, begin + p, c);
          if (std::exchange(seen[row], now) != now) part.rows_read.push_back(offset + row);
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

// The groups' clocks go on by how much drift has grown.
void Skipping::advance_clocks(const Work& work) {
  Strip& part = parts_[work.strip];
  float* before = part.drift.data();
  float* grown = work.grown;
  for (std::int64_t k = 0; k < n_kernels(); ++k) {
    const std::int64_t n = kernels_[k]->lattice().local_rows(work.strip);
    const float* now = work.messages[k].drift;
    for (std::int64_t r = 0; r < n; ++r) grown[r] = now[r] - before[r];
    std::copy_n(now, n, before);
    grown += n;
    before += n;
  }
  const std::uint32_t* row = part.rows_read.data();
  for (std::size_t i = 0; i < part.rows_end.size(); ++i) {
    const std::uint32_t* end = part.rows_read.data() + part.rows_end[i];
    float most = 0.0F;
    for (; row != end; ++row) most = std::max(most, work.grown[*row]);
    part.clock[i / kernels_.size()] += part.group_scale[i] * most;
  }
}

// Slots that are due; dormant points that are, are given one.
void Skipping::find_due(Work* work) {
  Strip& part = parts_[work->strip];
  kernels::SkippingPass pass = this->pass(work, part.places);
  advance_clocks(*work);
  active_kernels().find_due(&pass, &work->due);
  for (std::int64_t first = 0; first < work->n_points; first += group) {
    const float clock = part.clock[first / group];
    const std::int64_t n = std::min(group, work->n_points - first);
    float* alarm = part.alarm.data() + first;
    if (part.first_alarm[first / group] >= clock) continue;
    std::uint32_t index[group];
    kernels::Due woken{index, work->due.drift + work->due.count, 0};
    active_kernels().find_woken(&pass, first, static_cast<int>(n), clock, alarm, &woken);
    part.first_alarm[first / group] = *std::min_element(alarm, alarm + n);
    for (int i = 0; i < woken.count; ++i) {
      work->due.index[work->due.count++] = static_cast<std::uint32_t>(pass.slots.count + i);
    }
    if (part.n_slots + woken.count > part.places.room) {
      move_slots(part.places, part.n_slots + part.n_slots / 2 + group, &part);
      pass = this->pass(work, part.places);
    }
    active_kernels().wake(&pass, woken);
    part.n_slots = pass.slots.count;
  }
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
    kernels::SkippingPass pass = this->pass(&work, parts_[s].places);
    for (std::int64_t k = 0; k < n_kernels(); ++k) {
      kernels::Message& m = pass.messages[k];
      m.outgoing = last ? nullptr : kernels_[k]->rows().rows(s);
      m.moved = kernels_[k]->drift_rows().rows(s);
    }
    active_kernels().active_pass(&pass, work.due);
  });
  for (const std::int64_t n : evaluated) evaluations_ += n;
}

void Skipping::write() {
  constexpr int block = 64;  // labels of a point lie far apart: write those of several at a time
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    const Places& places = parts_[s].places;
    const int count = parts_[s].n_slots;
    const std::int64_t begin = strips_.begin(s);
    const auto q = [&](int slot) { return places.rows + (std::int64_t{slot} * 2 + 1) * width_; };
    for (int first = 0; first < count; first += block) {
      const int last = std::min(first + block, count);
      for (int label = 0; out_ && label < n_labels_; ++label) {
        for (int slot = first; slot < last; ++slot) {
          out_(label, begin + places.point[slot]) = shown(q(slot)[label]);
        }
      }
      for (int slot = first; labels_ != nullptr && slot < last; ++slot) {
        const float* row = q(slot);
        labels_[begin + places.point[slot]] =
            static_cast<std::int32_t>(std::max_element(row, row + n_labels_) - row);
      }
    }
  });
}

double Skipping::sampled_uncertainty(const UnarySupply& unary, const Strips& strips, int n_labels,
                                     int width) {
  constexpr std::int64_t wanted = 512;
  Buffer<float> scratch(8 * width);
  kernels::UnaryStats stats = empty_stats();
  double sum = 0.0;
  std::int64_t n = 0;
  for (std::int64_t s = 0; s < strips.count; ++s) {
    const std::int64_t n_points = strips.end(s) - strips.begin(s);
    const std::int64_t step = std::max<std::int64_t>(1, n_points * strips.count / wanted);
    const kernels::UnarySource source = unary.strip(strips, s, width);
    for (std::int64_t point = step / 2; point < n_points; point += step, ++n) {
      sum += active_kernels().uncertainty(source, point, n_labels, width, scratch.data(), &stats);
    }
  }
  return n > 0 ? sum / static_cast<double>(n) : 1.0;
}

}  // namespace crfseg

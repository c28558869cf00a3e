// SPDX-License-Identifier: MIT
// Mean field that leaves points alone while their Q cannot have moved by more than a tolerance.
//
// Let R be the range over labels of what has been added to a point's messages since its Q was
// evaluated. The log-odds of no label against the others have moved by more than R, so a Q whose
// largest entry is 1 - e stays within `tolerance` while R <= logit(e + tolerance) - logit(e), its
// limit. R is bounded without looking at labels: where Q has moved by a total variation distance d,
// the messages of a term move by at most its filter applied to d, times twice the widest range of a
// column of w mu. These sums are kept as one more channel of every lattice, the drift. A point
// whose drift since its evaluation is beyond its limit is due: it is evaluated again, and what it
// splats is the change of its Q.
//
// The first two iterations look at every point. The second one settles limits and gives the points
// that may move soon a slot, a row of its own for unary and Q; the others are dormant, keep neither
// (their Q is a single label to within 1e-5 or is where the caller wants it), and are woken, should
// they be due, by reading their unary again.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "mean_field.h"

namespace crfseg {

class Skipping {
 public:
  // How far a point that is left alone may be from its Q, in each entry.
  static constexpr float tolerance = 1e-5F;
  // Where it pays, as measured (docs/performance.md): the second iteration costs as much as four
  // others and later ones at least half as much, so there have to be many; but with still more,
  // differences within the tolerance grow. Rows of two labels are too cheap, of many too dear to be
  // kept twice; so are those of large images. While most points are undecided, none can be skipped.
  static constexpr int fewest_iterations = 24, most_iterations = 30;
  static constexpr int fewest_labels = 3, most_labels = 32;
  static constexpr std::int64_t most_points = 250'000;
  static constexpr double most_uncertainty = 0.3;

  // What softmax(-U) leaves to other labels than the first, on average over a sample of points.
  static double sampled_uncertainty(const UnarySupply& unary, const Strips& strips, int n_labels,
                                    int width);

  Skipping(const UnarySupply& unary, const std::vector<std::unique_ptr<FieldKernel>>& kernels,
           const Strips& strips, int n_labels, int width, LabelView<float> out,
           std::int32_t* labels, int threads);

  // Splats softmax(-U); what was found while reading.
  UnaryReport start();
  // The first iteration; whether it pays to go on here.
  bool settle();
  // A later iteration.
  void step(bool last);
  // Gives the caller what has moved since `settle` has written everything.
  void write();

  std::int64_t evaluations() const { return evaluations_; }

 private:
  struct Work;
  // Where slots and their corners lie.
  struct Places {
    float *rows, *weight, *limit, *scale;
    std::uint32_t *row, *point;
    std::int64_t room;  // for so many slots
  };
  struct Strip {
    Buffer<float> memory;
    Places places{};
    int n_slots = 0;
    // Points without a slot are looked at one by one only where drift may have used up what they
    // had to spare. Groups of them have a clock, the sum over iterations of the largest growth of
    // drift at any row that one of them reads; points have an alarm, set by that clock.
    Buffer<float> alarm;                   // (points)
    std::vector<float> first_alarm;        // (groups) of its points
    std::vector<float> clock;              // (groups)
    std::vector<float> group_scale;        // (groups, kernels) the largest factor at slicing
    std::vector<std::uint32_t> rows_read;  // by the groups, of all lattices
    std::vector<std::uint32_t> rows_end;   // (groups, kernels) in rows_read
    Buffer<float> drift;                   // (rows of all lattices) the last iteration's
  };

  std::int64_t n_kernels() const { return static_cast<std::int64_t>(kernels_.size()); }
  std::int64_t rows_of(std::int64_t strip) const;
  std::int64_t slot_floats() const;
  Places places_in(float* memory, std::int64_t room) const;
  void move_slots(const Places& from, std::int64_t room, Strip* part) const;
  kernels::SkippingPass pass(Work* work, const Places& places);
  void note_groups(const Work& work);
  void advance_clocks(const Work& work);
  void find_due(Work* work);

  const UnarySupply& unary_;
  const std::vector<std::unique_ptr<FieldKernel>>& kernels_;
  const Strips& strips_;
  int n_labels_, width_, batch_, threads_, corners_ = 0;
  LabelView<float> out_;
  std::int32_t* labels_;
  Scratch scratch_;
  std::vector<Strip> parts_;
  Buffer<float> limit_;  // (n_points) of points without a slot, infinity for others
  double uncertainty_ = 0.0;
  std::int64_t evaluations_ = 0;
};

}  // namespace crfseg

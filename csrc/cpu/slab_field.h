// SPDX-License-Identifier: MIT
// Inference with labels in slabs of 16 (or up to 24 in one), of which a batch of points leaves out
// those that do not matter to it. With p = softmax(-U) and m = -sum_k w_k mu_k K~_k Q,
//   Q' = p e^m / Z,  Z = sum over labels of p e^m,
// and of a slab S a batch of points i knows a bound before it has read any of it:
//   sum over S of Q'_i < (max over i of sum over S of p_i) (max over i and S of e^m) / Z_i.
// The first maximum stays as it is. The second is at most that over the rows of vertices, which are
// copied for every strip anyway: points read means of them (Scales::of_rows). Z_i is at least what
// the slabs weigh that have been evaluated before. A slab is left out of an iteration where the
// bound is below the tolerance, and those of all that are left out together below ten times that;
// nothing is assumed of earlier iterations, and nothing is remembered for later ones.
//
// That messages of a slab are small where it is left out is what makes p e^m, without the usual
// maximum taken out, a good way to write the softmax; and so is that they are not negative. Where
// they are too large for it `step` says so.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.h"
#include "cpu/field_kernel.h"
#include "cpu/scratch.h"
#include "cpu/slab_supply.h"
#include "mean_field.h"

namespace crfseg {

class SlabField {
 public:
  using Kernels = std::vector<std::unique_ptr<FieldKernel>>;

  static constexpr float tolerance = 1e-5F;

  // Whether all messages are sums of what is not negative, label by label.
  static bool apply(const Kernels& kernels, int n_labels);

  SlabField(const UnarySupply& unary, const Kernels& kernels, const Strips& strips, int n_labels,
            int width, bool skip, int threads, Buffer<float>* p);

  // Reads the unaries and splats softmax(-U).
  UnaryReport start();
  // One iteration. Returns whether messages were small enough; if not, nothing that it made counts.
  bool step();
  // The last one, which hands out Q and labels where they are wanted, or
  bool finish(LabelView<float> out, std::int32_t* labels);
  // keeps them until they are asked for, so that the lattices' rows can be given back before.
  bool can_keep() const { return supply_.holds_all(); }
  bool keep();
  void write(LabelView<float> out, std::int32_t* labels);

  std::int64_t evaluated() const { return evaluated_; }  // labels of points

 private:
  struct Result {
    LabelView<float> out;
    std::int32_t* labels;
  };
  struct Work;

  kernels::SlabPass pass(std::int64_t strip, const Result& result, Work* work);
  void fetch_rows(std::int64_t strip, kernels::SlabPass* pass, Work* work) const;
  void clear_rows(std::int64_t strip, kernels::SlabPass* pass, Work* work) const;
  bool evaluate(bool is_last, bool is_kept, const Result& result);

  std::vector<FieldKernel*> kernels_;  // those of few corners first
  Strips strips_;
  int n_labels_, threads_;
  float tolerance_;
  SlabSupply supply_;
  int batch_;
  std::int64_t batches_per_strip_;
  Buffer<float> mass_;  // (strips, batches, slabs)
  Buffer<float> top_;   // (n_points) what is taken out of logits and energies
  Scratch scratch_;
  std::int64_t evaluated_ = 0;
};

}  // namespace crfseg

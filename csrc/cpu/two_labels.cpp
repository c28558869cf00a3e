// SPDX-License-Identifier: MIT
#include "cpu/two_labels.h"

#include <algorithm>

#include "cpu/dispatch.h"
#include "cpu/unary_supply.h"
#include "parallel.h"

namespace crfseg {
bool TwoLabels::apply(const Kernels& kernels, int n_labels) {
  return n_labels == 2 && !kernels.empty() &&
         std::all_of(kernels.begin(), kernels.end(), [](const auto& kernel) {
           return kernel->kind() == Compatibility::Kind::potts && !kernel->excludes_self();
         });
}

TwoLabels::TwoLabels(const UnarySupply& unary, const Kernels& kernels, const Strips& strips,
                     int threads)
    : unary_(unary),
      kernels_(by_corners(kernels)),
      strips_(strips),
      threads_(threads),
      log_odds_(strips.n_points),
      scratch_(most_rows(kernels, strips)) {
  for (FieldKernel* kernel : kernels_) kernel->hold_difference();
}

kernels::TwoLabelsPass TwoLabels::pass(std::int64_t strip, bool splat, float* incoming,
                                       std::vector<kernels::Message>* messages) {
  for (FieldKernel* kernel : kernels_) {
    messages->push_back(kernel->message(strip, incoming, splat));
    if (incoming != nullptr) incoming += kernel->lattice().local_rows(strip);
  }
  constexpr int unary_width = 4;
  kernels::TwoLabelsPass pass{};
  pass.unary = unary_.strip(strips_, strip, unary_width);
  pass.log_odds = log_odds_.data() + strips_.begin(strip);
  pass.messages = messages->data();
  pass.n_messages = static_cast<int>(messages->size());
  return pass;
}

UnaryReport TwoLabels::start() {
  std::vector<kernels::UnaryStats> found(static_cast<std::size_t>(strips_.count));
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    std::vector<kernels::Message> messages;
    kernels::TwoLabelsPass pass = this->pass(s, true, nullptr, &messages);
    found[s] = empty_stats();
    pass.stats = &found[s];
    active_kernels().two_labels_start(&pass);
  });
  return merge(strips_, found);
}

void TwoLabels::step(bool last, LabelView<float> out, std::int32_t* labels) {
  parallel_for(strips_.count, threads_, [&](std::int64_t s) {
    Scratch::Loan loan = scratch_.borrow();
    std::vector<kernels::Message> messages;
    kernels::TwoLabelsPass pass = this->pass(s, !last, loan.data(), &messages);
    const std::int64_t begin = strips_.begin(s);
    if (out) pass.out = strip_of(out, begin);
    if (labels != nullptr) pass.labels = labels + begin;
    active_kernels().two_labels_step(&pass);
  });
}

}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Mean-field passes in one channel (cpu/two_labels.h). Compiled once per instruction set; see
// kernels.h for what may not be included here.
#include "cpu/kernels/marginals.h"
#include "cpu/kernels/pairs.h"
#include "cpu/kernels/reading.h"
#include "cpu/kernels/rows.h"

namespace crfseg {
namespace kernels {
namespace CRFSEG_ISA {

constexpr int batched = 64;  // points in a batch

// exp(-|z|), from which both probabilities follow without cancellation.
CRFSEG_INLINE Wide fading(Wide z) { return exp2_nonpositive(absolute(z) * -log2_e); }

// tanh(z / 2), the difference of the two probabilities.
CRFSEG_INLINE void differences(const float* z, float* s) {
  for (int i = 0; i < batched; i += Lanes<Wide>::count) {
    const Wide odds = load<Wide>(z + i);
    const Wide e = fading(odds);
    // Even odds must stay even: an error of rounding there would grow from iteration to iteration.
    const Wide size = maximum((1.0F - e) / (1.0F + e), Wide{});
    store<Wide>(s + i, odds < 0.0F ? -size : size);
  }
}

CRFSEG_INLINE void write_both(const LabelStrip& out, std::int64_t first, int n, const float* z) {
  float p[2][batched];
  for (int i = 0; i < batched; i += Lanes<Wide>::count) {
    const Wide odds = load<Wide>(z + i);
    const Wide e = fading(odds);
    const Wide large = 1.0F / (1.0F + e);
    const Wide rest = e * large;
    const Wide small = rest > 2.0F * smallest ? rest : Wide{};
    store<Wide>(p[0] + i, odds < 0.0F ? small : large);
    store<Wide>(p[1] + i, odds < 0.0F ? large : small);
  }
  for (int label = 0; label < 2; ++label) {
    float* place = out.data + label * out.label_stride + first * out.point_stride;
    for (int i = 0; i < n; ++i) place[i * out.point_stride] = p[label][i];
  }
}

typedef Block<float, 1, true> OneChannel;

constexpr Ones<batched> ones;

CRFSEG_INLINE Points points_of(const Message& m, const float* scale, std::int64_t first) {
  return {from_point(m.at, first), scale != nullptr ? scale + first : ones.values};
}

// z = log-odds and messages
CRFSEG_INLINE void add_messages(const TwoLabelsPass& pass, std::int64_t first, int n, float* z) {
  const Message* m = pass.messages;
  const float* base = pass.log_odds + first;
  if (is_pair(m, pass.n_messages)) {
    slice_pair(OneChannel{1, 0}, points_of(m[0], m[0].slice_scale, first),
               points_of(m[1], m[1].slice_scale, first), m[0].incoming, m[1].incoming, n, z);
    for (int i = 0; i < n; ++i) z[i] += base[i];
    return;
  }
  for (int k = 0; k < pass.n_messages; ++k) {
    slice_rows(from_point(m[k].at, first), from_point(m[k].slice_scale, first), m[k].incoming, base,
               n, 1, z);
    base = z;
  }
}

CRFSEG_INLINE void splat_difference(const TwoLabelsPass& pass, std::int64_t first, int n,
                                    const float* z) {
  float s[batched];
  differences(z, s);
  const Message* both = pass.messages;
  if (is_pair(both, pass.n_messages)) {
    return splat_pair(OneChannel{1, 0}, points_of(both[0], both[0].splat_scale, first),
                      points_of(both[1], both[1].splat_scale, first), s, n, both[0].outgoing,
                      both[1].outgoing);
  }
  for (int k = 0; k < pass.n_messages; ++k) {
    const Message& m = pass.messages[k];
    splat_rows(from_point(m.at, first), from_point(m.splat_scale, first), s, n, 1, m.outgoing);
  }
}

void two_labels_start(TwoLabelsPass* pass) {
  for (std::int64_t first = 0; first < pass->unary.n_points; first += batched) {
    const std::int64_t left = pass->unary.n_points - first;
    const int n = static_cast<int>(left < batched ? left : batched);
    float rows[4 * batched] = {};
    float z[batched] = {};
    read_unary(pass->unary, first, n, 2, 4, rows, pass->stats);
    for (int i = 0; i < n; ++i) z[i] = pass->log_odds[first + i] = rows[4 * i] - rows[4 * i + 1];
    splat_difference(*pass, first, n, z);
  }
}

void two_labels_step(TwoLabelsPass* pass) {
  for (std::int64_t first = 0; first < pass->unary.n_points; first += batched) {
    const std::int64_t left = pass->unary.n_points - first;
    const int n = static_cast<int>(left < batched ? left : batched);
    float z[batched] = {};
    add_messages(*pass, first, n, z);
    if (pass->out.data != nullptr) write_both(pass->out, first, n, z);
    for (int i = 0; pass->labels != nullptr && i < n; ++i) {
      pass->labels[first + i] = z[i] < 0.0F ? 1 : 0;
    }
    if (pass->messages[0].outgoing != nullptr) splat_difference(*pass, first, n, z);
  }
}

}  // namespace CRFSEG_ISA
}  // namespace kernels
}  // namespace crfseg

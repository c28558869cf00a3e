// SPDX-License-Identifier: MIT
// Mean-field inference on a device (../mean_field.h says what it computes). Everything that is
// asked for is put on the stream and nothing is waited for, but where a result comes to the host.
//
// A block works on a tile of points: it reads messages, applies the softmax and splats Q in one
// launch, and Q stays in the block's shared memory, or where that is too small, in the cache. When
// nothing changes any more, what is still on the stream finds that out and does nothing.
//
// What moves in an iteration between a block and the cache, for 500 x 375 points of 21 labels and
// the two customary kernels, in MB where rows are floats, and where they are halves:
//   corners and weights     24   24
//   -U                      18    9
//   rows that are sliced    21   10
//   tiles' sums             21   10
//   tiles' sums added up    27   14
//   blur                    83   42
//   in all                 194  109
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "compatibility.h"
#include "cuda/arrays.h"
#include "cuda/filter.h"
#include "cuda/lattice.h"
#include "cuda/storage.h"
#include "cuda/tile_room.h"
#include "cuda/values.h"
#include "cuda/views.h"
#include "kinds.h"
#include "unary.h"

namespace crfseg {
namespace cuda {

constexpr int most_terms = 8;  // pairwise terms
constexpr int most_labels = 1024;

// What was found in unaries. As UnaryReport, without the places.
struct UnaryFindings {
  bool is_bad = false;  // a value that is not allowed; or a point whose labels all are forbidden
  float low = 0.0F;     // the lowest value
  float off = 0.0F;     // probabilities and logits: the largest |sum over labels - 1|
};

struct FieldPass;
struct UnaryReportBits;

struct FieldOptions {
  int iterations = 10;
  float tolerance = 0.0F;  // stop once max |Q' - Q| is below it
  float damping = 0.0F;
  bool trace = false;  // free energy of every Q on the way
};

struct Outcome {
  int iterations = 0;
  float max_change = 0.0F;  // of the last iteration; NaN unless tolerance or trace asked for it
  std::vector<double> trace;
};

class MeanField {
 public:
  // All lattices that are added must have this tiling. storage: of rows, float32 or float16
  // (storage.h); TooCoarse where halves will not do, here, in add_kernel and in set_labels.
  MeanField(const Tiling& tiling, int n_labels, Allocate allocate, Stream stream,
            FloatType storage = FloatType::float32);
  ~MeanField();
  MeanField(const MeanField&) = delete;
  MeanField& operator=(const MeanField&) = delete;

  void set_unary(const ScoreView& values, UnaryKind kind, float clip);
  // Scores (items, labels, rows * columns) are upsampled to the images. What is found is found in
  // the scores. No energies.
  void set_coarse_unary(const ScoreView& scores, const CoarseGrid& grid, UnaryKind kind,
                        float clip);
  // Labels (n_items, n_points); those that are not 0..n_labels - 1 mean none.
  void set_labels(const std::int32_t* labels, const LabelEnergies& energies);
  UnaryFindings findings() const;  // waits

  // Makes the unary count `factor` times where structures are thin: where no square of `side`
  // pixels with one most probable label covers a pixel. Nothing is held of an image more than half
  // of which is thin. Energies are counted from each held point's lowest from there on.
  void hold_thin(int side, float factor);

  // gain: of the lattice without normalisation.
  void add_kernel(std::shared_ptr<const Lattice> lattice, Normalization normalization, double gain,
                  float weight, const Compatibility& compatibility, bool exclude_self);

  // start: Q to begin with, softmax(-U) if there is none. out and labels may be null.
  void infer(BatchView<const float> start, const FieldOptions& options, const MarginalView& out,
             const LabelTarget& labels);
  Outcome outcome();  // of the last inference; waits

  // Of all items together; they wait.
  double free_energy(BatchView<const float> q);
  double expected_energy(BatchView<const float> q);
  double energy(const std::int32_t* labels);

  std::int64_t nbytes() const;

 private:
  class Term;
  struct Step;

  void begin_unary();
  FieldPass pass_of_all() const;
  void run(const Step& step);
  void exchange(const std::uint32_t* skip);
  void iterate(const FieldOptions& options, bool keep_q, const MarginalView& out,
               const LabelTarget& labels);
  void evaluate(bool entropy, const std::uint32_t* skip, double* to);
  double energy_of_q(bool entropy);
  double constant();
  void load_q(BatchView<const float> q);
  void keep_marginals();

  Tiling tiling_;
  int n_labels_, width_;
  Allocate allocate_;
  Stream stream_;
  TileRoom room_;
  FloatType storage_;
  StoredArray log_unary_;  // (slots, width)
  Array<float> q_, z_;     // likewise
  Array<UnaryReportBits> report_;
  Array<unsigned char> state_;
  Array<double> tile_sums_, trace_;
  FieldOptions last_;  // options of the last inference
  std::vector<std::unique_ptr<Term>> terms_;
};

}  // namespace cuda
}  // namespace crfseg

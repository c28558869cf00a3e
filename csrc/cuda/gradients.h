// SPDX-License-Identifier: MIT
// Mean field that can be differentiated, on a device (../gradients.h has the equations, and says
// what is kept of a step). A batch goes in one sequence of launches, and nothing is waited for but
// where a result comes to the host.
//
// As inference does, a block works on a tile of points: forth, it reads messages, keeps Q and
// splats it; back, it reads what came back of delta, finds the next delta and splats that. Sums
// over points are taken at vertices, in double and in an order that depends on nothing else.
//
// What moves in a step between a block and the cache, for 500 x 375 points of 21 labels and the two
// customary kernels (rows of all points are 18 MB, of tiles' sums 21, of vertices 3):
//   both ways: rows that are sliced 21, corners and weights 24, tiles' sums 21, added up 27, blur
//   83 forth: X 18, Q 18                                                       in all 212 MB back:
//   Q 18, what X gets 36, and at vertices for couplings 6             in all 236 MB
// Once on the way back, 50 MB go into reading G and writing dLoss/dX. Exact gradients of features
// take 210 MB more of a step back: what is sliced and corners and weights twice over, delta and Q
// for each kernel, and what its corners' weights are worth.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/arrays.h"
#include "cuda/lattice.h"
#include "cuda/mean_field.h"
#include "cuda/tile_room.h"
#include "kinds.h"
#include "unroll_plan.h"

namespace crfseg {
namespace cuda {

struct CoupledKernel {
  std::shared_ptr<const Lattice> lattice;
  Normalization normalization = Normalization::symmetric;
  double gain = 1.0;  // of the lattice without normalisation
  bool is_full = false;
  const float* coupling = nullptr;  // M: (n_labels), or (n_labels, n_labels), on the device
};

struct UnrollOptions {
  int iterations = 5;
  int differentiated = 5;     // the last so many steps; what is before them counts as constant
  int every = 1;              // Q^t kept: those of every so many steps; others are found again
  bool fixed_point = false;   // keep the last Q alone, which is what solves the equations
  float tolerance = 0.0F;     // fixed point: stop once max |Q' - Q| of the batch is below it
  bool wants_logits = false;  // Z^T instead of Q^T
};

struct Unrolling {
  int iterations = 0;
  float max_change = 0.0F;  // of the last one that was looked at; NaN unless for a fixed point
};

// Of a kernel's features, which all items share where its lattice is repeated.
struct FeatureRequest {
  const float* features = nullptr;  // (n_items or 1, n_points, dim) those of the lattice
  FeatureGradient form = FeatureGradient::none;
  float* out = nullptr;  // likewise; summed over items that share them
};

// sum over steps and items of <dLoss/dZ^{t+1}, M K~ Q^t> with another lattice in a kernel's place.
struct Probe {
  int kernel = 0;
  std::shared_ptr<const Lattice> lattice;
  double gain = 1.0;
  double* out = nullptr;  // (1) on the device
};

struct BackOptions {
  std::vector<FeatureRequest> features;  // one per kernel
  std::vector<double*> couplings;        // per kernel as its coupling, on the device
  std::vector<Probe> probes;
  int most_terms = 100;     // fixed point: of the series
  float tolerance = 1e-6F;  // fixed point: max |delta| of an item's last, relative to its first
};

struct Series {
  int terms = 0;          // fixed point: how many were added
  bool converged = true;  // fixed point: whether the last fell below the tolerance, for all items
};

class CoupledTerm;

class UnrolledField {
 public:
  // All lattices must have this tiling.
  UnrolledField(const Tiling& tiling, int n_labels, const std::vector<CoupledKernel>& kernels,
                Allocate allocate, Stream stream);
  ~UnrolledField();
  UnrolledField(const UnrolledField&) = delete;
  UnrolledField& operator=(const UnrolledField&) = delete;

  // unary: energies, or logits, that are finite. What it keeps is for `back` after it.
  void run(BatchView<const float> unary, bool is_energy, const UnrollOptions& options,
           BatchView<float> out);
  Unrolling unrolling() const;  // of the last run; waits at a fixed point
  bool is_finite() const;       // whether its unary was; waits

  // gradient: dLoss by what `run` wrote; out: dLoss by its unary. As often as wanted.
  void back(BatchView<const float> gradient, const BackOptions& options, BatchView<float> out);
  Series series() const;  // of the last way back; waits at a fixed point

  std::int64_t nbytes() const;
  int n_labels() const { return n_labels_; }
  int n_kernels() const { return static_cast<int>(terms_.size()); }

 private:
  struct Step;
  class Return;

  void forth(const Step& step);
  void exchange(int keep, const std::uint32_t* skip);
  const float* marginals(int t);
  void find_sums(int t);
  void forget(int t);

  std::mutex mutex_;  // one way at a time: they share what follows
  Tiling tiling_;
  int n_labels_, width_;
  Allocate allocate_;
  Stream stream_;
  TileRoom room_;
  bool is_energy_ = false, is_run_ = false;
  UnrollOptions options_;
  UnrollPlan plan_;
  Array<float> logits_, highest_;  // (slots, width) X less the highest of each point; (slots)
  std::vector<Array<float>> q_;    // (steps) of (slots, width), or empty
  Array<std::uint32_t> state_, series_;
  std::vector<std::unique_ptr<CoupledTerm>> terms_;
};

}  // namespace cuda
}  // namespace crfseg

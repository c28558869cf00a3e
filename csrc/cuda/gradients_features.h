// SPDX-License-Identifier: MIT
// Gradients of features on a device, and probes. cpu/gradients_features.h says what is summed up,
// and what the mass is that the normalisation's part is made of. Both forms need
//   <a, K b> and <b, K^T a>   with a = delta, b = Q, and couplings in K
// point by point, read from rows of vertices: those that are there anyway, and for the smooth form
// those of a and b times each feature, two more filters per feature and step.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/coupled_term.h"

namespace crfseg {
namespace cuda {

// What is splat on one side, and read on the other: rows of slots, and what scales them.
struct End {
  const float* values;  // (slots, width)
  const float* scale;   // (slots that were built) or null
};

class MovedFeatures {
 public:
  MovedFeatures(CoupledTerm* term, const FeatureRequest& request, int width,
                const Allocate& allocate, Stream stream);
  virtual ~MovedFeatures() = default;

  // delta and Q^t, the term's rows being those that came back of this delta.
  void add(const float* delta, const float* q, int t);
  virtual void finish() = 0;

 protected:
  // What <end, rows> adds to.
  struct Notes {
    float* corner = nullptr;  // (tiles, corners, slots) for each corner
    float* mass = nullptr;    // (slots)
    float* pair = nullptr;    // (slots), or where it starts, put there
    bool starts = false;
  };

  virtual void add_ends(const End& a, const End& b, const float* filtered, float* mass_of_a,
                        float* mass_of_b) = 0;
  void note(const End& end, const float* rows, int width, const float* factor, float gain,
            const Notes& notes);
  void weigh_mass();
  Array<float> zeros(std::int64_t size) const;

  CoupledTerm& term_;
  FeatureRequest request_;
  int width_;
  Allocate allocate_;
  Stream stream_;
  LatticeView view_;
  Array<float> mass_;
  Array<float> mass_rows_, ones_;  // (slots, 4) the mass, weighed, and 1, in their first column
};

// Null where none are wanted.
std::unique_ptr<MovedFeatures> moved_features(CoupledTerm* term, const FeatureRequest& request,
                                              int width, const Allocate& allocate, Stream stream);

// <delta, M K~ Q> over another lattice.
class ProbedTerm {
 public:
  ProbedTerm(const CoupledKernel& kernel, int n_labels, int width, const Allocate& allocate,
             Stream stream);
  void add(const float* delta, const float* q);
  void write(double* out);

 private:
  CoupledTerm term_;
  int n_labels_, width_;
  Stream stream_;
  Array<double> tile_sums_;
};

}  // namespace cuda
}  // namespace crfseg

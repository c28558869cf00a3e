// SPDX-License-Identifier: MIT
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "lattice.h"

namespace crfseg {
namespace {

// Points far from each other, at positions in their simplices that fill space evenly: the additive
// recurrence of the generalised golden ratio (Roberts, "The unreasonable effectiveness of
// quasirandom sequences", 2018).
std::vector<float> isolated_points(int n, int dim) {
  double phi = 2.0;
  for (int i = 0; i < 60; ++i) phi = std::pow(1.0 + phi, 1.0 / (dim + 1));
  std::vector<float> features;
  for (int p = 0; p < n; ++p) {
    double step = 1.0;
    for (int axis = 0; axis < dim; ++axis) {
      step /= phi;
      const double place = std::fmod(0.5 + step * (p + 1), 1.0);
      // 16 deviations span many simplices; 64 more keep the points apart.
      features.push_back(static_cast<float>(16.0 * place + (axis == 0 ? 80.0 * p : 0.0)));
    }
  }
  return features;
}

double measure_gain(int dim, const std::vector<int>& fill, int passes) {
  const int n = 256;
  const Lattice lattice(isolated_points(n, dim).data(), n, dim, fill, passes, 1);
  std::vector<float> response(n);
  self_response(lattice, 1, response.data());
  double sum = 0.0;
  for (const float r : response) sum += static_cast<double>(r);
  return n / sum;
}

}  // namespace

double lattice_gain(int dim, const std::vector<int>& fill, int passes) {
  static std::mutex mutex;
  static std::map<std::tuple<int, std::vector<int>, int>, double> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, missing] = known.try_emplace({dim, fill, passes}, 0.0);
  if (missing) place->second = measure_gain(dim, fill, passes);
  return place->second;
}

}  // namespace crfseg

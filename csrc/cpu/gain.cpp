// SPDX-License-Identifier: MIT
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "lattice.h"

namespace crfseg {
namespace {

constexpr double spread =
    8.0;  // deviations that the points' positions vary over: several simplices

// Points far from each other, at positions in their simplices that fill space evenly: the additive
// recurrence of the generalised golden ratio (Roberts, "The unreasonable effectiveness of
// quasirandom sequences", 2018).
std::vector<float> isolated_points(int n, int dim, double apart) {
  double phi = 2.0;
  for (int i = 0; i < 60; ++i) phi = std::pow(1.0 + phi, 1.0 / (dim + 1));
  std::vector<float> features;
  for (int p = 0; p < n; ++p) {
    double step = 1.0;
    for (int axis = 0; axis < dim; ++axis) {
      step /= phi;
      const double place = std::fmod(0.5 + step * (p + 1), 1.0);
      features.push_back(static_cast<float>(spread * place + (axis == 0 ? apart * p : 0.0)));
    }
  }
  return features;
}

double measure_gain(int dim, const std::vector<int>& fill, int passes) {
  // Responses vary less, and filled lattices are far larger, the more dimensions there are.
  const int n = dim > 8 ? 32 : 2048 / dim;
  // Blurs and filled rings reach that many simplices, which are at most 1.3 deviations wide.
  const double apart = spread + 3.0 * (passes + static_cast<int>(fill.size()) + 2);
  const Lattice lattice(isolated_points(n, dim, apart).data(), n, dim, fill, passes, 1);
  std::vector<float> response(n);
  self_response(lattice, 1, response.data());
  double sum = 0.0;
  for (const float r : response) sum += static_cast<double>(r);
  return n / sum;
}

}  // namespace

// Two threads may measure the same: nobody waits for a measurement, so that a process forked during
// one finds no lock that nobody will open.
double lattice_gain(int dim, const std::vector<int>& fill, int passes) {
  static std::mutex mutex;
  static std::map<std::tuple<int, std::vector<int>, int>, double> known;
  const std::tuple<int, std::vector<int>, int> key{dim, fill, passes};
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto place = known.find(key);
    if (place != known.end()) return place->second;
  }
  const double gain = measure_gain(dim, fill, passes);
  const std::lock_guard<std::mutex> lock(mutex);
  return known.emplace(key, gain).first->second;
}

}  // namespace crfseg

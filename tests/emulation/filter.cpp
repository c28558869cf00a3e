// SPDX-License-Identifier: MIT
// The filter and its adjoint, in all normalisations, equal the CPU's.
#include "cuda/filter.h"

#include "emulation.h"
#include "twins.h"

namespace {

using crfseg::Normalization;
using twins::Scene;

std::vector<float> on_device(const twins::cuda::Lattice& lattice, Normalization normalization,
                             double gain, bool transpose, const std::vector<float>& values,
                             std::int64_t n_channels) {
  std::vector<float> out(values.size(), NAN);
  twins::cuda::lattice_filter(lattice, normalization, gain, transpose, values.data(), n_channels,
                              out.data(), twins::allocate(), nullptr);
  return out;
}

void check_filter(const Scene& scene, const std::vector<int>& fill, int passes,
                  std::int64_t n_channels, int most_side = 16) {
  twins::cuda::BuildOptions options = twins::options_of(scene.dim(), fill, passes);
  options.side = std::min(options.side, most_side);
  const twins::cuda::Lattice device(twins::points_of(scene), options, twins::allocate(), nullptr);
  const double gain = crfseg::lattice_gain(scene.dim(), fill, passes);
  check::Random random(3);
  const std::int64_t of_item = scene.n_points() * n_channels;
  const std::vector<float> values = random.uniforms(scene.n_items * of_item, -1.0F, 1.0F);
  for (const Normalization mode : {Normalization::none, Normalization::before, Normalization::after,
                                   Normalization::symmetric}) {
    for (const bool transpose : {false, true}) {
      std::vector<float> expected(values.size());
      for (std::int64_t item = 0; item < scene.n_items; ++item) {
        const crfseg::Lattice cpu(twins::pixels_of(scene, item), fill, passes, 1);
        crfseg::lattice_filter(cpu, mode, transpose, values.data() + item * of_item, n_channels, 1,
                               expected.data() + item * of_item);
      }
      const std::vector<float> found = on_device(device, mode, gain, transpose, values, n_channels);
      // Sums of up to the whole image's values, in another order.
      float largest = 1.0F;
      for (const float value : expected) largest = std::max(largest, std::abs(value));
      CHECK(check::largest_difference(found, expected) < 2e-6 * double(largest));
      emulation::settings().seed = 11;
      CHECK(on_device(device, mode, gain, transpose, values, n_channels) == found);
      emulation::settings().seed = 0;
    }
  }
}

// One lattice for all items is the same as one of each.
void check_repeated() {
  const Scene one = twins::scene(1, 19, 21, 0, 3.0F, 1.0F, 1);
  Scene three = one;
  three.n_items = 3;
  const auto options = twins::options_of(2, {}, 1);
  const twins::cuda::Lattice each(twins::points_of(three), options, twins::allocate(), nullptr);
  const twins::cuda::Lattice shared =
      twins::cuda::Lattice(twins::points_of(one), options, twins::allocate(), nullptr).repeated(3);
  check::Random random(3);
  const std::vector<float> values = random.uniforms(3 * one.n_points() * 5, -1.0F, 1.0F);
  CHECK(on_device(each, Normalization::symmetric, 1.0, false, values, 5) ==
        on_device(shared, Normalization::symmetric, 1.0, false, values, 5));
}

void check_sizes() {
  check_filter(twins::scene(2, 21, 35, 3, 8.0F, 12.0F, 1), {}, 1, 5);
  check_filter(twins::scene(1, 33, 34, 0, 3.0F, 1.0F, 2), {}, 1, 1);
  check_filter(twins::scene(1, 6, 9, 8, 5.0F, 9.0F, 5), {}, 1, 9);
  // Wide enough for vertices that are summed in several runs, and of more quads than go at a time.
  check_filter(twins::scene(1, 100, 100, 0, 60.0F, 1.0F, 6), {}, 1, 300);
}

}  // namespace

int main() {
  check_filter(twins::scene(2, 9, 11, 1, 4.0F, 6.0F, 4), {1, 4}, 2, 3);
  check_filter(twins::scene(1, 24, 24, 0, 60.0F, 1.0F, 6), {}, 1, 5,
               4);  // vertices of several runs
  check_repeated();
  if (!emulation::is_sanitized()) check_sizes();
  return check::result();
}

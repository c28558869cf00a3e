// SPDX-License-Identifier: MIT
// The lattice through its public header. Values are held to a reference in Python; here sizes at
// the edges of strips and vectors, every instruction set and many threads run under the sanitizers.
#include "lattice.h"

#include <cstring>
#include <limits>
#include <string>
#include <thread>

#include "check.h"
#include "cpu/dispatch.h"
#include "error.h"

using crfseg::Lattice;
using crfseg::Normalization;

namespace {

constexpr Normalization normalizations[] = {Normalization::none, Normalization::before,
                                            Normalization::after, Normalization::symmetric};

std::vector<float> filter(const Lattice& lattice, Normalization normalization, bool transpose,
                          const std::vector<float>& values, int threads) {
  std::vector<float> out(values.size());
  const auto channels = static_cast<std::int64_t>(values.size()) / lattice.n_points;
  crfseg::lattice_filter(lattice, normalization, transpose, values.data(), channels, threads,
                         out.data());
  return out;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

Lattice random_lattice(std::int64_t n, int dim, float reach, const std::vector<int>& fill,
                       int passes, int threads) {
  check::Random random(static_cast<std::uint64_t>(n * 100 + dim));
  const std::vector<float> features = random.uniforms(n * dim, -reach, reach);
  return Lattice(features.data(), n, dim, fill, passes, threads);
}

// <F x, y> = <x, F^T y>, within float32 sums over all values.
void adjoint(const Lattice& lattice, std::int64_t channels) {
  check::Random random(1);
  const std::vector<float> x = random.uniforms(lattice.n_points * channels, 0.0F, 1.0F);
  const std::vector<float> y = random.uniforms(lattice.n_points * channels, 0.0F, 1.0F);
  for (Normalization normalization : normalizations) {
    const double forward = dot(filter(lattice, normalization, false, x, 2), y);
    const double backward = dot(x, filter(lattice, normalization, true, y, 2));
    CHECK(std::abs(forward - backward) <= 1e-5 * std::abs(forward));
  }
}

void filters_have_adjoints_in_every_dimension() {
  for (int dim = 1; dim <= 16; ++dim) {
    adjoint(random_lattice(50, dim, 1.0F, {}, 1, 2), 3);
    if (dim <= 6) adjoint(random_lattice(50, dim, 1.0F, {1}, 2, 2), 3);
  }
}

void filters_have_adjoints_for_any_number_of_points_and_channels() {
  for (std::int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 1025}) {
    adjoint(random_lattice(n, 3, 2.0F, {}, 1, 3), 2);
  }
  const Lattice lattice = random_lattice(300, 2, 3.0F, {2, 1}, 1, 2);
  for (std::int64_t channels : {1, 2, 3, 4, 7, 8, 9, 16, 17, 33}) adjoint(lattice, channels);
}

float gain_of(const Lattice& lattice) {
  return static_cast<float>(crfseg::lattice_gain(lattice.dim, lattice.fill, lattice.passes));
}

// after: F 1 = 1; and the normaliser is the plain filter of ones before the gain.
void constants_pass() {
  for (int dim : {1, 2, 5, 8}) {
    const Lattice lattice = random_lattice(500, dim, 2.0F, {}, 1, 2);
    const std::vector<float> ones(500, 1.0F);
    CHECK(check::largest_difference(filter(lattice, Normalization::after, false, ones, 2), ones) <
          1e-5);
    const auto plain = filter(lattice, Normalization::none, false, ones, 2);
    const auto& normalizer = lattice.normalizer(2);
    const float gain = gain_of(lattice);
    for (std::size_t i = 0; i < plain.size(); ++i) {
      CHECK(std::abs(plain[i] / (gain * normalizer[std::int64_t(i)]) - 1.0F) < 1e-5F);
    }
  }
}

// The diagonal of K before the gain, one column of the identity after the other.
void self_response_is_the_diagonal() {
  for (const std::vector<int>& fill : {std::vector<int>{}, std::vector<int>{1}}) {
    const Lattice lattice = random_lattice(60, 3, 1.0F, fill, 2, 2);
    std::vector<float> diagonal(60);
    crfseg::self_response(lattice, 2, diagonal.data());
    const float gain = gain_of(lattice);
    for (std::size_t i = 0; i < 60; ++i) {
      std::vector<float> column(60, 0.0F);
      column[i] = 1.0F;
      const float expected = filter(lattice, Normalization::none, false, column, 1)[i];
      CHECK(std::abs(gain * diagonal[i] - expected) < 1e-5F * expected);
    }
  }
}

void threads_change_no_bit() {
  const std::vector<float> values = check::Random(5).uniforms(20000 * 3, -1.0F, 1.0F);
  const Lattice one = random_lattice(20000, 5, 6.0F, {2}, 1, 1);
  const auto expected = filter(one, Normalization::symmetric, false, values, 1);
  for (int threads : {2, 5}) {
    const Lattice many = random_lattice(20000, 5, 6.0F, {2}, 1, threads);
    CHECK(many.n_vertices == one.n_vertices);
    const auto found = filter(many, Normalization::symmetric, false, values, threads);
    CHECK(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)) == 0);
  }
}

void instruction_sets_find_the_same_lattice() {
  const std::vector<float> values = check::Random(6).uniforms(3000 * 5, 0.0F, 1.0F);
  const Lattice first = random_lattice(3000, 5, 4.0F, {}, 1, 2);
  const auto expected = filter(first, Normalization::symmetric, false, values, 2);
  const std::vector<std::string> isas = crfseg::available_isas();
  CHECK(!isas.empty());
  for (const std::string& isa : isas) {
    crfseg::set_isa(isa);
    const Lattice lattice = random_lattice(3000, 5, 4.0F, {}, 1, 2);
    CHECK(lattice.n_vertices == first.n_vertices);
    const auto found = filter(lattice, Normalization::symmetric, false, values, 2);
    CHECK(check::largest_difference(found, expected) < 1e-5);
  }
  CHECK_THROWS(crfseg::set_isa("no such instruction set"), crfseg::Error);
}

// One lattice, several callers: the normaliser is made once, by whoever comes first.
void a_lattice_is_shared() {
  const Lattice lattice = random_lattice(4000, 3, 5.0F, {}, 1, 1);
  const std::vector<float> values = check::Random(7).uniforms(4000 * 2, 0.0F, 1.0F);
  std::vector<std::vector<float>> found(4);
  std::vector<std::thread> callers;
  for (std::vector<float>& out : found) {
    callers.emplace_back(
        [&] { out = filter(lattice, Normalization::symmetric, false, values, 2); });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<float>& out : found) CHECK(out == found[0]);
}

void bad_features_are_named() {
  std::vector<float> features(300, 0.5F);
  for (float bad : {INFINITY, -INFINITY, NAN}) {
    features[152] = bad;
    bool is_named = false;
    try {
      Lattice(features.data(), 100, 3, {}, 1, 2);
    } catch (const crfseg::NonFiniteFeature& error) {
      is_named = error.point == 50 && error.axis == 2;
    }
    CHECK(is_named);
  }
  features[152] = 1e9F;
  CHECK_THROWS(Lattice(features.data(), 100, 3, {}, 1, 2), crfseg::KeyRange);
  features[152] = std::numeric_limits<float>::max();
  CHECK_THROWS(Lattice(features.data(), 100, 3, {}, 1, 2), crfseg::KeyRange);
}

// Two points at one place and nothing near: k = 1 on average over places.
void an_isolated_pair_has_weight_one() {
  for (int dim : {1, 2, 5}) {
    check::Random random(9);
    const std::int64_t n = 2000;
    std::vector<float> features = random.uniforms(n * dim, -3.0F, 3.0F);
    for (std::int64_t i = 0; i < n; ++i) features[std::size_t(i * dim)] += 50.0F * float(i);
    const Lattice lattice(features.data(), n, dim, {}, 1, 2);
    std::vector<float> response(static_cast<std::size_t>(n));
    crfseg::self_response(lattice, 2, response.data());
    double mean = 0.0;
    for (float value : response) mean += gain_of(lattice) * value / double(n);
    CHECK(std::abs(mean - 1.0) < 0.05);
  }
}

}  // namespace

int main() {
  filters_have_adjoints_in_every_dimension();
  filters_have_adjoints_for_any_number_of_points_and_channels();
  constants_pass();
  self_response_is_the_diagonal();
  threads_change_no_bit();
  instruction_sets_find_the_same_lattice();
  a_lattice_is_shared();
  bad_features_are_named();
  an_isolated_pair_has_weight_one();
  return check::result();
}

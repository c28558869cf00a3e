// SPDX-License-Identifier: MIT
// Packed keys against the lattice coordinates that they stand for.
#include <array>
#include <map>
#include <set>

#include "check.h"
#include "cpu/key_layout.h"
#include "cpu/vertex_index.h"

using crfseg::KeyLayout;
using crfseg::KeyRanges;
using crfseg::NarrowKey;
using crfseg::WideKey;

namespace {

constexpr int max_corners = crfseg::permutohedral::max_corners;
using Coordinates = std::array<std::int64_t, max_corners>;

KeyRanges ranges_of(int dim, float reach) {
  const std::vector<float> low(static_cast<std::size_t>(dim), -reach);
  const std::vector<float> high(static_cast<std::size_t>(dim), reach);
  return KeyRanges::of(dim, 1, 0, low.data(), high.data());
}

// A remainder-0 vertex of the hyperplane: quotients that sum to zero.
Coordinates random_origin(int dim, std::int64_t reach, check::Random* random) {
  Coordinates quotients{};
  std::int64_t sum = 0;
  for (int i = 0; i < dim; ++i) {
    const auto span = static_cast<std::uint64_t>(2 * reach + 1);
    quotients[i] = static_cast<std::int64_t>(random->bits() % span) - reach;
    sum += quotients[i];
  }
  quotients[dim] = -sum;
  return quotients;
}

Coordinates step(Coordinates at, int dim, int axis, int sign) {
  for (int i = 0; i <= dim; ++i) at[i] += sign * (i == axis ? -dim : 1);
  return at;
}

// Walks at random through the lattice, coordinates and key side by side: equal coordinates must
// have equal keys, different ones different keys, and each step must be undone by its opposite.
template <class Key>
void keys_are_as_exact_as_coordinates(int dim, float feature_reach, std::int64_t reach) {
  check::Random random(static_cast<std::uint64_t>(dim));
  const KeyLayout<Key> layout(ranges_of(dim, feature_reach));
  std::map<Coordinates, Key> keys;
  std::set<Key> distinct;
  const auto visit = [&](const Coordinates& at, Key key) {
    const auto found = keys.emplace(at, key);
    if (found.second) {
      CHECK(distinct.insert(key).second);
    } else {
      CHECK(found.first->second == key);
    }
  };
  for (int walk = 0; walk < 60; ++walk) {
    const Coordinates quotients = random_origin(dim, reach, &random);
    Coordinates at{};
    for (int i = 0; i <= dim; ++i) at[i] = quotients[i] * (dim + 1);
    Key key = layout.origin(quotients.data());
    visit(at, key);
    for (int n = 0; n < 12; ++n) {
      const int axis = static_cast<int>(random.bits() % static_cast<std::uint64_t>(dim + 1));
      const bool forth = random.bits() % 2 == 0;
      const Key next = forth ? layout.forth(key, axis) : layout.back(key, axis);
      CHECK((forth ? layout.back(next, axis) : layout.forth(next, axis)) == key);
      at = step(at, dim, axis, forth ? 1 : -1);
      key = next;
      visit(at, key);
    }
  }
}

// Around a simplex once: d + 1 corners, each a step along another axis, back to the first vertex.
void corners_of_a_simplex_are_steps_along_every_axis() {
  for (int dim : {1, 2, 5, 16}) {
    const KeyLayout<WideKey> layout(ranges_of(dim, 4.0F));
    const Coordinates zero{};
    const WideKey first = layout.origin(zero.data());
    WideKey by_corner = first, by_step = first;
    for (int k = 0; k < dim; ++k) {
      by_corner = layout.next_corner(by_corner, k);
      by_step = layout.forth(by_step, k);
      CHECK(by_corner == by_step);
    }
    CHECK(layout.forth(by_corner, dim) == first);
  }
}

void ranges_that_do_not_fit_are_refused_and_the_axis_is_named() {
  std::vector<float> low(5, 0.0F), high(5, 1.0F);
  high[3] = 1e9F;
  int axis = -1;
  try {
    KeyRanges::of(5, 1, 0, low.data(), high.data());
  } catch (const crfseg::KeyRange& error) {
    axis = error.axis;
    CHECK(error.lo == 0.0 && error.hi == 1e9F);
  }
  CHECK(axis == 3);
  CHECK_THROWS(ranges_of(16, 2000.0F), crfseg::KeyRange);  // every axis alone would fit
  CHECK(ranges_of(16, 20.0F).total_bits > 64);
  CHECK(ranges_of(5, 20.0F).total_bits <= 64);
}

// Numbering is that of one thread whatever the number of shards.
void vertices_are_numbered_in_order_of_first_occurrence() {
  check::Random random(3);
  crfseg::KeyChunks<NarrowKey> chunks(7);
  for (auto& chunk : chunks) {
    for (int i = 0; i < 400; ++i) chunk.push_back(random.bits() % 500 * 0x100000001ULL);
  }
  for (int threads : {1, 2, 8}) {
    crfseg::VertexIndex<NarrowKey> index(threads);
    std::vector<std::uint32_t> ids;
    index.number(chunks, 1, &ids);
    std::map<NarrowKey, std::uint32_t> expected;
    std::size_t place = 0;
    for (const auto& chunk : chunks) {
      for (const NarrowKey key : chunk) {
        const auto number = static_cast<std::uint32_t>(expected.size());
        const auto found = expected.emplace(key, number).first;
        CHECK(ids[place++] == found->second);
        CHECK(index.find(key) == found->second);
      }
    }
    CHECK(index.size() == static_cast<std::int64_t>(expected.size()));
    CHECK(index.find(12345) == crfseg::KeyTable<NarrowKey>::none);
  }
}

void rare_keys_can_be_left_out() {
  check::Random random(4);
  crfseg::KeyChunks<WideKey> chunks(3);
  std::map<WideKey, int> count;
  for (auto& chunk : chunks) {
    for (int i = 0; i < 3000; ++i) {
      chunk.push_back(WideKey{random.bits() % 4000} << 60);
      ++count[chunk.back()];
    }
  }
  crfseg::VertexIndex<WideKey> index(2);
  index.number(chunks, 2, nullptr);
  std::int64_t kept = 0;
  for (const auto& entry : count) {
    const std::uint32_t found = index.find(entry.first);
    CHECK((found != crfseg::KeyTable<WideKey>::none) == (entry.second >= 2));
    if (found == crfseg::KeyTable<WideKey>::none) continue;
    CHECK(index.keys()[found] == entry.first);
    ++kept;
  }
  CHECK(index.size() == kept);
}

}  // namespace

int main() {
  for (int dim : {1, 2, 3, 5, 8}) keys_are_as_exact_as_coordinates<NarrowKey>(dim, 20.0F, 4);
  for (int dim : {1, 3, 5, 8, 16}) keys_are_as_exact_as_coordinates<WideKey>(dim, 20.0F, 4);
  keys_are_as_exact_as_coordinates<WideKey>(5, 20000.0F, 9000);
  corners_of_a_simplex_are_steps_along_every_axis();
  ranges_that_do_not_fit_are_refused_and_the_axis_is_named();
  vertices_are_numbered_in_order_of_first_occurrence();
  rare_keys_can_be_left_out();
  return check::result();
}

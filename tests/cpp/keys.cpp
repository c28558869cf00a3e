// SPDX-License-Identifier: MIT
// Packed keys against the lattice coordinates that they stand for.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "check.h"
#include "cpu/vertex_index.h"
#include "math/key_layout.h"

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

template <class Key>
crfseg::KeyChunks<Key> random_chunks(std::uint64_t seed, std::size_t n_chunks, int n,
                                     std::uint64_t n_distinct, Key spread) {
  check::Random random(seed);
  crfseg::KeyChunks<Key> chunks(n_chunks);
  for (auto& chunk : chunks) {
    for (int i = 0; i < n; ++i) chunk.push_back(random.bits() % n_distinct * spread);
  }
  return chunks;
}

// Those that are there and as many that are not, alone and in batches.
template <class Index, class Key>
void numbers_are_found(const Index& index, const std::map<Key, std::uint32_t>& expected,
                       Key spread) {
  std::vector<Key> wanted;
  for (Key i = 0; i < Key(2 * expected.size()); ++i) wanted.push_back(i * spread);
  std::vector<std::uint32_t> found(wanted.size());
  for (std::size_t first = 0; first < wanted.size(); first += crfseg::key_batch) {
    const std::size_t left = wanted.size() - first;
    index.find(&wanted[first], int(std::min<std::size_t>(left, crfseg::key_batch)), &found[first]);
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto known = expected.find(wanted[i]);
    CHECK(found[i] == (known == expected.end() ? crfseg::no_vertex : known->second));
  }
}

// Numbering is that of a map which meets the keys one by one, whatever the number of threads and of
// shards (one for few keys, several for many).
template <class Key>
void vertices_are_numbered_in_order_of_first_occurrence(int n_per_chunk, Key spread) {
  const auto chunks = random_chunks<Key>(3, 7, n_per_chunk, n_per_chunk, spread);
  for (int threads : {1, 2, 8}) {
    std::vector<std::uint32_t> ids(7 * static_cast<std::size_t>(n_per_chunk));
    const crfseg::VertexIndex<Key> index(chunks, threads, ids.data());
    std::map<Key, std::uint32_t> expected;
    std::size_t place = 0;
    for (const auto& chunk : chunks) {
      for (const Key key : chunk) {
        const auto number = static_cast<std::uint32_t>(expected.size());
        const auto found = expected.emplace(key, number).first;
        CHECK(ids[place++] == found->second);
        CHECK(index.keys()[found->second] == key);
      }
    }
    CHECK(index.size() == static_cast<std::int64_t>(expected.size()));
    numbers_are_found(index, expected, spread);
  }
}

void frequent_keys_come_in_order_of_first_occurrence() {
  const auto chunks = random_chunks<WideKey>(4, 3, 20000, 30000, WideKey{1} << 60);
  std::map<WideKey, int> count;
  std::vector<WideKey> order;
  for (const auto& chunk : chunks) {
    for (const WideKey key : chunk) {
      if (++count[key] == 1) order.push_back(key);
    }
  }
  for (int at_least : {1, 2, 4}) {
    const auto found = crfseg::frequent_keys(chunks, at_least, 2);
    std::int64_t n = 0;
    for (const WideKey key : order) {
      if (count[key] < at_least) continue;
      CHECK(n < found.size() && found[n] == key);
      ++n;
    }
    CHECK(n == found.size());
  }
}

// Tables that grow from nothing; keys whose tags coincide, in groups that run full.
void tables_find_what_was_put_in() {
  crfseg::KeyTable<NarrowKey> table;
  crfseg::GrowingBuffer<NarrowKey> keys;
  for (NarrowKey key = 0; key < 5000; ++key) {
    const std::uint64_t hash = crfseg::hash_key(key);
    CHECK(table.find(keys.data(), key, hash) == crfseg::no_vertex);
    CHECK(table.find_or_append(&keys, key, hash) == key);
    CHECK(table.find_or_append(&keys, key, hash) == key);
  }
  crfseg::KeyTable<NarrowKey> crowded(100);
  keys.clear();
  for (NarrowKey key = 0; key < 40; ++key) CHECK(crowded.find_or_append(&keys, key, ~0ULL) == key);
  for (NarrowKey key = 0; key < 40; ++key) CHECK(crowded.find(keys.data(), key, ~0ULL) == key);
  CHECK(crowded.find(keys.data(), 40, ~0ULL) == crfseg::no_vertex);
}

}  // namespace

int main() {
  for (int dim : {1, 2, 3, 5, 8}) keys_are_as_exact_as_coordinates<NarrowKey>(dim, 20.0F, 4);
  for (int dim : {1, 3, 5, 8, 16}) keys_are_as_exact_as_coordinates<WideKey>(dim, 20.0F, 4);
  keys_are_as_exact_as_coordinates<WideKey>(5, 20000.0F, 9000);
  corners_of_a_simplex_are_steps_along_every_axis();
  ranges_that_do_not_fit_are_refused_and_the_axis_is_named();
  for (int n : {1, 400, 20000}) {
    vertices_are_numbered_in_order_of_first_occurrence<NarrowKey>(n, 0x100000001ULL);
    vertices_are_numbered_in_order_of_first_occurrence<WideKey>(n, WideKey{1} << 60);
  }
  frequent_keys_come_in_order_of_first_occurrence();
  tables_find_what_was_put_in();
  return check::result();
}

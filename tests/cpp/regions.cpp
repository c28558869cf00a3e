// SPDX-License-Identifier: MIT
// Places in a region, against a row of flags.
#include "cpu/regions.h"

#include <algorithm>
#include <vector>

#include "check.h"

using crfseg::Region;

namespace {

constexpr std::size_t size = 200;

struct Run {
  std::size_t at, bytes;
};

std::vector<Run> free_runs(const std::vector<bool>& is_taken) {
  std::vector<Run> runs;
  for (std::size_t i = 0; i < size; ++i) {
    if (is_taken[i]) continue;
    if (i == 0 || is_taken[i - 1]) runs.push_back({i, 0});
    ++runs.back().bytes;
  }
  return runs;
}

void check_free_places(const Region& region, const std::vector<bool>& is_taken) {
  const std::vector<Run> expected = free_runs(is_taken);
  std::size_t i = 0;
  region.each_free([&](std::size_t at, std::size_t bytes) {
    CHECK(i < expected.size() && at == expected[i].at && bytes == expected[i].bytes);
    ++i;
  });
  CHECK(i == expected.size());
  CHECK(region.is_empty() == (expected.size() == 1 && expected[0].bytes == size));
}

// What the tightest run's length is, or 0 where none is long enough.
std::size_t tightest(const std::vector<Run>& runs, std::size_t bytes) {
  std::size_t best = 0;
  for (const Run& run : runs) {
    if (run.bytes >= bytes && (best == 0 || run.bytes < best)) best = run.bytes;
  }
  return best;
}

void take(Region* region, std::size_t bytes, std::vector<bool>* is_taken, std::vector<Run>* out) {
  const std::vector<Run> runs = free_runs(*is_taken);
  const std::size_t at = region->take(bytes), best = tightest(runs, bytes);
  if (best == 0) return CHECK(at == size);
  const bool begins_such_a_run = std::any_of(
      runs.begin(), runs.end(), [&](const Run& run) { return run.at == at && run.bytes == best; });
  CHECK(begins_such_a_run);
  std::fill_n(is_taken->begin() + std::ptrdiff_t(at), bytes, true);
  out->push_back({at, bytes});
}

void give_back(Region* region, std::size_t i, std::vector<bool>* is_taken, std::vector<Run>* out) {
  const Run run = (*out)[i];
  out->erase(out->begin() + std::ptrdiff_t(i));
  region->give_back(run.at);
  std::fill_n(is_taken->begin() + std::ptrdiff_t(run.at), run.bytes, false);
}

void places_are_taken_and_given_back() {
  check::Random random(8);
  Region region(size);
  std::vector<bool> is_taken(size);
  std::vector<Run> out;
  for (int step = 0; step < 5000; ++step) {
    if (random.bits() % 2 == 0 || out.empty()) {
      take(&region, 1 + random.bits() % 40, &is_taken, &out);
    } else {
      give_back(&region, random.bits() % out.size(), &is_taken, &out);
    }
    check_free_places(region, is_taken);
  }
  while (!out.empty()) give_back(&region, out.size() - 1, &is_taken, &out);
  check_free_places(region, is_taken);
  CHECK(region.take(size) == 0);
}

}  // namespace

int main() {
  places_are_taken_and_given_back();
  return check::result();
}

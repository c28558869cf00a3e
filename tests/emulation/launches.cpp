// SPDX-License-Identifier: MIT
// The emulation itself: orders, barriers, and what becomes of errors, under both schedules.
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "../cpp/check.h"
#include "cuda/device.h"
#include "heap.h"

namespace {

using namespace crfseg::cuda;
using emulation::Schedule;
using emulation::Undefined;

std::vector<std::int64_t> visits;
std::mutex visits_mutex;

CRFSEG_KERNEL visit() {
  const std::lock_guard<std::mutex> lock(visits_mutex);
  visits.push_back(grid_first());
}

std::vector<std::int64_t> order_of(std::uint64_t seed) {
  visits.clear();
  emulation::settings().seed = seed;
  CRFSEG_LAUNCH(visit, 5, 4, 0, nullptr);
  emulation::settings().seed = 0;
  return visits;
}

void check_orders() {
  std::vector<std::int64_t> all(20);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  std::vector<std::int64_t> plain = order_of(0), one = order_of(1), two = order_of(2);
  if (emulation::settings().schedule == Schedule::fibers) {
    CHECK(plain == all && one != all && two != all && one != two && one == order_of(1));
  }
  for (std::vector<std::int64_t>* found : {&plain, &one, &two}) {
    std::sort(found->begin(), found->end());
    CHECK(*found == all);
  }
}

// Values go round the block: each step waits for what the neighbour left, and then for its leaving.
CRFSEG_KERNEL pass_round(int n_steps, std::uint32_t* out) {
  CRFSEG_SHARED(shared);
  std::uint32_t* value = reinterpret_cast<std::uint32_t*>(shared);
  const int own = thread_index();
  value[own] = static_cast<std::uint32_t>(own);
  block_barrier();
  for (int step = 0; step < n_steps; ++step) {
    const std::uint32_t left = value[(own + block_size() - 1) % block_size()];
    block_barrier();
    value[own] = left;
    block_barrier();
  }
  out[grid_first()] = value[own];
}

void check_barriers() {
  constexpr int n = 4, n_steps = 3;
  for (const std::uint64_t seed : {0, 1, 2}) {
    emulation::settings().seed = seed;
    std::vector<std::uint32_t> out(2 * n);
    CRFSEG_LAUNCH(pass_round, 2, n, n * sizeof(std::uint32_t), nullptr, n_steps, out.data());
    for (int i = 0; i < 2 * n; ++i) {
      CHECK(out[static_cast<std::size_t>(i)] == static_cast<std::uint32_t>((i + n - n_steps) % n));
    }
  }
  emulation::settings().seed = 0;
}

CRFSEG_KERNEL throw_in_one() {
  block_barrier();
  if (thread_index() == 2 && block_index() == 1) throw std::range_error("of a kernel");
  block_barrier();
}

CRFSEG_KERNEL leave_one() {
  if (thread_index() != 1) block_barrier();
}

CRFSEG_KERNEL wait_elsewhere() {
  if (thread_index() == 1) {
    block_barrier();
  } else {
    block_barrier();
  }
}

void check_errors() {
  CHECK_THROWS(CRFSEG_LAUNCH(throw_in_one, 3, 4, 0, nullptr), std::range_error);
  check_barriers();  // whatever was left waiting
  CHECK_THROWS(CRFSEG_LAUNCH(leave_one, 3, 4, 0, nullptr), Undefined);
  check_barriers();
  CHECK_THROWS(CRFSEG_LAUNCH(wait_elsewhere, 1, 4, 0, nullptr), Undefined);
  check_barriers();
  CHECK_THROWS(CRFSEG_LAUNCH(visit, 0, 4, 0, nullptr), Undefined);
  CHECK_THROWS(CRFSEG_LAUNCH(visit, 1, 1025, 0, nullptr), Undefined);
  CHECK_THROWS(CRFSEG_LAUNCH(visit, 1, 1, emulation::most_shared_bytes + 1, nullptr), Undefined);
  CHECK_THROWS(block_barrier(), std::logic_error);
}

void check_heap() {
  const emulation::HeapCounts before = emulation::heap_counts();
  {
    const auto held = emulation::allocate(10);
    emulation::fail_allocation(1);
    const auto other = emulation::allocate(20);
    CHECK(other != nullptr && emulation::allocate(30) == nullptr);
    CHECK(emulation::allocate(30) != nullptr);
    CHECK(emulation::heap_counts().pieces == before.pieces + 2);
    CHECK(emulation::heap_counts().bytes == before.bytes + 30);
    CHECK(emulation::heap_counts().asked == before.asked + 4);
  }
  CHECK(emulation::heap_counts().pieces == before.pieces);
}

void check_schedule() {
  check_orders();
  check_barriers();
  check_errors();
}

}  // namespace

int main() {
  check_schedule();
  check_heap();
  emulation::settings().schedule = Schedule::threads;
  check_schedule();
  return check::result();
}

// SPDX-License-Identifier: MIT
#include "parallel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"

namespace {

bool each_task_runs_once(std::int64_t n_tasks, int threads) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n_tasks));
  crfseg::parallel_for(n_tasks, threads, [&](std::int64_t i) { ++runs[std::size_t(i)]; });
  for (const auto& count : runs) {
    if (count != 1) return false;
  }
  return true;
}

void every_task_runs_once() {
  for (int threads : {1, 2, 3, 8}) {
    for (std::int64_t n_tasks : {0, 1, 2, 7, 1000}) CHECK(each_task_runs_once(n_tasks, threads));
  }
}

void ranges_cover_everything_without_overlap() {
  for (std::int64_t n : {0, 1, 99, 100, 101}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
    crfseg::parallel_ranges(n, 10, 3, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++visits[std::size_t(i)];
    });
    for (const auto& count : visits) CHECK(count == 1);
  }
}

// What tasks wrote without atomics is visible to the caller afterwards, and to the next region.
void regions_follow_each_other() {
  std::vector<double> sums(16, 0.0);
  for (int round = 0; round < 500; ++round) {
    crfseg::parallel_for(16, 4, [&](std::int64_t i) { sums[std::size_t(i)] += double(i); });
  }
  for (std::size_t i = 0; i < sums.size(); ++i) CHECK(sums[i] == 500.0 * double(i));
}

void an_exception_reaches_the_caller() {
  for (int threads : {1, 4}) {
    CHECK_THROWS(crfseg::parallel_for(100, threads,
                                      [](std::int64_t i) {
                                        if (i == 37) throw std::runtime_error("task 37");
                                      }),
                 std::runtime_error);
    CHECK(each_task_runs_once(100, threads));  // the pool is none the worse
  }
}

void nested_calls_run() {
  std::atomic<int> inner{0};
  crfseg::parallel_for(
      8, 4, [&](std::int64_t) { crfseg::parallel_for(10, 4, [&](std::int64_t) { ++inner; }); });
  CHECK(inner == 80);
}

// As Python threads do that all call the library at once.
void many_callers_at_once() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        if (!each_task_runs_once(20, 3)) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

// A child has none of its parent's threads. ThreadSanitizer does not follow threads into a child of
// a process that has some, so forks are tried where it is not looking.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CRFSEG_UNDER_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define CRFSEG_UNDER_TSAN
#endif

#if !defined(CRFSEG_UNDER_TSAN)
bool a_child_can_work() {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a hang is a failure
    _exit(each_task_runs_once(100, 3) ? 0 : 1);
  }
  int status = -1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void a_forked_child_starts_afresh() {
  CHECK(each_task_runs_once(100, 3));
  CHECK(a_child_can_work());
  CHECK(each_task_runs_once(100, 3));
}

void a_child_forked_while_the_pool_is_busy_starts_afresh() {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) each_task_runs_once(50, 3);
  });
  for (int round = 0; round < 20; ++round) CHECK(a_child_can_work());
  stop = true;
  busy.join();
}
#endif

}  // namespace

int main() {
  every_task_runs_once();
  ranges_cover_everything_without_overlap();
  regions_follow_each_other();
  an_exception_reaches_the_caller();
  nested_calls_run();
  many_callers_at_once();
#if !defined(CRFSEG_UNDER_TSAN)
  a_forked_child_starts_afresh();
  a_child_forked_while_the_pool_is_busy_starts_afresh();
#endif
  return check::result();
}

// SPDX-License-Identifier: MIT
// One region at a time: the caller publishes a job and works on it; idle workers join while it is
// open. The caller closes it when no task is left to take and waits for those that joined, so a
// worker that wakes up late costs nothing.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace crfseg {
namespace {

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

thread_local bool in_region = false;

struct Job {
  detail::Task task = nullptr;
  void* context = nullptr;
  std::int64_t n_tasks = 0;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> seats{0};  // workers that may still join
  std::atomic<bool> failed{false};
  std::exception_ptr failure;

  void work() {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= n_tasks || failed.load(std::memory_order_relaxed)) return;
      try {
        task(context, index);
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
  }
};

class Pool {
 public:
  bool try_run(std::int64_t n_tasks, int threads, detail::Task task, void* context) {
    std::unique_lock<std::mutex> region(region_, std::try_to_lock);
    if (!region.owns_lock()) return false;
    hire(threads - 1);
    job_.task = task;
    job_.context = context;
    job_.n_tasks = n_tasks;
    job_.next = 0;
    job_.failed = false;
    job_.failure = nullptr;
    job_.seats = threads - 1;
    open_ = true;
    {
      const std::lock_guard<std::mutex> lock(sleep_);
      ++epoch_;
    }
    if (sleepers_ > 0) wake_.notify_all();
    job_.work();
    open_ = false;
    // A worker counts itself in before it looks at open_; both are sequentially consistent, so
    // either it sees the job closed or it is seen here.
    for (int spin = 0; active_ != 0; ++spin) {
      if (spin < 4000) {
        pause_briefly();
      } else {
        std::this_thread::yield();  // a worker may wait for this very core
      }
    }
    if (job_.failed) std::rethrow_exception(job_.failure);
    return true;
  }

 private:
  void hire(int workers) {
    try {
      for (; n_workers_ < workers; ++n_workers_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // The system grants no more threads: go on with those there are.
    }
  }

  void serve() {
    in_region = true;
    std::uint64_t seen = 0;
    for (;;) {
      seen = wait_for_job(seen);
      ++active_;
      if (open_ && job_.seats.fetch_sub(1) > 0) job_.work();
      --active_;
    }
  }

  // Phases of one inference follow each other within microseconds: waking a sleeping thread costs
  // more than that, so look around for a while before going to sleep.
  std::uint64_t wait_for_job(std::uint64_t seen) {
    for (int spin = 0; spin < 4000; ++spin) {
      const std::uint64_t now = epoch_;
      if (now != seen) return now;
      pause_briefly();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    ++sleepers_;
    wake_.wait(lock, [&] { return epoch_ != seen; });
    --sleepers_;
    return epoch_;
  }

  Job job_;
  std::mutex region_, sleep_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> epoch_{0};
  std::atomic<int> active_{0}, sleepers_{0};
  std::atomic<bool> open_{false};
  int n_workers_ = 0;
};

// Never destroyed: workers may outlive static destructors. A forked child has no workers and maybe
// a locked mutex, so it starts afresh.
Pool* pool = new Pool;
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

}  // namespace

namespace detail {

void run_tasks(std::int64_t n_tasks, int threads, Task task, void* context) {
  const int wanted = static_cast<int>(std::min<std::int64_t>(threads, n_tasks));
  if (wanted > 1 && !in_region) {
    in_region = true;
    struct Leave {
      ~Leave() { in_region = false; }
    } leave;
    if (pool->try_run(n_tasks, wanted, task, context)) return;
  }
  for (std::int64_t index = 0; index < n_tasks; ++index) task(context, index);
}

}  // namespace detail

}  // namespace crfseg

// SPDX-License-Identifier: MIT
// The library's own threads: a private pool that a forked child drops, because OpenMP regions are
// known to hang after fork (PyTorch DataLoader workers fork).
#pragma once

#include <cstdint>
#include <type_traits>

namespace crfseg {

namespace detail {
using Task = void (*)(void* context, std::int64_t index);
void run_tasks(std::int64_t n_tasks, int threads, Task task, void* context);
}  // namespace detail

// Calls f(0) .. f(n_tasks - 1), each once, on up to `threads` threads, the caller's among them.
// Tasks must not depend on which thread runs them. The first exception is rethrown here. Nested
// calls, and calls made while another thread's region runs, run on the calling thread alone.
template <class F>
void parallel_for(std::int64_t n_tasks, int threads, F&& f) {
  using Function = std::remove_reference_t<F>;
  detail::run_tasks(
      n_tasks, threads,
      [](void* context, std::int64_t index) { (*static_cast<Function*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Splits 0..n into chunks of `grain` and calls f(begin, end) for each.
template <class F>
void parallel_ranges(std::int64_t n, std::int64_t grain, int threads, F&& f) {
  parallel_for((n + grain - 1) / grain, threads, [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace crfseg

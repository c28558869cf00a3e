// SPDX-License-Identifier: MIT
// Programs with a fault each, which the tools of tests/emulation have to find. What is found
// without a sanitizer is printed; one that is not found prints nothing.
#pragma once

#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace planted {

// `run` fills a vector; it must be the same in every order of blocks and threads.
inline void compare_orders(const std::function<std::vector<float>()>& run) {
  const std::vector<float> in_order = run();
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    emulation::settings().seed = seed;
    const std::vector<float> found = run();
    if (std::memcmp(found.data(), in_order.data(), found.size() * sizeof(float)) == 0) continue;
    std::puts("the result depends on the order");
  }
}

inline void report(const std::function<void()>& run) {
  try {
    run();
  } catch (const emulation::Undefined& e) {
    std::puts(e.what());
  }
}

}  // namespace planted

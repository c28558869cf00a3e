// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "sanitizers.h"

namespace check {

// Those that a test is to go through: all, but where threads are watched, which do the same in each
// and take ten times as long, the one in use.
inline std::vector<std::string> instruction_sets() {
  if (has_thread_sanitizer) return {crfseg::active_kernels().name};
  return crfseg::available_isas();
}

}  // namespace check

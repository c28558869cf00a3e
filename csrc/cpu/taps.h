// SPDX-License-Identifier: MIT
// Where the pixels along one side of an image lie between coarse scores.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"

namespace crfseg {

std::vector<kernels::Tap> taps(std::int64_t coarse, std::int64_t fine, bool align_corners);

}  // namespace crfseg

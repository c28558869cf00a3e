// SPDX-License-Identifier: MIT
// Where the pixels along one side of an image lie between coarse scores.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"

namespace crfseg {

// Pixel centres lie at (i + 1/2) coarse / fine - 1/2, or with align_corners at
// i (coarse - 1) / (fine - 1); what falls outside takes the nearest score.
std::vector<kernels::Tap> taps(std::int64_t coarse, std::int64_t fine, bool align_corners);

}  // namespace crfseg

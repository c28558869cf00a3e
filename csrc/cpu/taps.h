// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "math/taps.h"

namespace crfseg {

// Of all pixels along one side of an image.
std::vector<Tap> taps(std::int64_t coarse, std::int64_t fine, bool align_corners);

}  // namespace crfseg

// SPDX-License-Identifier: MIT
// Which instruction set the kernels run on: the best the machine has, unless CRFSEG_ISA says
// another.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"

namespace crfseg {

const kernels::Table& active_kernels();
std::vector<std::string> available_isas();  // slowest first
void set_isa(const std::string& name);      // throws Error for a name that is not available

}  // namespace crfseg

// SPDX-License-Identifier: MIT
// What runs on the host and on devices.
#pragma once

#if defined(__CUDACC__)
#define CRFSEG_HD_MEMBER __host__ __device__
#else
#define CRFSEG_HD_MEMBER
#endif
#define CRFSEG_HD CRFSEG_HD_MEMBER static inline

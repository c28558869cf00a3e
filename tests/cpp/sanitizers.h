// SPDX-License-Identifier: MIT
// Which sanitizer is compiled in. GCC says it by macros, Clang by features.
#pragma once

#if defined(__has_feature)
#define EMULATION_HAS_FEATURE(name) __has_feature(name)
#else
#define EMULATION_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || EMULATION_HAS_FEATURE(address_sanitizer)
constexpr bool has_address_sanitizer = true;
#else
constexpr bool has_address_sanitizer = false;
#endif

#if defined(__SANITIZE_THREAD__) || EMULATION_HAS_FEATURE(thread_sanitizer)
constexpr bool has_thread_sanitizer = true;
#else
constexpr bool has_thread_sanitizer = false;
#endif

// SPDX-License-Identifier: MIT
// The smallest test harness that still says what went wrong: CHECK counts and prints failures,
// main() ends with `return check::result();`. Random numbers are the same on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace check {

inline int& failures() {
  static int count = 0;
  return count;
}

inline void that(bool holds, const char* expression, const char* file, int line) {
  if (holds) return;
  if (++failures() > 20) return;  // enough to see what is wrong
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, expression);
}

inline int result() {
  if (failures() > 0) std::fprintf(stderr, "%d checks failed\n", failures());
  return failures() == 0 ? 0 : 1;
}

// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits() >> 40) / 16777216.0F;
  }
  std::vector<float> uniforms(std::int64_t n, float low, float high) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = uniform(low, high);
    return values;
  }

 private:
  std::uint64_t state_;
};

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double(a[i]) - double(b[i]));
    if (!(difference <= largest)) largest = difference;  // NaN wins
  }
  return largest;
}

}  // namespace check

#define CHECK(expression) check::that((expression), #expression, __FILE__, __LINE__)
#define CHECK_THROWS(statement, Exception)                                     \
  do {                                                                         \
    bool thrown = false;                                                       \
    try {                                                                      \
      statement;                                                               \
    } catch (const Exception&) {                                               \
      thrown = true;                                                           \
    }                                                                          \
    check::that(thrown, #statement " throws " #Exception, __FILE__, __LINE__); \
  } while (false)

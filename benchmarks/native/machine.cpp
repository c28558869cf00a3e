// SPDX-License-Identifier: MIT
// What this machine can do, in loops that do nothing else: `machine THREADS` prints lines of
//   clock|fma|read  threads  bytes  cycles, floating-point operations or bytes a second
// as the best of several tries, since peaks are asked for. The bytes are those of the vectors that
// are multiplied (the library's, then the widest there are) and of the set that is read.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
template <int width>
struct Floats {
  typedef float Vector __attribute__((vector_size(width * sizeof(float))));
};
typedef Floats<lanes>::Vector Vector;
constexpr int n_chains = 12;  // enough to hide a latency of 4 cycles on 3 pipes
constexpr int n_tries = 5;
constexpr double seconds_per_try = 0.05;

// What the compiler must assume is used and changed here.
template <class T>
void touch(T* value) {
  asm volatile("" : "+m"(*value));
}

// Repeats of `work` a second: a first guess, then tries that are long enough.
double rate(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  double best = 0.0;
  int repeats = 1;
  for (int tries = 0; tries < n_tries;) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) work();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds < seconds_per_try) {
      repeats *= 2;
      continue;
    }
    best = std::max(best, repeats / seconds);
    ++tries;
  }
  return best;
}

// The sum of the rates of threads that work at the same time.
double total_rate(int n_threads, const std::function<std::function<void()>(int)>& make_work) {
  std::vector<double> rates(n_threads);
  std::vector<std::thread> threads;
  std::atomic<int> waiting{n_threads};
  for (int i = 0; i < n_threads; ++i) {
    threads.emplace_back([&, i] {
      const std::function<void()> work = make_work(i);
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      rates[i] = rate(work);
    });
  }
  for (std::thread& thread : threads) thread.join();
  double sum = 0.0;
  for (double each : rates) sum += each;
  return sum;
}

constexpr int n_adds = 8 * 4096;

// Additions that wait for one another take a cycle each.
void add_in_a_chain() {
  std::uint64_t x = 0, step = 3;
  for (int i = 0; i < n_adds; i += 8) {
    for (int k = 0; k < 8; ++k) {
      asm volatile("" : "+r"(x), "+r"(step));
      x += step;
    }
  }
  touch(&x);
}

constexpr int n_steps = 4096;

template <int width>
void multiply_and_add() {
  typedef typename Floats<width>::Vector V;
  V sums[n_chains] = {}, factor, term;
  for (int lane = 0; lane < width; ++lane) {
    factor[lane] = 0.5F;
    term[lane] = 1.0F;
  }
  touch(&factor);
  touch(&term);
  const V a = factor, b = term;
  for (int i = 0; i < n_steps; ++i) {
    for (V& sum : sums) sum = sum * a + b;
  }
  for (V& sum : sums) touch(&sum);
}

void read(const std::vector<float>& values) {
  Vector sums[8] = {};
  const float* at = values.data();
  for (std::size_t i = 0; i + 8 * lanes <= values.size(); i += 8 * lanes) {
    for (int k = 0; k < 8; ++k) {
      Vector v;
      std::memcpy(&v, at + i + k * lanes, sizeof v);
      sums[k] += v;
    }
  }
  for (Vector& sum : sums) touch(&sum);
}

void print(const char* what, int n_threads, std::int64_t bytes, double value) {
  std::printf("%s %d %lld %.6g\n", what, n_threads, static_cast<long long>(bytes), value);
}

std::function<std::function<void()>(int)> for_all(void (*work)()) {
  return [work](int) { return std::function<void()>(work); };
}

template <int width>
void measure_multiply_adds(int n_threads) {
  const double repeats = total_rate(n_threads, for_all(multiply_and_add<width>));
  print("fma", n_threads, width * sizeof(float), 2.0 * n_steps * n_chains * width * repeats);
}

void measure(int n_threads) {
  print("clock", n_threads, 0, n_adds * total_rate(n_threads, for_all(add_in_a_chain)) / n_threads);
  measure_multiply_adds<lanes>(n_threads);
#if defined(__AVX512F__)
  measure_multiply_adds<16>(n_threads);
#endif
  for (std::int64_t bytes = 32 << 10; bytes <= 512 << 20; bytes *= 4) {
    const std::int64_t part = bytes / n_threads / (8 * lanes * 4) * (8 * lanes * 4);
    const double repeats = total_rate(n_threads, [part](int) {
      return [values = std::vector<float>(part / sizeof(float), 1.0F)] { read(values); };
    });
    print("read", n_threads, bytes, double(part) * repeats);
  }
}

}  // namespace

int main(int count, char** words) {
  measure(count > 1 ? std::max(1, std::atoi(words[1])) : 1);
  return 0;
}

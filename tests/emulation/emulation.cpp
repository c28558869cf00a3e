// SPDX-License-Identifier: MIT
#include "emulation.h"

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace emulation {
namespace {

constexpr std::size_t stack_bytes = std::size_t{64} << 10;

thread_local Place place;
thread_local std::function<void()> wait;  // at a barrier

std::vector<std::int64_t> shuffled(std::int64_t n, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = n - 1; seed != 0 && i > 0; --i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    std::swap(order[i], order[(seed >> 33) % static_cast<std::uint64_t>(i + 1)]);
  }
  return order;
}

[[noreturn]] void diverged(const char* kernel) {
  throw std::logic_error(std::string(kernel) + ": threads of a block part at a barrier");
}

// Threads of one block that take turns: each runs up to a barrier or to its end.
class Fibers {
 public:
  Fibers(const char* kernel, int n, const std::function<void()>& body)
      : kernel_(kernel), body_(body), fibers_(static_cast<std::size_t>(n)) {
    for (Fiber& fiber : fibers_) fiber.stack.reset(new unsigned char[stack_bytes]);
  }

  void run(const Place& block, std::uint64_t seed) {
    for (Fiber& fiber : fibers_) fiber.state = State::fresh;
    wait = [this] { pause(); };
    for (std::uint64_t round = 1; advance(block, seed == 0 ? 0 : seed + round) > 0; ++round) {
    }
    wait = nullptr;
  }

 private:
  enum class State { fresh, waiting, done };
  struct Fiber {
    std::unique_ptr<unsigned char[]> stack;
    ucontext_t start;
    jmp_buf at;
    State state = State::fresh;
  };

  // How many wait at a barrier now.
  std::int64_t advance(const Place& block, std::uint64_t seed) {
    for (const std::int64_t i : shuffled(static_cast<std::int64_t>(fibers_.size()), seed)) {
      place = block;
      place.thread = static_cast<int>(i);
      take_turn(&fibers_[i]);
    }
    const auto waiting = std::count_if(fibers_.begin(), fibers_.end(), [](const Fiber& fiber) {
      return fiber.state == State::waiting;
    });
    if (waiting > 0 && waiting < static_cast<std::int64_t>(fibers_.size())) diverged(kernel_);
    return waiting;
  }

  void take_turn(Fiber* fiber) {
    current_ = fiber;
    if (_setjmp(here_) == 0) resume(fiber);
  }

  [[noreturn]] void resume(Fiber* fiber) {
    if (fiber->state == State::waiting) _longjmp(fiber->at, 1);
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    fiber->start.uc_stack.ss_size = stack_bytes;
    fiber->start.uc_link = nullptr;
    entering_ = this;
    makecontext(&fiber->start, &Fibers::enter, 0);
    setcontext(&fiber->start);
    std::abort();  // it does not return
  }

  void pause() {
    current_->state = State::waiting;
    if (_setjmp(current_->at) == 0) _longjmp(here_, 1);
  }

  static void enter() {
    Fibers* self = entering_;
    self->body_();
    self->current_->state = State::done;
    _longjmp(self->here_, 1);
  }

  static thread_local Fibers* entering_;
  const char* kernel_;
  const std::function<void()>& body_;
  std::vector<Fiber> fibers_;
  Fiber* current_ = nullptr;
  jmp_buf here_;
};

thread_local Fibers* Fibers::entering_ = nullptr;

void spoil(std::vector<float>* memory) {
  std::memset(memory->data(), 0xFF, memory->size() * sizeof(float));
}

unsigned char* aligned(std::vector<float>* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory->data());
  return reinterpret_cast<unsigned char*>((address + 15) / 16 * 16);
}

void run_fibers(const char* kernel, const std::vector<std::int64_t>& blocks, int n_threads,
                std::size_t shared_bytes, const std::function<void()>& body) {
  Fibers fibers(kernel, n_threads, body);
  std::vector<float> memory(shared_bytes / sizeof(float) + 4);
  for (const std::int64_t block : blocks) {
    spoil(&memory);
    Place at;
    at.block = block;
    at.grid_size = static_cast<std::int64_t>(blocks.size());
    at.block_size = n_threads;
    at.shared = aligned(&memory);
    const std::uint64_t seed = settings().seed;
    fibers.run(at, seed == 0 ? 0 : seed ^ static_cast<std::uint64_t>(block + 1) << 20);
  }
}

// Every block's threads are those of the system, and meet at a barrier of theirs.
void run_threads(const std::vector<std::int64_t>& blocks, int n_threads, std::size_t shared_bytes,
                 const std::function<void()>& body) {
  const auto run_block = [&](std::int64_t block) {
    std::vector<float> memory(shared_bytes / sizeof(float) + 4);
    spoil(&memory);
    pthread_barrier_t meeting;
    pthread_barrier_init(&meeting, nullptr, static_cast<unsigned>(n_threads));
    std::vector<std::thread> team;
    for (int i = 0; i < n_threads; ++i) {
      team.emplace_back([&, i] {
        place.block = block;
        place.grid_size = static_cast<std::int64_t>(blocks.size());
        place.block_size = n_threads;
        place.thread = i;
        place.shared = aligned(&memory);
        wait = [&] { pthread_barrier_wait(&meeting); };
        body();
      });
    }
    for (std::thread& member : team) member.join();
    pthread_barrier_destroy(&meeting);
  };
  std::atomic<std::size_t> next{0};
  const auto worker = [&] {
    for (std::size_t i = next++; i < blocks.size(); i = next++) run_block(blocks[i]);
  };
  std::thread other(worker);
  worker();
  other.join();
}

}  // namespace

Settings& settings() {
  static Settings settings;
  return settings;
}

const Place& here() { return place; }

void barrier() { wait(); }

void launch(const char* kernel, std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& thread) {
  if (blocks < 1 || blocks > 0x7FFFFFFF || threads < 1 || threads > 1024) {
    throw std::logic_error(std::string(kernel) + ": no device launches " + std::to_string(blocks) +
                           " blocks of " + std::to_string(threads) + " threads");
  }
  const Settings& set = settings();
  if (set.threads_at_most > 0) threads = std::min(threads, set.threads_at_most);
  const std::vector<std::int64_t> order = shuffled(blocks, set.seed);
  if (set.schedule == Schedule::fibers) {
    run_fibers(kernel, order, threads, shared_bytes, thread);
  } else {
    run_threads(order, threads, shared_bytes, thread);
  }
}

}  // namespace emulation

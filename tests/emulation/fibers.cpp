// SPDX-License-Identifier: MIT
// Threads of one block that take turns: each runs up to a barrier or to its end. Fibers are born
// once and serve every block and launch of their host thread, as contexts are slow to make.

// Jumping to another stack is what glibc's fortified longjmp takes for an attack.
#undef _FORTIFY_SOURCE

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <numeric>
#include <utility>

#include "schedules.h"

namespace emulation {
namespace {

// A page that nobody may touch lies below, where a stack that is too small ends.
class Stack {
 public:
  Stack() : memory_(mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(begin(), bytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  }
  ~Stack() { munmap(memory_, all); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  void* begin() const { return static_cast<char*>(memory_) + guard; }
  static constexpr std::size_t bytes = std::size_t{64} << 10;

 private:
  static constexpr std::size_t guard = std::size_t{64} << 10, all = bytes + guard;
  void* memory_;
};

class Fibers : public Waiting {
 public:
  void run(const Launch& launch) {
    while (fibers_.size() < static_cast<std::size_t>(launch.n_threads)) {
      fibers_.push_back(std::make_unique<Fiber>());
    }
    launch_ = &launch;
    order_.resize(static_cast<std::size_t>(launch.n_threads));
    std::iota(order_.begin(), order_.end(), 0);
    Guarded shared(launch.shared_bytes);
    const Turn turn(this);
    for (const std::int64_t block : launch.blocks) {
      shared.spoil();
      run_block(block, shared.data());
      launch.check(shared);
    }
  }

  void wait(int line) override {
    current_->line = line;
    pause(State::at_barrier);
  }

 private:
  enum class State { unborn, idle, at_barrier };
  struct Fiber {
    Stack stack;
    ucontext_t start;
    jmp_buf at;
    State state = State::unborn;
    int line = 0;
  };

  // Barriers are this one's while it lasts. What an error left waiting is born anew.
  class Turn {
   public:
    explicit Turn(Fibers* fibers) : fibers_(fibers) { waiting = fibers; }
    ~Turn() {
      waiting = nullptr;
      place = {};
      for (const auto& fiber : fibers_->fibers_) {
        if (fiber->state == State::at_barrier) fiber->state = State::unborn;
      }
    }

   private:
    Fibers* fibers_;
  };

  void run_block(std::int64_t block, unsigned char* shared) {
    const std::uint64_t seed = launch_->seed * (2 * static_cast<std::uint64_t>(block) + 1);
    for (std::uint64_t round = 0;; ++round) {
      shuffle(&order_, seed == 0 ? 0 : seed + round);
      for (const std::int64_t i : order_) {
        place = launch_->of(block, static_cast<int>(i), shared);
        take_turn(fibers_[static_cast<std::size_t>(i)].get());
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
      }
      if (!all_wait()) return;
    }
  }

  // Whether all are at one barrier; if not, all must have come to their ends.
  bool all_wait() const {
    const Fiber& first = *fibers_.front();
    for (const std::int64_t i : order_) {
      const Fiber& fiber = *fibers_[static_cast<std::size_t>(i)];
      if (fiber.state != first.state) launch_->part();
      if (fiber.state == State::at_barrier && fiber.line != first.line) launch_->part();
    }
    return first.state == State::at_barrier;
  }

  void take_turn(Fiber* fiber) {
    current_ = fiber;
    if (_setjmp(here_) == 0) resume(fiber);
  }

  [[noreturn]] void resume(Fiber* fiber) {
    if (fiber->state != State::unborn) _longjmp(fiber->at, 1);
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.begin();
    fiber->start.uc_stack.ss_size = Stack::bytes;
    fiber->start.uc_link = nullptr;
    entering_ = this;
    makecontext(&fiber->start, &Fibers::live, 0);
    setcontext(&fiber->start);
    std::abort();  // it does not return
  }

  void pause(State state) {
    current_->state = state;
    if (_setjmp(current_->at) == 0) _longjmp(here_, 1);
  }

  static void live() {
    for (Fibers* self = entering_;; self->pause(State::idle)) {
      try {
        self->launch_->body();
      } catch (...) {
        self->error_ = std::current_exception();
      }
    }
  }

  static thread_local Fibers* entering_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<std::int64_t> order_;
  const Launch* launch_ = nullptr;
  Fiber* current_ = nullptr;
  std::exception_ptr error_;
  jmp_buf here_;
};

thread_local Fibers* Fibers::entering_ = nullptr;

}  // namespace

void run_fibers(const Launch& launch) {
  static thread_local Fibers fibers;
  fibers.run(launch);
}

}  // namespace emulation

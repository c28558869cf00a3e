// SPDX-License-Identifier: MIT
// Threads of the system for every thread of a block. Two host threads run every other block each,
// and are ordered by nothing but the ends of the launch, so that ThreadSanitizer takes what two
// blocks do to the same memory for the race that it is.
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "schedules.h"

namespace emulation {
namespace {

struct Parted {};

// Where the threads of a block meet. Barriers take turns at two places: at a single one, a thread
// that is slow to leave would come after what a fast one does before the next barrier, and a race
// between the two would not be seen.
class Meeting {
 public:
  explicit Meeting(int n) : n_(n) {}

  // phase: how many barriers the thread has passed.
  void wait(int phase, int line) {
    Spot& spot = spots_[phase % 2];
    std::unique_lock<std::mutex> lock(spot.mutex);
    spot.is_broken |= spot.gone > 0 || (spot.arrived > 0 && spot.line != line);
    spot.line = line;
    const std::int64_t turn = spot.turn;
    if (++spot.arrived == n_) {
      spot.arrived = 0;
      ++spot.turn;
    }
    if (spot.turn != turn || spot.is_broken) spot.changed.notify_all();
    spot.changed.wait(lock, [&] { return spot.turn != turn || spot.is_broken; });
    if (spot.is_broken) throw Parted();
  }

  void leave(int phase) {
    Spot& spot = spots_[phase % 2];
    const std::lock_guard<std::mutex> lock(spot.mutex);
    ++spot.gone;
    spot.is_broken |= spot.arrived > 0;
    spot.changed.notify_all();
  }

 private:
  struct Spot {
    std::mutex mutex;
    std::condition_variable changed;
    int arrived = 0, gone = 0, line = 0;
    std::int64_t turn = 0;
    bool is_broken = false;
  };
  const int n_;
  Spot spots_[2];
};

class Member : public Waiting {
 public:
  explicit Member(Meeting* meeting) : meeting_(*meeting) { waiting = this; }
  ~Member() override {
    waiting = nullptr;
    meeting_.leave(phase_);
  }
  void wait(int line) override { meeting_.wait(phase_++, line); }

 private:
  Meeting& meeting_;
  int phase_ = 0;
};

// The first of the errors that several threads meet with.
class FirstError {
 public:
  void keep() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

void run_block(const Launch& launch, std::int64_t block) {
  const Guarded shared(launch.shared_bytes);
  Meeting meeting(launch.n_threads);
  FirstError error, parting;
  const auto run = [&](int i) {
    place = launch.of(block, i, shared.data());
    const Member member(&meeting);
    try {
      launch.body();
    } catch (const Parted&) {
      parting.keep();
    } catch (...) {
      error.keep();
    }
  };
  std::vector<std::thread> team;
  for (int i = 0; i < launch.n_threads; ++i) team.emplace_back(run, i);
  for (std::thread& member : team) member.join();
  error.rethrow();
  try {
    parting.rethrow();
  } catch (const Parted&) {
    launch.part();
  }
  launch.check(shared);
}

}  // namespace

void run_threads(const Launch& launch) {
  FirstError error;
  const auto run_every_other = [&](std::size_t first) {
    try {
      for (std::size_t i = first; i < launch.blocks.size(); i += 2) {
        run_block(launch, launch.blocks[i]);
      }
    } catch (...) {
      error.keep();
    }
  };
  if (launch.blocks.size() > 1) {
    std::thread other(run_every_other, 1);
    run_every_other(0);
    other.join();
  } else {
    run_every_other(0);
  }
  error.rethrow();
}

}  // namespace emulation

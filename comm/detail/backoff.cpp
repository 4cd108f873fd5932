#include "comm/detail/backoff.hpp"

#include <sched.h>
#include <time.h>

#include "comm/detail/mpi.hpp"

namespace lockstep::comm::detail {
namespace {

constexpr std::size_t spins = 100;          // polls without a pause: a few microseconds
constexpr double look_interval = 1e-3;      // seconds
constexpr double patience = 20e-3;          // seconds of yielding before any sleep
constexpr std::size_t polls_per_sleep = 8;  // keeps fragments of a long message flowing
constexpr timespec nap{0, 50'000};          // nanoseconds

}  // namespace

// MPI_Wtime rather than the system's clock, so that a simulated MPI counts simulated time.
Backoff::Backoff() : start_(MPI_Wtime()) {}

bool Backoff::pause() {
  if (++polls_ <= spins) return false;
  if (seconds_ > patience && polls_ % polls_per_sleep == 0) {
    nanosleep(&nap, nullptr);
  } else {
    sched_yield();
  }
  const double now = MPI_Wtime() - start_;
  if (now - seconds_ < look_interval) return false;
  seconds_ = now;
  return true;
}

}  // namespace lockstep::comm::detail

// What is lost when every core gets the same work and they are not equally fast: the limit of ranks
// that wait for one another in every step, measured with nothing to exchange.
//
// Cores of a virtual machine are shared with others; one of them may be slower than its neighbour for
// seconds on end. Threads of one rank even that out, since whoever is done takes the next piece.
#pragma once

#include <hwy/highway.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

#include "machine_limits.hpp"

namespace lockstep::test {

// Seconds since the start at which one thread was done with each piece of work.
using PieceEnds = std::vector<double>;

// Every thread does pieces of multiply-adds, all alike and of about a millisecond, for so long.
inline std::vector<PieceEnds> watch_cores(unsigned threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kSteps = 400'000;
  std::vector<PieceEnds> ends(threads);
  const Clock::time_point start = Clock::now();
  const auto work = [&](unsigned thread) {
    PieceEnds& mine = ends[thread];
    do {
      multiply_adds(kSteps);
      mine.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    } while (mine.back() < seconds);
  };
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  others.clear();  // joins
  return ends;
}

// The speed of steps that give every thread the same number of pieces and end with the last one, by
// that of threads which never wait: from 0 to 1. A step takes about `step_seconds`.
inline double even_split(const std::vector<PieceEnds>& ends, double seconds, double step_seconds) {
  double rate = 0;  // pieces a second of all threads
  for (const PieceEnds& thread : ends) rate += static_cast<double>(thread.size()) / seconds;
  const auto threads = static_cast<double>(ends.size());
  const auto pieces = static_cast<std::size_t>(std::max(1.0, rate / threads * step_seconds));
  double now = 0;
  std::size_t steps = 0;
  for (;; ++steps) {
    double step_end = now;
    for (const PieceEnds& thread : ends) {
      const auto begun =
          static_cast<std::size_t>(std::ranges::upper_bound(thread, now) - thread.begin());
      if (begun + pieces > thread.size()) {
        return now > 0 ? static_cast<double>(steps * pieces) * threads / now / rate : 0;
      }
      step_end = std::max(step_end, thread[begun + pieces - 1]);
    }
    now = step_end;
  }
}

}  // namespace lockstep::test

// What carries the messages, and how fast it is between two ranks.
//
// time_pairs() is collective. It times one pair after the other, by messages that go to and fro,
// while all other ranks wait: what is found is what the ranks' own waits see
// (comm/detail/backoff.hpp), on a machine that does nothing else. Every wait is bounded by the
// communicator's time limit, and errors are those of a Communicator. Not thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

namespace lockstep::comm {

// The MPI library and the standard that it keeps to: "Open MPI v4.1.4 (MPI 3.1)". Local.
std::string mpi_library();

struct RankPair {
  std::size_t a = 0;
  std::size_t b = 0;  // not a
};

struct PairTiming {
  double latency = 0;    // seconds that a small message takes one way: the median
  double bandwidth = 0;  // bytes a second that large messages bring one way: the median
};

struct ProbeOptions {
  std::size_t small_bytes = 8;
  std::size_t large_bytes = std::size_t{1} << 22;
  double seconds = 0.05;  // for each pair and size, or three messages where these take longer
};

// The pairs' timings, in their order, on every rank; `pairs` and `options` are the same on all
// ranks. Before each pair every rank calls before_pair with its index, if there is such a function.
std::vector<PairTiming> time_pairs(Communicator& communicator, std::span<const RankPair> pairs,
                                   const ProbeOptions& options = {},
                                   const std::function<void(std::size_t)>& before_pair = {});

}  // namespace lockstep::comm

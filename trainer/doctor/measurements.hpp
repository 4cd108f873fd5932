// What the doctor measures on all ranks together.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/probe.hpp"
#include "trainer/doctor/rates.hpp"
#include "trainer/placement.hpp"

namespace lockstep::trainer {

// The first rank of a host with one thread, while the others of the host only wait.
struct AloneRates {
  std::string host;
  std::size_t rank = 0;
  Rate gemm;
  Rate memory;
};

// One rank with all its threads, while all others do the same.
struct TogetherRates {
  Rate gemm;
  Rate memory;
};

struct PairMeasurement {
  comm::RankPair pair;
  bool same_host = false;
  comm::PairTiming timing;
};

struct Measurements {
  std::vector<PairMeasurement> pairs;
  std::vector<AloneRates> alone;        // of each host, as by_host() has them
  std::vector<TogetherRates> together;  // of each rank
};

// The pairs of ranks to time, within hosts and between them: all where there are few, otherwise
// some that reach every host and, in the first hosts, the nearest and the farthest rank. Pure.
std::vector<comm::RankPair> pairs_to_time(std::span<const RankPlacement> placements);

struct MeasureOptions {
  double seconds = 0.3;      // for each of the four rates
  comm::ProbeOptions probe;  // for each pair
};

// Told on every rank before each stage, with the number of stages done and of all.
using Stage = std::function<void(std::string_view name, std::size_t done, std::size_t all)>;

// The same on every rank. Collective; takes a few seconds.
Measurements measure(std::span<const RankPlacement> placements, comm::Communicator& world,
                     const MeasureOptions& options, const Stage& stage);

}  // namespace lockstep::trainer

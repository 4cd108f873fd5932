// What is wrong with measured rates. Pure; thread-safe.
#pragma once

#include <span>
#include <vector>

#include "trainer/doctor/finding.hpp"
#include "trainer/doctor/measurements.hpp"
#include "trainer/placement.hpp"

namespace lockstep::trainer {

// How far one rank is behind another, both measured with all ranks at once.
struct Lag {
  std::size_t slowest = 0;  // ranks
  std::size_t fastest = 0;
  double behind = 0;  // 1 - slowest / fastest
};

Lag gemm_lag(std::span<const TogetherRates> together);
Lag memory_lag(std::span<const TogetherRates> together);

struct Spread {
  std::size_t count = 0;
  double least = 0;
  double median = 0;  // of an even number the greater of the two in the middle
  double most = 0;
};

Spread spread_of(std::vector<double> values);
Spread latencies(std::span<const PairMeasurement> pairs, bool same_host);   // seconds
Spread bandwidths(std::span<const PairMeasurement> pairs, bool same_host);  // bytes a second

// `placement`: what judge_placement() found. What that explains is not told again.
std::vector<Finding> judge_rates(std::span<const RankPlacement> placements,
                                 const Measurements& measurements,
                                 std::span<const Finding> placement);

}  // namespace lockstep::trainer

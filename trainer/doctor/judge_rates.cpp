#include "trainer/doctor/judge_rates.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "trainer/doctor/judge_placement.hpp"

namespace lockstep::trainer {
namespace {

constexpr double kProcessorShare = 0.9;  // less of the time on a processor is a finding
constexpr double kTogether = 0.6;  // of a lone thread's rate: clocks fall when all cores are busy
constexpr double kLag = 0.2;       // behind the fastest
// A gradient's messages wait for these; shared memory and the networks of clusters keep well
// within.
constexpr double kLatencyInside = 50e-6, kLatencyBetween = 200e-6;   // seconds
constexpr double kBandwidthInside = 1e9, kBandwidthBetween = 0.5e9;  // bytes a second

Lag lag_of(std::span<const TogetherRates> together, Rate TogetherRates::*rate) {
  const auto total = [rate](const TogetherRates& rates) { return (rates.*rate).total; };
  const auto [least, most] = std::ranges::minmax_element(together, {}, total);
  if (least == together.end() || total(*most) <= 0) return {};
  return {static_cast<std::size_t>(least - together.begin()),
          static_cast<std::size_t>(most - together.begin()), 1 - total(*least) / total(*most)};
}

bool holds(std::span<const Finding> findings, std::initializer_list<FindingKind> kinds) {
  return std::ranges::any_of(findings, [&](const Finding& finding) {
    return std::ranges::find(kinds, finding.kind) != kinds.end();
  });
}

std::string where(std::span<const RankPlacement> placements, std::size_t rank) {
  return placements.size() == 1 ? placements[rank].host
                                : fmt::format("rank {} on {}", rank, placements[rank].host);
}

// Other processes take the processors.
std::optional<Finding> judge_shares(std::span<const RankPlacement> placements,
                                    const Measurements& measurements) {
  std::vector<std::size_t> ranks;
  double least = 1;
  for (std::size_t rank = 0; rank < placements.size(); ++rank) {
    const double share = measurements.together[rank].gemm.processor_share;
    if (share >= kProcessorShare) continue;
    ranks.push_back(rank);
    least = std::min(least, share);
  }
  if (ranks.empty()) return std::nullopt;
  return Finding{FindingKind::disturbed,
                 fmt::format("threads had a processor for only {:.0f} % of the time ({})",
                             100 * least, ranks_text(ranks)),
                 fmt::format("{:.1f} times the time, since every step waits for them", 1 / least),
                 fmt::format("stop what else runs on {} (see top), or have the node alone (srun "
                             "--exclusive)",
                             placements[ranks.front()].host)};
}

// Each thread has a processor and is slow nevertheless. Two threads on one core are expected to be.
std::optional<Finding> judge_together(std::span<const RankPlacement> placements,
                                      const Measurements& measurements) {
  const std::vector<HostRanks> hosts = by_host(placements);
  std::optional<Finding> worst;
  double least = kTogether;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    double rate = 0;
    std::size_t threads = 0, cores = 1;
    for (const std::size_t rank : hosts[i].ranks) {
      rate += measurements.together[rank].gemm.total;
      threads += placements[rank].threads;
      cores = std::max(cores, placements[rank].usable_cores);
    }
    const double workers = static_cast<double>(std::min(threads, cores));
    const double lone = measurements.alone[i].gemm.total;
    const double share = lone > 0 ? rate / workers / lone : 1;
    if (share >= least) continue;
    least = share;
    worst = Finding{FindingKind::slow_together,
                    fmt::format("a core of {} computes at {:.0f} % of its speed when all work",
                                hosts[i].host, 100 * share),
                    fmt::format("{:.1f} times the time for products", 1 / share),
                    "look for a limit on power, heat or clock (turbostat, cpupower), and for other "
                    "virtual machines on the same cores"};
  }
  return worst;
}

std::optional<Finding> judge_lag(std::span<const RankPlacement> placements,
                                 const Measurements& measurements) {
  const Lag lag = gemm_lag(measurements.together);
  if (lag.behind <= kLag) return std::nullopt;
  return Finding{
      FindingKind::straggler,
      fmt::format("{} computes {:.0f} % slower than {}", where(placements, lag.slowest),
                  100 * lag.behind, where(placements, lag.fastest)),
      fmt::format("every step takes as long as on the slowest rank: {:.1f} times the time",
                  1 / (1 - lag.behind)),
      fmt::format("look what else runs on {} (top) and at its clock (turbostat), or leave it out "
                  "(srun --exclude={})",
                  placements[lag.slowest].host, placements[lag.slowest].host)};
}

std::optional<Finding> judge_messages(const Measurements& measurements, bool same_host) {
  const Spread latency = latencies(measurements.pairs, same_host);
  const Spread bandwidth = bandwidths(measurements.pairs, same_host);
  if (latency.count == 0) return std::nullopt;
  if (latency.median <= (same_host ? kLatencyInside : kLatencyBetween) &&
      bandwidth.median >= (same_host ? kBandwidthInside : kBandwidthBetween)) {
    return std::nullopt;
  }
  constexpr double kBytes = 4e6;
  return Finding{
      same_host ? FindingKind::slow_inside : FindingKind::slow_between,
      fmt::format("messages {} take {:.0f} us, and large ones run at {:.2f} GB/s",
                  same_host ? "within a host" : "between hosts", 1e6 * latency.median,
                  1e-9 * bandwidth.median),
      fmt::format("sending the gradient of a million parameters once takes {:.1f} ms",
                  1e3 * (latency.median + kBytes / bandwidth.median)),
      same_host
          ? "let MPI use shared memory (Open MPI: --mca btl self,vader), with a core for each "
            "rank"
          : "let MPI use the fast network (Open MPI: --mca pml ucx, or --mca btl_tcp_if_include "
            "with its interface), or a larger training.batch_size"};
}

}  // namespace

Lag gemm_lag(std::span<const TogetherRates> together) {
  return lag_of(together, &TogetherRates::gemm);
}
Lag memory_lag(std::span<const TogetherRates> together) {
  return lag_of(together, &TogetherRates::memory);
}

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  return {values.size(), values.front(), values[values.size() / 2], values.back()};
}

Spread latencies(std::span<const PairMeasurement> pairs, bool same_host) {
  std::vector<double> values;
  for (const PairMeasurement& one : pairs) {
    if (one.same_host == same_host) values.push_back(one.timing.latency);
  }
  return spread_of(std::move(values));
}

Spread bandwidths(std::span<const PairMeasurement> pairs, bool same_host) {
  std::vector<double> values;
  for (const PairMeasurement& one : pairs) {
    if (one.same_host == same_host) values.push_back(one.timing.bandwidth);
  }
  return spread_of(std::move(values));
}

std::vector<Finding> judge_rates(std::span<const RankPlacement> placements,
                                 const Measurements& measurements,
                                 std::span<const Finding> placement) {
  const bool crowded = holds(placement, {FindingKind::squeezed, FindingKind::overlapping,
                                         FindingKind::oversubscribed, FindingKind::over_quota});
  const bool uneven =
      holds(placement, {FindingKind::uneven_threads, FindingKind::mixed_instructions});
  std::vector<Finding> findings;
  const auto add = [&](std::optional<Finding> finding) {
    if (finding) findings.push_back(std::move(*finding));
  };
  if (!crowded) {
    add(judge_shares(placements, measurements));
    const bool disturbed = !findings.empty();
    if (!disturbed) add(judge_together(placements, measurements));
    if (!disturbed && !uneven) add(judge_lag(placements, measurements));
    // Ranks that wait for a processor answer late.
    if (!disturbed) add(judge_messages(measurements, true));
  }
  add(judge_messages(measurements, false));
  return findings;
}

}  // namespace lockstep::trainer

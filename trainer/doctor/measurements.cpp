#include "trainer/doctor/measurements.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "trainer/doctor/judge_placement.hpp"

namespace lockstep::trainer {
namespace {

constexpr std::size_t kFewRanks = 5;         // all their pairs are timed
constexpr std::size_t kHostsLookedInto = 4;  // for pairs within them
constexpr std::size_t kFewHosts = 5;         // each is timed with each
constexpr std::size_t kMostHosts = 32;       // each is timed with the next, up to this many

// Together more than any last-level cache; a thread of many has its share of that.
constexpr std::size_t kBytesOfHost = std::size_t{512} << 20;
constexpr std::size_t kLeastBytes = std::size_t{16} << 20;

constexpr std::size_t kNumbers = 6;  // of two Rates

std::array<double, kNumbers> numbers_of(const Rate& gemm, const Rate& memory) {
  return {gemm.total,   gemm.slowest_thread,   gemm.processor_share,
          memory.total, memory.slowest_thread, memory.processor_share};
}

TogetherRates rates_of(std::span<const double> n) {
  return {{n[0], n[1], n[2]}, {n[3], n[4], n[5]}};
}

// Both rates of every rank, on every rank.
std::vector<TogetherRates> gather(const Rate& gemm, const Rate& memory, comm::Communicator& world) {
  const std::vector<std::size_t> counts(world.size(), kNumbers);
  std::vector<double> all(world.size() * kNumbers);
  world.all_gather(numbers_of(gemm, memory), counts, all);
  std::vector<TogetherRates> rates;
  for (std::size_t rank = 0; rank < world.size(); ++rank) {
    rates.push_back(rates_of(std::span(all).subspan(rank * kNumbers, kNumbers)));
  }
  return rates;
}

}  // namespace

std::vector<comm::RankPair> pairs_to_time(std::span<const RankPlacement> placements) {
  std::vector<comm::RankPair> pairs;
  if (placements.size() <= kFewRanks) {
    for (std::size_t b = 1; b < placements.size(); ++b) {
      for (std::size_t a = 0; a < b; ++a) pairs.push_back({a, b});
    }
    return pairs;
  }
  const std::vector<HostRanks> hosts = by_host(placements);
  for (std::size_t i = 0; i < std::min(hosts.size(), kHostsLookedInto); ++i) {
    const auto& ranks = hosts[i].ranks;
    if (ranks.size() > 1) pairs.push_back({ranks[0], ranks[1]});
    if (ranks.size() > 2) pairs.push_back({ranks[0], ranks.back()});
    if (ranks.size() > 3) pairs.push_back({ranks[0], ranks[ranks.size() / 2]});
  }
  const auto add_hosts = [&](std::size_t a, std::size_t b) {
    pairs.push_back({hosts[a].ranks.front(), hosts[b].ranks.front()});
  };
  if (hosts.size() <= kFewHosts) {
    for (std::size_t b = 1; b < hosts.size(); ++b) {
      for (std::size_t a = 0; a < b; ++a) add_hosts(a, b);
    }
  } else {
    for (std::size_t i = 0; i + 1 < std::min(hosts.size(), kMostHosts); ++i) add_hosts(i, i + 1);
  }
  return pairs;
}

Measurements measure(std::span<const RankPlacement> placements, comm::Communicator& world,
                     const MeasureOptions& options, const Stage& stage) {
  Measurements found;
  const std::vector<comm::RankPair> pairs = pairs_to_time(placements);
  const std::size_t stages = pairs.size() + 4;
  const auto timings = time_pairs(world, pairs, options.probe, [&](std::size_t i) {
    stage(fmt::format("messages between ranks {} and {}", pairs[i].a, pairs[i].b), i, stages);
  });
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const bool same = placements[pairs[i].a].host == placements[pairs[i].b].host;
    found.pairs.push_back({pairs[i], same, timings[i]});
  }

  const std::vector<HostRanks> hosts = by_host(placements);
  const RankPlacement& mine = placements[world.rank()];
  const HostRanks& here = *std::ranges::find(hosts, mine.host, &HostRanks::host);
  const bool is_first = here.ranks.front() == world.rank();
  std::size_t threads = 0;
  for (const std::size_t rank : here.ranks) threads += placements[rank].threads;

  const auto begin = [&](std::string_view name, std::size_t number) {
    stage(name, pairs.size() + number, stages);
    world.barrier();  // the stage before is over everywhere
  };
  Rate gemm, memory;
  begin("products, one thread alone", 0);
  if (is_first) gemm = gemm_rate(1, options.seconds);
  begin("memory, one thread alone", 1);
  if (is_first) memory = memory_rate(1, options.seconds, kBytesOfHost);
  const auto alone = gather(gemm, memory, world);
  for (const HostRanks& host : hosts) {
    const std::size_t rank = host.ranks.front();
    found.alone.push_back({host.host, rank, alone[rank].gemm, alone[rank].memory});
  }
  const auto ready = [&] { world.barrier(); };
  begin("products, all at once", 2);
  gemm = gemm_rate(mine.threads, options.seconds, ready);
  begin("memory, all at once", 3);
  // More threads than processors would take memory and show nothing new.
  memory = memory_rate(std::min(mine.threads, mine.allowance.processors.size()), options.seconds,
                       std::max(kLeastBytes, kBytesOfHost / threads), ready);
  found.together = gather(gemm, memory, world);
  return found;
}

}  // namespace lockstep::trainer

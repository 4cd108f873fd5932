#include "trainer/placement.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "nn/kernels/kernels.hpp"
#include "trainer/topology.hpp"

namespace lockstep::trainer {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

// What a rank tells the others of itself; its threads follow, once it knows who shares its node.
std::string to_text(const RankPlacement& placement) {
  nlohmann::json quotas = nlohmann::json::array();
  for (const CpuQuota& quota : placement.allowance.quotas) {
    quotas.push_back({quota.processors, quota.group});
  }
  return nlohmann::json{placement.host, placement.allowance.processors, quotas,
                        placement.usable_cores, placement.instruction_set}
      .dump();
}

RankPlacement from_text(const std::string& text) {
  const nlohmann::json words = nlohmann::json::parse(text);
  RankPlacement placement;
  placement.host = words.at(0);
  placement.allowance.processors = words.at(1).get<Processors>();
  for (const nlohmann::json& quota : words.at(2)) {
    placement.allowance.quotas.push_back({quota.at(0), quota.at(1)});
  }
  placement.usable_cores = words.at(3);
  placement.instruction_set = words.at(4);
  return placement;
}

}  // namespace

Processors allowed_processors() {
  // The kernel refuses a mask with less room than it has processors.
  for (int room = 1024; room <= 1 << 20; room *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(
        CPU_ALLOC(static_cast<std::size_t>(room)), [](cpu_set_t* m) { CPU_FREE(m); });
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(room));
    if (sched_getaffinity(0, bytes, mask.get()) != 0) continue;
    Processors processors;
    for (int cpu = 0; cpu < room; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, mask.get())) processors.push_back(cpu);
    }
    return processors;
  }
  return {0};
}

Allowance allowance() {
  return {allowed_processors(), cpu_quotas()};
}

std::size_t share_of(const Allowance& mine, std::span<const Allowance> all) {
  const auto ranks_where = [&](const auto& holds) {
    return std::max<std::size_t>(1, static_cast<std::size_t>(std::ranges::count_if(all, holds)));
  };
  std::size_t share = mine.processors.size() / ranks_where([&](const Allowance& other) {
                        return std::ranges::find_first_of(mine.processors, other.processors) !=
                               mine.processors.end();
                      });
  for (const CpuQuota& quota : mine.quotas) {
    const std::size_t sharers = ranks_where([&](const Allowance& other) {
      return std::ranges::find(other.quotas, quota.group, &CpuQuota::group) != other.quotas.end();
    });
    // Rounded down: a thread more than the quota would not run slower but be stopped, with all the
    // others of its group, for the rest of each period (mostly 0.1 s), and every rank waits for it.
    const double whole = std::floor(quota.processors / static_cast<double>(sharers));
    if (whole < static_cast<double>(share)) share = static_cast<std::size_t>(whole);
  }
  return std::max<std::size_t>(1, share);
}

std::vector<RankPlacement> find_placements(std::size_t wanted, comm::Communicator& world) {
  const RankPlacement mine{.host = host_name(),
                           .allowance = allowance(),
                           .usable_cores = usable_cores(),
                           .instruction_set = std::string(nn::kernels<float>().instruction_set)};
  std::vector<RankPlacement> placements;
  std::vector<Allowance> here;
  for (const std::string& text : world.gather_strings(to_text(mine))) {
    placements.push_back(from_text(text));
    if (placements.back().host == mine.host) here.push_back(placements.back().allowance);
  }
  const double threads = static_cast<double>(wanted > 0 ? wanted : share_of(mine.allowance, here));
  const std::vector<std::size_t> counts(world.size(), 1);
  std::vector<double> all(world.size());
  world.all_gather(std::span(&threads, 1), counts, all);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    placements[rank].threads = static_cast<std::size_t>(all[rank]);
  }
  return placements;
}

std::size_t threads_for(std::size_t wanted, comm::Communicator& world) {
  return find_placements(wanted, world)[world.rank()].threads;
}

}  // namespace lockstep::trainer

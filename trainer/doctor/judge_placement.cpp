#include "trainer/doctor/judge_placement.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace lockstep::trainer {
namespace {

// Less than this share of a host's cores, or of the most threads, is a finding: 3 ranks x 2 threads
// on 8 cores are not.
constexpr double kEnough = 0.75;

bool much_less(std::size_t a, std::size_t b) {
  return static_cast<double>(a) < kEnough * static_cast<double>(b);
}

// What one host's ranks have together.
struct Host {
  std::string name;
  std::vector<std::size_t> ranks;
  Processors mask = {};     // that any of them may run on
  std::size_t threads = 0;  // of all of them
  std::size_t cores = 1;    // that they could use, at most as many as a quota of all of them allows
};

// The findings of all hosts, gathered by kind: the first of a kind says what is wrong, the others
// add their ranks.
class Judge {
 public:
  Judge(std::span<const RankPlacement> placements, Launcher launcher)
      : placements_(placements), launcher_(launcher) {
    for (HostRanks& one : by_host(placements)) hosts_.push_back(host_of(std::move(one)));
  }

  std::vector<Finding> findings() {
    for (const Host& host : hosts_) {
      const bool crowded = judge_crowding(host);
      const bool throttled = judge_quotas(host);
      if (!crowded && !throttled) judge_idleness(host);
    }
    judge_evenness();
    judge_instructions();
    judge_order();
    std::vector<Finding> all;
    for (const auto& [kind, found] : found_) all.push_back(finding_of(kind, found));
    return all;
  }

 private:
  // Of the host where it is worst; more is worse.
  struct Found {
    std::vector<std::size_t> ranks;
    double slowdown = 0;
    std::string detail;
    std::string remedy;
  };

  Host host_of(HostRanks one) const {
    Host host{.name = std::move(one.host), .ranks = std::move(one.ranks)};
    std::set<int> mask;
    for (const std::size_t rank : host.ranks) {
      const RankPlacement& placement = placements_[rank];
      mask.insert(placement.allowance.processors.begin(), placement.allowance.processors.end());
      host.threads += placement.threads;
      host.cores = std::max(host.cores, placement.usable_cores);
    }
    host.mask.assign(mask.begin(), mask.end());
    for (const auto& [group, quota] : quotas_of(host.ranks)) {
      if (quota.ranks.size() < host.ranks.size()) continue;
      host.cores = std::clamp<std::size_t>(whole(quota.processors), 1, host.cores);
    }
    return host;
  }

  struct Quota {
    double processors = 0;
    std::vector<std::size_t> ranks;  // under it
    std::size_t threads = 0;         // of these
  };

  std::map<std::string, Quota> quotas_of(std::span<const std::size_t> ranks) const {
    std::map<std::string, Quota> quotas;
    for (const std::size_t rank : ranks) {
      for (const CpuQuota& one : placements_[rank].allowance.quotas) {
        Quota& quota = quotas[one.group];
        quota.processors = one.processors;
        quota.ranks.push_back(rank);
        quota.threads += placements_[rank].threads;
      }
    }
    return quotas;
  }

  static std::size_t whole(double processors) {
    return static_cast<std::size_t>(std::clamp(std::floor(processors), 0.0, 1e6));
  }

  void add(FindingKind kind, std::span<const std::size_t> ranks, double slowdown,
           std::string detail, std::string remedy) {
    Found& found = found_[kind];
    found.ranks.insert(found.ranks.end(), ranks.begin(), ranks.end());
    if (slowdown <= found.slowdown) return;
    found.slowdown = slowdown;
    found.detail = std::move(detail);
    found.remedy = std::move(remedy);
  }

  // Ranks whose threads have no room on the processors that they may run on. The candidates for too
  // little room are each rank's mask and all processors of the host, the smallest first: so what is
  // wrong is told of the ranks that it befalls, and once.
  bool judge_crowding(const Host& host) {
    std::set<Processors> masks{host.mask};
    for (const std::size_t rank : host.ranks) masks.insert(processors_of(rank));
    std::vector<Processors> rooms(masks.begin(), masks.end());
    std::ranges::stable_sort(rooms, {}, &Processors::size);
    std::set<std::size_t> told;
    for (const Processors& room : rooms) {
      std::vector<std::size_t> inside;
      std::size_t threads = 0;
      for (const std::size_t rank : host.ranks) {
        if (told.contains(rank) || !std::ranges::includes(room, processors_of(rank))) continue;
        inside.push_back(rank);
        threads += placements_[rank].threads;
      }
      if (threads <= room.size()) continue;
      tell_crowding(host, inside, threads, room.size());
      told.insert(inside.begin(), inside.end());
    }
    return !told.empty();
  }

  void tell_crowding(const Host& host, std::span<const std::size_t> ranks, std::size_t threads,
                     std::size_t processors) {
    const double slowdown = static_cast<double>(threads) / static_cast<double>(processors);
    const std::string room = count_text(processors, "processor");
    const bool elsewhere_is_room = much_less(processors, host.cores);
    const auto squeezed = std::ranges::find_if(ranks, [&](std::size_t rank) {
      return placements_[rank].threads > processors_of(rank).size();
    });
    if (squeezed != ranks.end() && (elsewhere_is_room || ranks.size() == 1)) {
      const RankPlacement& worst = placements_[*squeezed];
      add(FindingKind::squeezed, ranks, slowdown,
          fmt::format("a thread pool of {} is squeezed onto {}", worst.threads,
                      count_text(worst.allowance.processors.size(), "processor")),
          elsewhere_is_room ? spreading(host) : fewer_threads(ranks.size(), processors));
    } else if (elsewhere_is_room) {
      add(FindingKind::overlapping, ranks, slowdown,
          fmt::format("{} with {} are bound to the same {} of {}", count_text(ranks.size(), "rank"),
                      count_text(threads, "thread"), room, host.name),
          spreading(host));
    } else {
      add(FindingKind::oversubscribed, ranks, slowdown,
          fmt::format("{} with {} share {} of {}", count_text(ranks.size(), "rank"),
                      count_text(threads, "thread"), room, host.name),
          fewer_threads(ranks.size(), processors));
    }
  }

  bool judge_quotas(const Host& host) {
    bool over = false;
    for (const auto& [group, quota] : quotas_of(host.ranks)) {
      if (static_cast<double>(quota.threads) <= quota.processors) continue;
      // More threads than processors is told already, and mended by as many as there are; a quota
      // below that is another matter.
      const bool told = std::ranges::all_of(quota.ranks, [&](std::size_t rank) {
        return is_told(rank) && quota.processors >= static_cast<double>(host.mask.size());
      });
      if (told) continue;
      over = true;
      const bool least = quota.threads == quota.ranks.size();
      add(FindingKind::over_quota, quota.ranks,
          static_cast<double>(quota.threads) / quota.processors,
          fmt::format("{} of {} have a quota of {:.3g} processors (cgroup)",
                      count_text(quota.threads, "thread"), host.name, quota.processors),
          least && quota.ranks.size() == 1
              ? std::string("raise the quota of the container or job to 1 processor at least")
              : fewer_threads(quota.ranks.size(), whole(quota.processors)) +
                    ", or raise the quota of the container or job");
    }
    return over;
  }

  void judge_idleness(const Host& host) {
    const std::string cores = count_text(host.cores, "core");
    if (much_less(host.mask.size(), host.cores)) {
      add(FindingKind::bound, host.ranks,
          static_cast<double>(host.cores) / static_cast<double>(host.mask.size()),
          fmt::format("thread pools are squeezed onto {} of {}, which has {}",
                      count_text(host.mask.size(), "processor"), host.name, cores),
          unbinding(host));
    } else if (much_less(host.threads, host.cores)) {
      const std::size_t share = host.cores / host.ranks.size();
      add(FindingKind::idle_cores, host.ranks,
          static_cast<double>(host.cores) / static_cast<double>(host.threads),
          fmt::format("{} have {} on the {} of {}", count_text(host.ranks.size(), "rank"),
                      count_text(host.threads, "thread"), cores, host.name),
          fmt::format("training.threads = {}, or 0 for a rank's share; or more ranks", share));
    }
  }

  void judge_evenness() {
    const auto threads = [&](std::size_t rank) { return placements_[rank].threads; };
    std::size_t most = 0, least = SIZE_MAX;
    for (std::size_t rank = 0; rank < placements_.size(); ++rank) {
      if (is_told(rank)) return;  // then the numbers are to change anyway
      most = std::max(most, threads(rank));
      least = std::min(least, threads(rank));
    }
    if (placements_.empty() || !much_less(least, most)) return;
    std::vector<std::size_t> few;
    for (std::size_t rank = 0; rank < placements_.size(); ++rank) {
      if (much_less(threads(rank), most)) few.push_back(rank);
    }
    add(FindingKind::uneven_threads, few, static_cast<double>(most) / static_cast<double>(least),
        fmt::format("some ranks have {}, others {}", count_text(least, "thread"), most),
        "as many ranks on a host as fit its processors (mpirun --host a:8,b:4), so that each has "
        "as "
        "many threads");
  }

  void judge_instructions() {
    std::map<std::string, std::vector<std::size_t>> ranks;
    for (std::size_t rank = 0; rank < placements_.size(); ++rank) {
      ranks[placements_[rank].instruction_set].push_back(rank);
    }
    if (ranks.size() < 2) return;
    std::vector<std::string> sets;
    for (const auto& [set, where] : ranks) {
      std::set<std::string> names;
      for (const std::size_t rank : where) names.insert(placements_[rank].host);
      const std::size_t more = names.size() > 3 ? names.size() - 3 : 0;
      for (std::size_t i = 0; i < more; ++i) names.erase(std::prev(names.end()));
      sets.push_back(fmt::format("{} on {}{} ({})", set, fmt::join(names, ", "),
                                 more > 0 ? fmt::format(" and {} more", more) : "",
                                 ranks_text(where)));
    }
    std::vector<std::size_t> all(placements_.size());
    for (std::size_t rank = 0; rank < all.size(); ++rank) all[rank] = rank;
    add(FindingKind::mixed_instructions, all, 1,
        fmt::format("the processors differ: {}", fmt::join(sets, ", ")),
        "hosts of one kind (srun --constraint, mpirun --host)");
  }

  void judge_order() {
    if (hosts_.size() < 2) return;
    for (const Host& host : hosts_) {
      if (host.ranks.back() - host.ranks.front() + 1 == host.ranks.size()) continue;
      add(FindingKind::scattered, host.ranks, 1,
          fmt::format("the ranks of {} are not neighbours in rank order", host.name),
          launcher_ == Launcher::slurm   ? "srun --distribution=block"
          : launcher_ == Launcher::hydra ? "mpiexec -ppn with the number of ranks a host"
                                         : "mpirun --map-by slot");
    }
  }

  Finding finding_of(FindingKind kind, const Found& found) const {
    std::string what = found.detail;
    if (kind != FindingKind::mixed_instructions && placements_.size() > 1) {
      std::vector<std::size_t> ranks = found.ranks;
      std::ranges::sort(ranks);
      ranks.erase(std::ranges::unique(ranks).begin(), ranks.end());
      std::set<std::string> hosts;
      for (const std::size_t rank : ranks) hosts.insert(placements_[rank].host);
      what += fmt::format(" ({}{})", ranks_text(ranks),
                          hosts.size() > 1 ? fmt::format(" on {} hosts", hosts.size()) : "");
    }
    return {kind, std::move(what), cost_of(kind, found.slowdown), found.remedy};
  }

  static std::string cost_of(FindingKind kind, double slowdown) {
    switch (kind) {
      case FindingKind::squeezed:
      case FindingKind::overlapping:
      case FindingKind::oversubscribed:
        return fmt::format(
            "threads take turns: {:.3g} times the time, and more where one waits for another",
            slowdown);
      case FindingKind::over_quota:
        return fmt::format(
            "the system stops them for {:.0f} % of the time, and every rank waits for them",
            100 * (1 - 1 / slowdown));
      case FindingKind::bound:
      case FindingKind::idle_cores:
        return fmt::format("{:.0f} % of the cores do nothing", 100 * (1 - 1 / slowdown));
      case FindingKind::uneven_threads:
        return fmt::format(
            "a rank has as much to do as any other: some wait for {:.0f} % of the time",
            100 * (1 - 1 / slowdown));
      case FindingKind::mixed_instructions:
        return "the bits stay the same, but every step waits for the slower ones";
      default:
        return "more of each sum travels between hosts: neighbours add theirs up within one";
    }
  }

  bool is_told(std::size_t rank) const {
    for (const auto& [kind, found] : found_) {
      if (kind <= FindingKind::bound && std::ranges::count(found.ranks, rank) > 0) return true;
    }
    return false;
  }

  const Processors& processors_of(std::size_t rank) const {
    return placements_[rank].allowance.processors;
  }

  // How ranks get at all of the host.
  std::string unbinding(const Host& host) const {
    const std::size_t share = std::max<std::size_t>(1, host.cores / host.ranks.size());
    switch (launcher_) {
      case Launcher::openmpi:
        return fmt::format("mpirun --bind-to none, or --map-by slot:PE={}", share);
      case Launcher::slurm:
        return fmt::format("srun --cpus-per-task={} (srun does not take it from sbatch)", share);
      case Launcher::hydra:
        return "mpiexec -bind-to none (Intel MPI: I_MPI_PIN=off in the environment)";
      case Launcher::none:
        break;
    }
    return "start it without taskset, numactl or the like";
  }

  // The same for ranks with too many threads for a part of it, which may be too many for all of it.
  std::string spreading(const Host& host) const {
    if (host.threads <= host.cores) return unbinding(host);
    return fmt::format("{}; and {}", unbinding(host), fewer_threads(host.ranks.size(), host.cores));
  }

  static std::string fewer_threads(std::size_t ranks, std::size_t processors) {
    if (processors < ranks) {
      return fmt::format("{} on this host at most",
                         count_text(std::max<std::size_t>(1, processors), "rank"));
    }
    return fmt::format("training.threads = {}, or 0 for a rank's share", processors / ranks);
  }

  std::span<const RankPlacement> placements_;
  Launcher launcher_;
  std::vector<Host> hosts_;
  std::map<FindingKind, Found> found_;
};

}  // namespace

std::vector<HostRanks> by_host(std::span<const RankPlacement> placements) {
  std::vector<HostRanks> hosts;
  std::map<std::string, std::size_t> index;
  for (std::size_t rank = 0; rank < placements.size(); ++rank) {
    const auto [at, is_new] = index.try_emplace(placements[rank].host, hosts.size());
    if (is_new) hosts.push_back({placements[rank].host, {}});
    hosts[at->second].ranks.push_back(rank);
  }
  return hosts;
}

std::vector<Finding> judge_placement(std::span<const RankPlacement> placements, Launcher launcher) {
  return Judge(placements, launcher).findings();
}

std::optional<std::string> placement_warning(std::span<const RankPlacement> placements,
                                             Launcher launcher) {
  std::vector<Finding> findings = judge_placement(placements, launcher);
  std::erase_if(findings, [](const Finding& f) { return f.kind == FindingKind::idle_cores; });
  if (findings.empty()) return std::nullopt;
  const std::size_t more = findings.size() - 1;
  return fmt::format("{}: {}{}; see lockstep doctor", findings.front().what,
                     findings.front().remedy, more > 0 ? fmt::format(" (and {} more)", more) : "");
}

}  // namespace lockstep::trainer

#include "trainer/doctor/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "trainer/doctor/judge_placement.hpp"
#include "trainer/doctor/judge_rates.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {
namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kMostHosts = 16;  // of a table
constexpr std::size_t kMostRanks = 32;

// Three digits or more: 0.61, 12.3, 1234.
std::string number_text(double value) {
  return fmt::format("{:.{}f}", value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

std::string gflops_text(double rate) {
  return number_text(1e-9 * rate) + " GFLOP/s";
}
std::string bytes_text(double rate) {
  return number_text(1e-9 * rate) + " GB/s";
}
std::string time_text(double seconds) {
  return number_text(1e6 * seconds) + " us";
}

std::string size_text(std::size_t bytes) {
  if (bytes >= (1U << 20) && bytes % (1U << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  if (bytes >= (1U << 10) && bytes % (1U << 10) == 0) return fmt::format("{} KiB", bytes >> 10);
  return fmt::format("{} B", bytes);
}

// In `width` columns at most.
std::string cut(std::string text, std::size_t width) {
  if (text.size() > width) text.replace(width - 2, std::string::npos, "..");
  return text;
}

std::string processors_text(const Processors& processors) {
  return list_text(std::vector<std::size_t>(processors.begin(), processors.end()));
}

// The tightest, if any.
std::optional<double> quota_of(const RankPlacement& placement) {
  std::optional<double> least;
  for (const CpuQuota& quota : placement.allowance.quotas) {
    least = std::min(quota.processors, least.value_or(quota.processors));
  }
  return least;
}

std::string range_text(std::size_t least, std::size_t most) {
  return least == most ? fmt::format("{}", least) : fmt::format("{}-{}", least, most);
}

// Builds the text, section by section.
class Report {
 public:
  explicit Report(const Diagnosis& diagnosis)
      : diagnosis_(diagnosis), hosts_(by_host(diagnosis.placements)) {}

  std::string text() {
    add_head();
    add_hosts();
    add_messages();
    add_rates();
    add_ranks();
    add_advice();
    return std::move(text_);
  }

 private:
  template <class... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Arguments>(arguments)...);
    text_ += '\n';
  }

  bool in_order() const {
    return std::ranges::all_of(hosts_, [](const HostRanks& host) {
      return host.ranks.back() - host.ranks.front() + 1 == host.ranks.size();
    });
  }

  void add_head() {
    const std::string_view launcher = name_of(diagnosis_.launcher);
    add("run       {} on {}, {}", count_text(diagnosis_.placements.size(), "rank"),
        count_text(hosts_.size(), "host"),
        launcher.empty() ? "started alone" : fmt::format("started by {}", launcher));
    add("MPI       {}", cut(diagnosis_.mpi, kColumns - 10));
    if (hosts_.size() > 1) {
      add("order     the ranks of a host are {}neighbours", in_order() ? "" : "not ");
    }
  }

  void add_hosts() {
    constexpr auto kRow = "  {:<16} {:<10} {:>7}  {:<14} {:>5}  {:>5}  {}";
    add("");
    add(kRow, "host", "ranks", "threads", "may run on", "cores", "quota", "kernels");
    for (std::size_t i = 0; i < std::min(hosts_.size(), kMostHosts); ++i) {
      const HostRanks& host = hosts_[i];
      std::size_t least = SIZE_MAX, most = 0, cores = 0;
      Processors processors;
      std::optional<double> quota;
      for (const std::size_t rank : host.ranks) {
        const RankPlacement& placement = diagnosis_.placements[rank];
        least = std::min(least, placement.threads);
        most = std::max(most, placement.threads);
        cores = std::max(cores, placement.usable_cores);
        processors.insert(processors.end(), placement.allowance.processors.begin(),
                          placement.allowance.processors.end());
        if (const auto own = quota_of(placement)) quota = std::min(*own, quota.value_or(*own));
      }
      std::ranges::sort(processors);
      processors.erase(std::ranges::unique(processors).begin(), processors.end());
      const std::string threads = range_text(least, most);
      add(kRow, cut(host.host, 16), cut(list_text(host.ranks), 10), threads,
          cut(processors_text(processors), 14), cores,
          quota ? fmt::format("{:.3g}", *quota) : std::string("none"),
          diagnosis_.placements[host.ranks.front()].instruction_set);
    }
    if (hosts_.size() > kMostHosts) add("  and {} more hosts", hosts_.size() - kMostHosts);
  }

  void add_messages() {
    const auto& pairs = diagnosis_.measurements.pairs;
    if (pairs.empty()) return;
    constexpr auto kRow = "  {:<30} {:>5}  {:>11}  {:>11}  {:>11}";
    add("");
    add(kRow, "messages, one way", "pairs", "least", "median", "most");
    for (const bool same_host : {true, false}) {
      const Spread latency = latencies(pairs, same_host);
      const Spread bandwidth = bandwidths(pairs, same_host);
      if (latency.count == 0) continue;
      const char* where = same_host ? "within a host" : "between hosts";
      add(kRow, fmt::format("{}, {}", where, size_text(diagnosis_.probe.small_bytes)),
          latency.count, time_text(latency.least), time_text(latency.median),
          time_text(latency.most));
      add(kRow, fmt::format("{}, {}", where, size_text(diagnosis_.probe.large_bytes)),
          bandwidth.count, bytes_text(bandwidth.least), bytes_text(bandwidth.median),
          bytes_text(bandwidth.most));
    }
  }

  void add_rates() {
    const Measurements& found = diagnosis_.measurements;
    std::vector<double> gemm, memory;
    for (const AloneRates& one : found.alone) {
      gemm.push_back(one.gemm.total);
      memory.push_back(one.memory.total);
    }
    double gemm_all = 0, memory_all = 0, gemm_least = INFINITY, memory_least = INFINITY;
    for (const TogetherRates& one : found.together) {
      gemm_all += one.gemm.total;
      memory_all += one.memory.total;
      gemm_least = std::min(gemm_least, one.gemm.slowest_thread);
      memory_least = std::min(memory_least, one.memory.slowest_thread);
    }
    constexpr auto kRow = "  {:<36} {:>17}  {:>17}";
    const auto add_row = [&](const char* name, double operations, double bytes) {
      add(kRow, name, gflops_text(operations), bytes_text(bytes));
    };
    add("");
    add(kRow, "rates", "float32 products", "memory");
    add_row(hosts_.size() > 1 ? "one thread alone, median of hosts" : "one thread alone",
            spread_of(gemm).median, spread_of(memory).median);
    add_row("all ranks and threads at once", gemm_all, memory_all);
    add_row("slowest thread of these", gemm_least, memory_least);
    if (found.together.size() > 1) {
      const auto behind = [](const Lag& lag) { return fmt::format("{:.0f} %", 100 * lag.behind); };
      add(kRow, "slowest rank behind the fastest", behind(gemm_lag(found.together)),
          behind(memory_lag(found.together)));
    }
  }

  // Of many ranks the slowest.
  void add_ranks() {
    const auto& together = diagnosis_.measurements.together;
    std::vector<std::size_t> shown(together.size());
    for (std::size_t rank = 0; rank < shown.size(); ++rank) shown[rank] = rank;
    if (shown.size() > kMostRanks) {
      std::ranges::stable_sort(shown, {},
                               [&](std::size_t rank) { return together[rank].gemm.total; });
      shown.resize(kMostRanks / 2);
    }
    constexpr auto kRow = "  {:>4}  {:<16} {:>7}  {:<12} {:>11}  {:>8}  {:>8}";
    add("");
    add(kRow, "rank", "host", "threads", "may run on", "GFLOP/s", "GB/s", "ran for");
    for (const std::size_t rank : shown) {
      const RankPlacement& placement = diagnosis_.placements[rank];
      add(kRow, rank, cut(placement.host, 16), placement.threads,
          cut(processors_text(placement.allowance.processors), 12),
          number_text(1e-9 * together[rank].gemm.total),
          number_text(1e-9 * together[rank].memory.total),
          fmt::format("{:.0f} %", 100 * together[rank].gemm.processor_share));
    }
    if (shown.size() < together.size()) {
      add("  and {} faster ranks", together.size() - shown.size());
    }
    add("  (all at once; ran for: the share of the time in which threads had a processor)");
  }

  void add_advice() {
    add("");
    if (diagnosis_.findings.empty()) {
      add("advice    nothing to mend");
      return;
    }
    add("advice");
    std::size_t number = 0;
    for (const Finding& finding : diagnosis_.findings) {
      add("{}", wrapped(fmt::format("  {}. {}. Cost: {}. Mend: {}.", ++number, finding.what,
                                    finding.cost, finding.remedy),
                        kColumns, 5));
    }
  }

  const Diagnosis& diagnosis_;
  std::vector<HostRanks> hosts_;
  std::string text_;
};

using Json = nlohmann::ordered_json;

Json to_json(const Rate& gemm, const Rate& memory) {
  return {{"gemm_flops", gemm.total},
          {"gemm_flops_slowest_thread", gemm.slowest_thread},
          {"gemm_processor_share", gemm.processor_share},
          {"memory_bytes_per_second", memory.total},
          {"memory_bytes_per_second_slowest_thread", memory.slowest_thread},
          {"memory_processor_share", memory.processor_share}};
}

Json to_json(const Lag& lag) {
  return {{"slowest_rank", lag.slowest}, {"fastest_rank", lag.fastest}, {"behind", lag.behind}};
}

}  // namespace

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
  std::string lines;
  for (std::size_t room = width; text.size() > room; room = width - indent) {
    std::size_t end = text.rfind(' ', room);
    // A word that is longer than a line stands in one of its own.
    if (end == std::string_view::npos || text.find_first_not_of(' ') > end) {
      end = text.find(' ', text.find_first_not_of(' '));
    }
    if (end == std::string_view::npos) break;
    lines += fmt::format("{}\n{:{}}", text.substr(0, end), "", indent);
    text.remove_prefix(std::min(text.find_first_not_of(' ', end), text.size()));
  }
  return lines.append(text);
}

std::string report_text(const Diagnosis& diagnosis) {
  return Report(diagnosis).text();
}

nlohmann::ordered_json report_json(const Diagnosis& diagnosis) {
  const Measurements& found = diagnosis.measurements;
  Json json;
  json["program_version"] = kProgramVersion;
  json["mpi"] = diagnosis.mpi;
  json["launcher"] = name_of(diagnosis.launcher);
  json["ranks"] = Json::array();
  for (std::size_t rank = 0; rank < diagnosis.placements.size(); ++rank) {
    const RankPlacement& placement = diagnosis.placements[rank];
    Json quotas = Json::array();
    for (const CpuQuota& quota : placement.allowance.quotas) quotas.push_back(quota.processors);
    Json one{{"rank", rank},
             {"host", placement.host},
             {"threads", placement.threads},
             {"processors", placement.allowance.processors},
             {"usable_cores", placement.usable_cores},
             {"quotas", quotas},
             {"instruction_set", placement.instruction_set}};
    one.update(to_json(found.together.at(rank).gemm, found.together.at(rank).memory));
    json["ranks"].push_back(one);
  }
  json["alone"] = Json::array();
  for (const AloneRates& alone : found.alone) {
    Json one{{"host", alone.host}, {"rank", alone.rank}};
    one.update(to_json(alone.gemm, alone.memory));
    json["alone"].push_back(one);
  }
  json["gemm_lag"] = to_json(gemm_lag(found.together));
  json["memory_lag"] = to_json(memory_lag(found.together));
  json["pairs"] = Json::array();
  for (const PairMeasurement& one : found.pairs) {
    json["pairs"].push_back({{"a", one.pair.a},
                             {"b", one.pair.b},
                             {"same_host", one.same_host},
                             {"latency_seconds", one.timing.latency},
                             {"bytes_per_second", one.timing.bandwidth}});
  }
  json["findings"] = Json::array();
  for (const Finding& finding : diagnosis.findings) {
    json["findings"].push_back({{"kind", name_of(finding.kind)},
                                {"what", finding.what},
                                {"cost", finding.cost},
                                {"remedy", finding.remedy}});
  }
  return json;
}

}  // namespace lockstep::trainer

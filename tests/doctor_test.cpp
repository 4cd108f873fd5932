// The doctor's judgements of made-up clusters, its report, and the machine's own topology.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>

#include "trainer/doctor/judge_placement.hpp"
#include "trainer/doctor/judge_rates.hpp"
#include "trainer/doctor/report.hpp"
#include "trainer/topology.hpp"

namespace lockstep::trainer {
namespace {

using Kinds = std::vector<FindingKind>;
using Cluster = std::vector<RankPlacement>;

// Processors begin..end-1.
Processors processors(int begin, int end) {
  Processors all(static_cast<std::size_t>(end - begin));
  std::iota(all.begin(), all.end(), begin);
  return all;
}

std::string host_named(int number, std::string name = "n") {
  return name.append(std::to_string(number));
}

RankPlacement rank_on(const std::string& host, Processors mask, std::size_t threads,
                      std::size_t cores = 8) {
  return {host, {std::move(mask), {}}, threads, cores, "AVX2"};
}

// Two ranks on each of two hosts of eight cores, each bound to its half.
Cluster good_cluster() {
  return {rank_on("a", processors(0, 4), 4), rank_on("a", processors(4, 8), 4),
          rank_on("b", processors(0, 4), 4), rank_on("b", processors(4, 8), 4)};
}

Cluster under_quota(Cluster cluster, double processors) {
  for (RankPlacement& rank : cluster) rank.allowance.quotas.push_back({processors, "job"});
  return cluster;
}

Kinds kinds_of(const std::vector<Finding>& findings) {
  Kinds kinds;
  for (const Finding& finding : findings) kinds.push_back(finding.kind);
  return kinds;
}

std::vector<Finding> judge(const Cluster& cluster, Launcher launcher = Launcher::openmpi) {
  return judge_placement(cluster, launcher);
}

TEST(JudgePlacement, GoodOnesGiveNothing) {
  const Cluster all_share(4, rank_on("a", processors(0, 8), 2));
  const std::map<std::string, Cluster> clusters = {
      {"bound halves", good_cluster()},
      {"one rank on all", {rank_on("a", processors(0, 8), 8)}},
      {"ranks share all", all_share},
      {"three ranks round down", Cluster(3, rank_on("a", processors(0, 8), 2))},
      {"a thread a core, two processors each", {rank_on("a", processors(0, 16), 8)}},
      {"both processors of a core", {rank_on("a", processors(0, 16), 16)}},
      {"a machine of one core", {rank_on("a", {0}, 1, 1)}},
      {"as much as the quota gives", under_quota({rank_on("a", processors(0, 8), 2)}, 2.5)},
      {"nobody", {}}};
  for (const auto& [name, cluster] : clusters) {
    EXPECT_EQ(kinds_of(judge(cluster)), Kinds{}) << name;
    EXPECT_FALSE(placement_warning(cluster, Launcher::openmpi)) << name;
  }
}

TEST(JudgePlacement, EachBadOneGivesItsFindingOnce) {
  Cluster mixed = good_cluster();
  mixed[2].instruction_set = mixed[3].instruction_set = "AVX3";
  Cluster strewn = good_cluster();
  std::swap(strewn[1], strewn[2]);
  Cluster uneven = good_cluster();
  for (const std::size_t rank : {2u, 3u}) {
    const int begin = rank == 2 ? 0 : 2;
    uneven[rank] = rank_on("b", processors(begin, begin + 2), 2, 4);
  }
  const Cluster two_pairs = {rank_on("a", {0, 1}, 2), rank_on("a", {0, 1}, 2),
                             rank_on("a", processors(0, 8), 4)};
  using enum FindingKind;
  const std::vector<std::pair<FindingKind, Cluster>> clusters = {
      {squeezed, {rank_on("a", {0}, 8)}},
      {squeezed, {rank_on("a", {0}, 4), rank_on("a", {1}, 4)}},
      {squeezed, {rank_on("a", processors(0, 8), 16)}},
      {overlapping, {rank_on("a", {0}, 1), rank_on("a", {0}, 1)}},
      {overlapping, two_pairs},
      {oversubscribed, Cluster(4, rank_on("a", {0, 1}, 1, 2))},
      {oversubscribed, Cluster(2, rank_on("a", processors(0, 8), 8))},
      {over_quota, under_quota({rank_on("a", processors(0, 8), 8)}, 2)},
      {over_quota, under_quota(Cluster(4, rank_on("a", processors(0, 8), 1)), 2)},
      {over_quota, under_quota({rank_on("a", {0}, 1, 1)}, 0.5)},
      {bound, {rank_on("a", {0}, 1)}},
      {bound, {rank_on("a", {0}, 1), rank_on("a", {1}, 1)}},
      {idle_cores, {rank_on("a", processors(0, 8), 1)}},
      {uneven_threads, uneven},
      {mixed_instructions, mixed},
      {scattered, strewn}};
  for (const auto& [kind, cluster] : clusters) {
    const auto findings = judge(cluster);
    EXPECT_EQ(kinds_of(findings), Kinds{kind}) << name_of(kind);
    for (const Finding& finding : findings) {
      EXPECT_FALSE(finding.what.empty() || finding.cost.empty() || finding.remedy.empty())
          << name_of(kind);
    }
    EXPECT_EQ(placement_warning(cluster, Launcher::openmpi).has_value(), kind != idle_cores)
        << name_of(kind);
  }
}

TEST(JudgePlacement, TheClassicMistakeIsNamedWithItsRemedy) {
  // mpirun -np 1 binds a rank to one core: alone with training.threads = 8, and with the default.
  for (const std::size_t threads : {std::size_t{8}, std::size_t{1}}) {
    const Cluster cluster = {rank_on("a", {3}, threads)};
    const auto warning = placement_warning(cluster, Launcher::openmpi);
    ASSERT_TRUE(warning);
    EXPECT_NE(warning->find("squeezed onto 1 processor"), std::string::npos) << *warning;
    EXPECT_NE(warning->find("--bind-to none"), std::string::npos) << *warning;
    EXPECT_NE(warning->find("lockstep doctor"), std::string::npos) << *warning;
    EXPECT_EQ(warning->find('\n'), std::string::npos) << "one line";
    const auto in_slurm = judge(cluster, Launcher::slurm);
    EXPECT_NE(in_slurm.front().remedy.find("--cpus-per-task=8"), std::string::npos);
  }
}

TEST(JudgePlacement, UnbindingAloneIsNoRemedyForMoreThreadsThanCores) {
  const auto findings = judge({rank_on("a", {0}, 3, 2), rank_on("a", {1}, 3, 2)});
  ASSERT_EQ(kinds_of(findings), Kinds{FindingKind::squeezed});
  EXPECT_NE(findings[0].remedy.find("--bind-to none"), std::string::npos) << findings[0].remedy;
  EXPECT_NE(findings[0].remedy.find("training.threads = 1"), std::string::npos);
}

TEST(JudgePlacement, RanksOfAllHostsShareAFinding) {
  Cluster cluster;
  for (int host = 0; host < 20; ++host) {
    for (int i = 0; i < 4; ++i) cluster.push_back(rank_on(host_named(host), {i}, 8));
  }
  const auto findings = judge(cluster);
  ASSERT_EQ(kinds_of(findings), Kinds{FindingKind::squeezed});
  EXPECT_NE(findings[0].what.find("(ranks 0-79 on 20 hosts)"), std::string::npos)
      << findings[0].what;
}

TEST(JudgePlacement, OnlyTheRanksThatItBefallsAreNamed) {
  Cluster cluster = good_cluster();
  cluster[3].threads = 9;
  const auto findings = judge(cluster);
  ASSERT_EQ(kinds_of(findings), Kinds{FindingKind::squeezed});
  EXPECT_NE(findings[0].what.find("(rank 3)"), std::string::npos) << findings[0].what;
}

// Measurements of a cluster in which nothing is wrong.
Measurements good_rates(const Cluster& cluster) {
  Measurements found;
  for (const comm::RankPair& pair : pairs_to_time(cluster)) {
    const bool same = cluster[pair.a].host == cluster[pair.b].host;
    found.pairs.push_back(
        {pair, same, same ? comm::PairTiming{1e-6, 5e9} : comm::PairTiming{2e-6, 1e10}});
  }
  for (const HostRanks& host : by_host(cluster)) {
    found.alone.push_back({host.host, host.ranks.front(), {1e11, 1e11, 1}, {1e10, 1e10, 1}});
  }
  for (const RankPlacement& rank : cluster) {
    const double gemm = 0.9e11 * static_cast<double>(rank.threads);
    found.together.push_back({{gemm, 0.9e11, 1}, {2e10, 5e9, 1}});
  }
  return found;
}

Kinds kinds_of_rates(const Cluster& cluster, const Measurements& rates) {
  return kinds_of(judge_rates(cluster, rates, judge(cluster)));
}

TEST(JudgeRates, GoodOnesGiveNothing) {
  EXPECT_EQ(kinds_of_rates(good_cluster(), good_rates(good_cluster())), Kinds{});
}

TEST(JudgeRates, EachBadOneGivesItsFindingOnce) {
  const Cluster cluster = good_cluster();
  using enum FindingKind;
  Measurements rates = good_rates(cluster);
  rates.together[2].gemm.processor_share = 0.5;
  rates.together[2].gemm.total /= 2;
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{disturbed});

  rates = good_rates(cluster);
  rates.together[2].gemm.total *= 0.7;
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{straggler});
  EXPECT_EQ(gemm_lag(rates.together).slowest, 2u);
  EXPECT_NEAR(gemm_lag(rates.together).behind, 0.3, 1e-9);

  rates = good_rates(cluster);
  for (TogetherRates& rank : rates.together) rank.gemm.total /= 2;
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{slow_together});

  rates = good_rates(cluster);
  for (PairMeasurement& one : rates.pairs) {
    if (one.same_host) one.timing.latency = 1e-3;
  }
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{slow_inside});

  rates = good_rates(cluster);
  for (PairMeasurement& one : rates.pairs) {
    if (!one.same_host) one.timing.bandwidth = 1.2e8;
  }
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{slow_between});
}

TEST(JudgeRates, WhatThePlacementExplainsIsNotToldAgain) {
  const Cluster cluster(4, rank_on("a", {0, 1}, 1, 2));
  Measurements rates = good_rates(cluster);
  for (TogetherRates& rank : rates.together) rank.gemm = {0.4e11, 0.4e11, 0.5};
  rates.together[1].gemm.total /= 2;
  EXPECT_EQ(kinds_of_rates(cluster, rates), Kinds{});
}

TEST(PairsToTime, ReachEveryHostAndStayFew) {
  EXPECT_EQ(pairs_to_time(good_cluster()).size(), 6u) << "all of four ranks";
  EXPECT_TRUE(pairs_to_time(Cluster(1, rank_on("a", {0}, 1))).empty());
  for (const int hosts : {1, 2, 5, 20, 100}) {
    Cluster cluster;
    for (int i = 0; i < 8 * hosts; ++i) {
      cluster.push_back(rank_on(host_named(i / 8), {i % 8}, 1));
    }
    const auto pairs = pairs_to_time(cluster);
    EXPECT_LE(pairs.size(), 50u);
    std::set<std::string> reached;
    for (const auto [a, b] : pairs) {
      ASSERT_NE(a, b);
      ASSERT_LT(std::max(a, b), cluster.size());
      reached.insert({cluster[a].host, cluster[b].host});
    }
    EXPECT_EQ(reached.size(), static_cast<std::size_t>(std::min(hosts, 32)));
  }
}

TEST(Report, FitsEightyColumnsAndJsonHoldsItAll) {
  Cluster cluster;
  for (int i = 0; i < 200; ++i) {
    cluster.push_back(rank_on(host_named(i % 40, "a-host-with-a-long-name-"),
                              {i % 8, 2 * (i % 50) + 8, 300 + i}, 8));
  }
  cluster[3].instruction_set = "AVX3";
  for (const Cluster& one : {cluster, good_cluster()}) {
    Diagnosis diagnosis{.mpi = std::string(100, 'm'),
                        .launcher = Launcher::openmpi,
                        .probe = {},
                        .placements = one,
                        .measurements = good_rates(one),
                        .findings = judge(one)};
    const std::string text = report_text(diagnosis);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
    EXPECT_EQ(text.find("nothing to mend") != std::string::npos, diagnosis.findings.empty());
    const auto json = nlohmann::json::parse(report_json(diagnosis).dump());
    EXPECT_EQ(json["ranks"].size(), one.size());
    EXPECT_EQ(json["pairs"].size(), diagnosis.measurements.pairs.size());
    EXPECT_EQ(json["findings"].size(), diagnosis.findings.size());
  }
}

TEST(Report, LongLinesAreCutBetweenWords) {
  EXPECT_EQ(wrapped("one two three four", 9, 2), "one two\n  three\n  four");
  EXPECT_EQ(wrapped("short", 9, 2), "short");
  EXPECT_EQ(wrapped("abcdefghijkl mno", 5, 1), "abcdefghijkl\n mno");
}

TEST(Finding, ListsAreShort) {
  const std::vector<std::size_t> some = {0, 1, 2, 5, 7, 8};
  EXPECT_EQ(list_text(some), "0-2,5,7-8");
  EXPECT_EQ(list_text(some, 2), "0-2,5,...");
  EXPECT_EQ(list_text({}), "");
  EXPECT_EQ(ranks_text(std::vector<std::size_t>{4}), "rank 4");
}

TEST(Topology, ProcessorsOfOneCoreCountOnce) {
  const auto root = std::filesystem::path(testing::TempDir()) / "lockstep-topology";
  std::filesystem::remove_all(root);
  for (int cpu = 0; cpu < 4; ++cpu) {
    const auto folder =
        root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpu)) / "topology";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "thread_siblings_list") << cpu % 2 << "," << cpu % 2 + 2 << "\n";
  }
  EXPECT_EQ(count_cores({0, 1, 2, 3}, root), 2u);
  EXPECT_EQ(count_cores({0, 2}, root), 1u);
  EXPECT_EQ(count_cores({0, 9, 10}, root), 3u) << "unknown ones are cores of their own";
  std::filesystem::remove_all(root);
}

TEST(Topology, LookingBeyondTheMaskLeavesItAsItIs) {
  const Processors before = allowed_processors();
  const Processors beyond = unbound_processors();
  EXPECT_TRUE(std::ranges::includes(beyond, before));
  EXPECT_EQ(allowed_processors(), before);
  EXPECT_GE(usable_cores(), 1u);
}

TEST(Launcher, IsToldFromTheEnvironment) {
  const auto launcher = [](const std::set<std::string>& names) {
    return find_launcher([&](const char* name) { return names.contains(name) ? "1" : nullptr; });
  };
  EXPECT_EQ(launcher({}), Launcher::none);
  EXPECT_EQ(launcher({"OMPI_MCA_orte_local_daemon_uri", "SLURM_PROCID", "SLURM_STEP_ID"}),
            Launcher::openmpi);
  EXPECT_EQ(launcher({"PRTE_LAUNCHED"}), Launcher::openmpi);
  EXPECT_EQ(launcher({"SLURM_PROCID", "SLURM_STEP_ID", "PMI_RANK"}), Launcher::slurm);
  EXPECT_EQ(launcher({"SLURM_PROCID"}), Launcher::none) << "a batch script's own process";
  EXPECT_EQ(launcher({"PMI_RANK"}), Launcher::hydra);
}

}  // namespace
}  // namespace lockstep::trainer

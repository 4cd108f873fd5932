#include "comm/probe.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "comm_main.hpp"

namespace lockstep::comm {
namespace {

using test::world;

constexpr ProbeOptions kShort{.large_bytes = 300'000, .seconds = 0.005};

std::vector<RankPair> all_pairs() {
  std::vector<RankPair> pairs;
  for (std::size_t a = 0; a < world().size(); ++a) {
    for (std::size_t b = 0; b < world().size(); ++b) {
      if (a != b) pairs.push_back({a, b});
    }
  }
  return pairs;
}

TEST(Probe, EveryPairIsTimedAndEveryRankLearnsIt) {
  const auto pairs = all_pairs();
  std::vector<std::size_t> begun;
  const auto timings =
      time_pairs(world(), pairs, kShort, [&](std::size_t pair) { begun.push_back(pair); });
  ASSERT_EQ(timings.size(), pairs.size());
  EXPECT_EQ(begun.size(), pairs.size());
  std::vector<double> mine;
  for (const PairTiming& timing : timings) {
    EXPECT_GT(timing.latency, 0.0);
    EXPECT_LT(timing.latency, 1.0);
    EXPECT_GT(timing.bandwidth, 1e5);
    mine.insert(mine.end(), {timing.latency, timing.bandwidth});
  }
  const std::vector<std::size_t> counts(world().size(), mine.size());
  std::vector<double> all(world().size() * mine.size());
  world().all_gather(mine, counts, all);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], mine[i % mine.size()]);
  EXPECT_FALSE(world().any(false)) << "no message is left behind";
}

TEST(Probe, NoPairsIsNothingToDo) {
  EXPECT_TRUE(time_pairs(world(), {}).empty());
}

TEST(Probe, APairIsTwoRanks) {
  const std::vector<RankPair> with_itself{{0, 0}};
  EXPECT_THROW(time_pairs(world(), with_itself), std::invalid_argument);
  const std::vector<RankPair> with_nobody{{0, world().size()}};
  EXPECT_THROW(time_pairs(world(), with_nobody), std::invalid_argument);
}

TEST(Probe, TheLibraryHasANameAndAStandard) {
  const std::string library = mpi_library();
  EXPECT_NE(library.find(" (MPI "), std::string::npos) << library;
  EXPECT_EQ(library.find('\n'), std::string::npos) << library;
  EXPECT_GT(library.find(" (MPI "), 3u) << library;
}

}  // namespace
}  // namespace lockstep::comm

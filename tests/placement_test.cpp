#include "trainer/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace lockstep::trainer {
namespace {

const Processors kEight = {0, 1, 2, 3, 4, 5, 6, 7};

TEST(Placement, RanksThatShareAllProcessorsDivideThem) {
  const Allowance all{kEight, {}};
  EXPECT_EQ(share_of(all, std::vector<Allowance>{all}), 8u);
  EXPECT_EQ(share_of(all, std::vector<Allowance>(4, all)), 2u);
  EXPECT_EQ(share_of(all, std::vector<Allowance>(3, all)), 2u);
  EXPECT_EQ(share_of(all, std::vector<Allowance>(16, all)), 1u) << "at least one";
}

TEST(Placement, ARankBoundToItsOwnProcessorsHasThemAll) {
  const std::vector<Allowance> bound = {{{0, 1}, {}}, {{2, 3}, {}}, {{4, 5, 6, 7}, {}}};
  EXPECT_EQ(share_of(bound[0], bound), 2u);
  EXPECT_EQ(share_of(bound[2], bound), 4u);
}

TEST(Placement, AQuotaIsKeptAndRoundedDown) {
  const auto threads = [](double quota) {
    const Allowance mine{kEight, {{quota, "group"}}};
    return share_of(mine, std::vector<Allowance>{mine});
  };
  EXPECT_EQ(threads(2), 2u);
  EXPECT_EQ(threads(2.9), 2u);
  EXPECT_EQ(threads(1.5), 1u);
  EXPECT_EQ(threads(0.5), 1u) << "at least one";
  EXPECT_EQ(threads(64), 8u) << "no more than there are processors";
  EXPECT_EQ(threads(1e300), 8u);
}

TEST(Placement, RanksOfOneGroupShareItsQuota) {
  const Allowance mine{kEight, {{6, "job"}}};
  EXPECT_EQ(share_of(mine, std::vector<Allowance>(2, mine)), 3u);
  EXPECT_EQ(share_of(mine, std::vector<Allowance>(4, mine)), 1u);
  const Allowance outside{{8, 9}, {{1, "other"}}};
  EXPECT_EQ(share_of(mine, std::vector<Allowance>{mine, outside}), 6u);
}

TEST(Placement, TheTightestOfNestedQuotasCounts) {
  const std::vector<Allowance> ranks = {{kEight, {{2, "job/0"}, {3, "job"}}},
                                        {kEight, {{2, "job/1"}, {3, "job"}}}};
  EXPECT_EQ(share_of(ranks[0], ranks), 1u) << "three for both";
  const std::vector<Allowance> wide = {{kEight, {{2, "job/0"}, {6, "job"}}},
                                       {kEight, {{8, "job/1"}, {6, "job"}}}};
  EXPECT_EQ(share_of(wide[0], wide), 2u) << "its own two";
  EXPECT_EQ(share_of(wide[1], wide), 3u) << "half of six";
}

TEST(Placement, ThisProcessMayRunSomewhere) {
  const Allowance mine = allowance();
  ASSERT_FALSE(mine.processors.empty());
  EXPECT_TRUE(std::ranges::is_sorted(mine.processors));
  EXPECT_GE(share_of(mine, std::vector<Allowance>{mine}), 1u);
}

}  // namespace
}  // namespace lockstep::trainer

#include "trainer/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace lockstep::trainer {
namespace {

TEST(Placement, RanksThatShareAllProcessorsDivideThem) {
  const Processors all = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(share_of(all, std::vector<Processors>{all}), 8u);
  EXPECT_EQ(share_of(all, std::vector<Processors>(4, all)), 2u);
  EXPECT_EQ(share_of(all, std::vector<Processors>(3, all)), 2u);
  EXPECT_EQ(share_of(all, std::vector<Processors>(16, all)), 1u) << "at least one";
}

TEST(Placement, ARankBoundToItsOwnProcessorsHasThemAll) {
  const std::vector<Processors> bound = {{0, 1}, {2, 3}, {4, 5, 6, 7}};
  EXPECT_EQ(share_of(bound[0], bound), 2u);
  EXPECT_EQ(share_of(bound[2], bound), 4u);
}

TEST(Placement, ThisProcessMayRunSomewhere) {
  const Processors allowed = allowed_processors();
  ASSERT_FALSE(allowed.empty());
  EXPECT_TRUE(std::ranges::is_sorted(allowed));
}

}  // namespace
}  // namespace lockstep::trainer

#include "comm/leaf_tree.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <initializer_list>

namespace lockstep::comm {
namespace {

TEST(LeafTree, RanksShareTheLeavesWithoutGapOrOverlap) {
  for (const std::size_t leaves : std::initializer_list<std::size_t>{1, 2, 8, 16, 64}) {
    for (std::size_t ranks = 1; ranks <= leaves; ++ranks) {
      std::size_t next = 0;
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        const LeafRange range = leaves_of_rank(rank, ranks, leaves);
        EXPECT_EQ(range.begin, next);
        EXPECT_GT(range.end, range.begin) << "rank " << rank << " of " << ranks;
        next = range.end;
      }
      EXPECT_EQ(next, leaves);
    }
  }
}

TEST(LeafTree, SubtreesCoverTheRangeAlignedAndAreMaximal) {
  constexpr std::size_t leaves = 32;
  for (std::size_t begin = 0; begin <= leaves; ++begin) {
    for (std::size_t end = begin; end <= leaves; ++end) {
      std::size_t next = begin;
      for (const Subtree& subtree : maximal_subtrees({begin, end})) {
        EXPECT_EQ(subtree.first, next);
        EXPECT_TRUE(std::has_single_bit(subtree.size));
        EXPECT_EQ(subtree.first % subtree.size, 0U);
        next = subtree.first + subtree.size;
        // Its parent reaches beyond the range: there is no larger one.
        const std::size_t parent = subtree.first / (2 * subtree.size) * (2 * subtree.size);
        EXPECT_TRUE(parent < begin || parent + 2 * subtree.size > end);
      }
      EXPECT_EQ(next, end);
    }
  }
}

TEST(LeafTree, SubtreesOfThreeRanks) {
  EXPECT_EQ(maximal_subtrees({0, 2}), (std::vector<Subtree>{{0, 2}}));
  EXPECT_EQ(maximal_subtrees({2, 5}), (std::vector<Subtree>{{2, 2}, {4, 1}}));
  EXPECT_EQ(maximal_subtrees({5, 8}), (std::vector<Subtree>{{5, 1}, {6, 2}}));
}

TEST(LeafTree, PresentIfAnyLeafIs) {
  constexpr std::array<std::uint8_t, 4> present{0, 0, 0, 1};
  EXPECT_FALSE(is_present({0, 2}, present));
  EXPECT_FALSE(is_present({2, 1}, present));
  EXPECT_TRUE(is_present({2, 2}, present));
  EXPECT_TRUE(is_present({0, 4}, present));
}

}  // namespace
}  // namespace lockstep::comm

#include "comm/tree_reduction.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "comm_main.hpp"
#include "serial_tree.hpp"

namespace lockstep::comm {
namespace {

using test::Floats;
using test::serial_sum;
using test::world;

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Puts this rank's partial sums for one pattern in their places, and into those that sum() must not
// read what would show.
void put_partials(TreeReduction& reduction, const std::vector<Floats>& leaves,
                  std::span<const std::uint8_t> present) {
  for (std::size_t i = 0; i < reduction.subtrees().size(); ++i) {
    const auto sum = serial_sum(reduction.subtrees()[i], leaves, present);
    if (sum) {
      std::ranges::copy(*sum, reduction.partial(i).begin());
    } else {
      std::ranges::fill(reduction.partial(i), 1e30F);
    }
  }
}

class TreeReductionSizes : public testing::TestWithParam<std::size_t> {};

// Many patterns in turn through one object, as batches of different shapes come: the bits of the
// serial tree on every rank, whichever rank raises the flag or none.
TEST_P(TreeReductionSizes, EqualsTheSerialTreeForEveryPattern) {
  const std::size_t elements = GetParam();
  for (const std::size_t leaves : std::initializer_list<std::size_t>{8, 16}) {
    TreeReduction reduction(world(), leaves, elements);
    const auto values = test::random_leaves(leaves, elements, 1);
    std::size_t raising = 0;  // size(): none
    for (const auto& present : test::presence_patterns(leaves)) {
      const Floats expected = serial_sum({0, leaves}, values, present).value_or(Floats(elements));
      put_partials(reduction, values, present);
      const auto [total, raised] = reduction.sum(present, raising == world().rank() ? 1 : 0);
      ASSERT_TRUE(same_bits(total, expected)) << leaves << " leaves, " << elements << " elements";
      ASSERT_EQ(raised, raising < world().size() ? 1U : 0U);
      raising = (raising + 1) % (world().size() + 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TreeReductionSizes,
                         testing::Values(0, 1, 15, 16, 17, 1000, 100003));

TEST(TreeReduction, FlagOfEachRankReachesAllWhateverIsPresent) {
  constexpr std::size_t leaves = 8;
  constexpr std::size_t elements = 3;  // fewer than there are shards
  TreeReduction reduction(world(), leaves, elements);
  const auto values = test::random_leaves(leaves, elements, 2);
  for (const auto& present : test::presence_patterns(leaves)) {
    put_partials(reduction, values, present);
    for (std::size_t raising = 0; raising <= world().size(); ++raising) {
      const unsigned own =
          (raising == world().rank() ? 1U : 0U) | (world().rank() == 0 ? 128U : 0U);
      const auto result = reduction.sum(present, own);
      ASSERT_EQ(result.raised, (raising < world().size() ? 1U : 0U) | 128U);
    }
  }
  EXPECT_THROW(reduction.sum(test::presence_patterns(leaves).front(), TreeReduction::most_flags),
               std::invalid_argument);
}

TEST(TreeReduction, LongMessagesAreCut) {
  constexpr std::size_t leaves = 8;
  constexpr std::size_t elements = 1003;
  const auto values = test::random_leaves(leaves, elements, 4);
  for (const std::size_t longest : std::initializer_list<std::size_t>{4, 60, 64, 400}) {
    TreeReduction reduction(world(), leaves, elements, {.longest_message = longest});
    for (const auto& present : test::presence_patterns(leaves)) {
      const Floats expected = serial_sum({0, leaves}, values, present).value_or(Floats(elements));
      put_partials(reduction, values, present);
      ASSERT_TRUE(same_bits(reduction.sum(present, false).total, expected));
    }
  }
}

// Long enough for MPI's rendezvous protocol, and a second object between the calls of the first.
TEST(TreeReduction, TwoAtOnceDoNotDisturbEachOther) {
  constexpr std::size_t leaves = 8;
  TreeReduction large(world(), leaves, 1U << 20);
  TreeReduction small(world(), leaves, 10);
  const auto large_values = test::random_leaves(leaves, 1U << 20, 5);
  const auto small_values = test::random_leaves(leaves, 10, 6);
  const std::vector<std::uint8_t> present(leaves, 1);
  const Floats large_expected = serial_sum({0, leaves}, large_values, present).value();
  const Floats small_expected = serial_sum({0, leaves}, small_values, present).value();
  put_partials(large, large_values, present);
  put_partials(small, small_values, present);
  for (int i = 0; i < 3; ++i) {
    const auto large_total = large.sum(present, false).total;
    const auto small_total = small.sum(present, false).total;
    ASSERT_TRUE(same_bits(large_total, large_expected));
    ASSERT_TRUE(same_bits(small_total, small_expected));
  }
}

TEST(TreeReduction, OneRankGetsItsOwnMemoryBack) {
  if (world().size() > 1) return;
  TreeReduction reduction(world(), 8, 5);
  EXPECT_EQ(reduction.sum(std::vector<std::uint8_t>(8, 1), false).total.data(),
            reduction.partial(0).data());
}

TEST(TreeReduction, WrongArgumentsThrowBeforeAnythingIsSent) {
  EXPECT_THROW(TreeReduction(world(), 6, 5), std::invalid_argument);
  if (world().size() > 2) {
    EXPECT_THROW(TreeReduction(world(), 2, 5), std::invalid_argument) << "more ranks than leaves";
  }
  TreeReduction reduction(world(), 8, 5);
  EXPECT_THROW(reduction.sum(std::vector<std::uint8_t>(7, 1), false), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::comm

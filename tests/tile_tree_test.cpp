// The trees that kernels walk over leaves, beside their definition. Compiled once, for whatever
// instruction set the compiler takes for granted: what is tested is the order of sums.
#include "nn/kernels/leaves-inl.hpp"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {
namespace {

// What sample `row` adds to element `place`: numbers whose sums are rounded, so that another order
// has other bits; and sums of -0 in between.
float term(std::size_t row, std::size_t place) {
  if (row % 7 < 2) return -0.0F;
  const float sign = (row + place) % 3 == 0 ? -1.0F : 1.0F;
  return sign / static_cast<float>(3 * row + place + 1);
}

template <std::size_t kNodesOfLeaf>
struct SumTerms {
  static constexpr std::size_t kNodes = kNodesOfLeaf;

  template <class Node>
  void operator()(std::size_t /*leaf*/, std::size_t begin, std::size_t end, Node& node) const {
    node.fill(-0.0F);
    for (std::size_t row = begin; row < end; ++row) {
      std::size_t place = 0;
      node.for_each([&](Vector<float>& s, std::size_t, std::size_t) LOCKSTEP_LAMBDA {
        s = hn::Add(s, hn::Set(Tag<float>(), term(row, place++)));
      });
    }
  }
};

// The definition: a leaf's samples in sequence, halves added to each other, and what has no samples
// left out.
std::optional<float> sum_of_tree(std::span<const std::size_t> bounds, std::size_t place) {
  if (bounds.size() == 2) {
    if (bounds[0] == bounds[1]) return std::nullopt;
    float sum = -0.0F;
    for (std::size_t row = bounds[0]; row < bounds[1]; ++row) sum += term(row, place);
    return sum;
  }
  const std::size_t half = bounds.size() / 2;
  const auto left = sum_of_tree(bounds.first(half + 1), place);
  const auto right = sum_of_tree(bounds.subspan(half), place);
  if (!left || !right) return left ? left : right;
  return *left + *right;
}

template <std::size_t kRows, std::size_t kVectors>
void expect_tree(std::span<const std::size_t> bounds, Tile<float, kRows, kVectors>& node) {
  std::size_t place = 0;
  node.for_each([&](Vector<float>& s, std::size_t, std::size_t) LOCKSTEP_LAMBDA {
    const float expected = sum_of_tree(bounds, place).value_or(0.0F);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(hn::GetLane(s)), std::bit_cast<std::uint32_t>(expected))
        << kRows << "x" << kVectors << ", register " << place;
    ++place;
  });
}

template <std::size_t kRows, std::size_t kVectors, std::size_t kNodes>
void expect_tree_of(std::span<const std::size_t> bounds) {
  const LeafRows leaves(bounds);
  Tile<float, kRows, kVectors> node;
  sum_leaves(leaves, SumTerms<kNodes>(), node);
  expect_tree(bounds, node);
  Tile<float, kRows, kVectors> nodes[kMaxTreeLevels + 1];
  const bool any = sum_leaves_in_memory(leaves, 0, leaves.count(), SumTerms<kNodes>(), nodes);
  EXPECT_EQ(any, bounds.front() < bounds.back());
  if (!any) nodes[0].clear();
  expect_tree(bounds, nodes[0]);
}

// Leaves of any length, also without a sample, by a small generator of numbers.
std::vector<std::size_t> leaves_of(std::size_t count, std::uint32_t seed) {
  std::vector<std::size_t> bounds{seed % 5};
  for (std::size_t l = 0; l < count; ++l) {
    seed = seed * 1664525u + 1013904223u;
    bounds.push_back(bounds.back() + (seed >> 28 < 6 ? 0 : seed >> 28));
  }
  return bounds;
}

TEST(TileTree, IsThatOfItsDefinitionBitByBit) {
  for (const std::size_t count : {1u, 2u, 4u, 8u, 16u, 64u}) {
    for (std::uint32_t seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE(testing::Message() << count << " leaves, seed " << seed);
      const auto bounds = leaves_of(count, seed);
      expect_tree_of<kTileRows, kTileVectors, 1>(bounds);
      expect_tree_of<kTileRows / 2, kTileVectors, 1>(bounds);
      expect_tree_of<kTileRows / 2, kTileVectors, 2>(bounds);
      expect_tree_of<3, 1, 1>(bounds);
      expect_tree_of<1, 1, 2>(bounds);
    }
  }
}

TEST(TileTree, WithoutSamplesIsZero) {
  const std::vector<std::size_t> bounds(17, 5);
  expect_tree_of<kTileRows, kTileVectors, 1>(bounds);
  expect_tree_of<1, 1, 1>(bounds);
}

// One leaf alone has all registers; the smaller a node, the more leaves find room.
TEST(TileTree, HasAsManyLeavesAtOnceAsRegistersAllow) {
  constexpr std::size_t kAll = kTileRows * kTileVectors;
  static_assert(leaves_at_once(kAll, 1) == 1);
  static_assert(leaves_at_once(kAll / 2, 1) == 2);
  static_assert(leaves_at_once(kAll / 2, 2) == 1);
  static_assert(leaves_at_once(kAll / 4, 1) == 8);
  static_assert(leaves_at_once(1, 1) == kMostLeavesAtOnce);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

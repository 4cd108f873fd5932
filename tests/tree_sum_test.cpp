#include "comm/tree_sum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "serial_tree.hpp"

namespace lockstep::comm {
namespace {

using test::Floats;
using test::serial_sum;

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The whole root, chunk by chunk; zeros if it is absent.
void finish(TreeSum& tree, Floats& total) {
  Floats buffer(chunk);
  for (std::size_t begin = 0; begin < total.size(); begin += chunk) {
    const std::size_t count = std::min(chunk, total.size() - begin);
    const float* sum = tree.at({0, tree.leaves()}, begin, count, buffer.data());
    for (std::size_t i = 0; i < count; ++i) total[begin + i] = sum == nullptr ? 0.0F : sum[i];
  }
}

// However the leaves are divided among ranks, finishing the tree from the subtrees' sums gives the
// bits of the whole tree, also where the inputs are not aligned.
TEST(TreeSum, EqualsTheWholeTreeForEveryDivision) {
  for (const std::size_t leaves : std::initializer_list<std::size_t>{1, 2, 8, 16}) {
    for (const std::size_t elements :
         std::initializer_list<std::size_t>{0, 1, 15, 1023, 1024, 1025, 5000}) {
      const auto values = test::random_leaves(leaves, elements, 3);
      for (const auto& present : test::presence_patterns(leaves)) {
        const Floats expected = serial_sum({0, leaves}, values, present).value_or(Floats(elements));
        for (std::size_t ranks = 1; ranks <= leaves; ++ranks) {
          TreeSum tree(leaves);
          std::vector<Floats> partials;  // one float further, to be off any alignment
          partials.reserve(2 * leaves);
          for (std::size_t rank = 0; rank < ranks; ++rank) {
            for (const Subtree& subtree : maximal_subtrees(leaves_of_rank(rank, ranks, leaves))) {
              auto partial = serial_sum(subtree, values, present);
              if (partial) {
                partial->insert(partial->begin(), 0.0F);
                partials.push_back(std::move(*partial));
              }
              tree.set(subtree, partial ? partials.back().data() + 1 : nullptr);
            }
          }
          Floats total(elements, -1.0F);
          finish(tree, total);
          ASSERT_TRUE(same_bits(total, expected))
              << leaves << " leaves, " << elements << " elements, " << ranks << " ranks";
        }
      }
    }
  }
}

TEST(TreeSum, EqualsTheWholeTreeForEveryPatternOfEightLeaves) {
  constexpr std::size_t leaves = 8;
  constexpr std::size_t elements = 3;
  const auto values = test::random_leaves(leaves, elements, 4);
  TreeSum tree(leaves);
  for (unsigned bits = 0; bits < 1U << leaves; ++bits) {
    std::vector<std::uint8_t> present(leaves);
    for (std::size_t l = 0; l < leaves; ++l) {
      present[l] = static_cast<std::uint8_t>((bits >> l) % 2);
      tree.set({l, 1}, present[l] != 0 ? values[l].data() : nullptr);
    }
    Floats total(elements, -1.0F);
    finish(tree, total);
    const Floats expected = serial_sum({0, leaves}, values, present).value_or(Floats(elements));
    ASSERT_TRUE(same_bits(total, expected)) << "pattern " << bits;
  }
}

// Where one of the terms stands, whichever it is.
TEST(TreeSum, WritesTheSumOverAnyOfItsTerms) {
  constexpr std::size_t leaves = 4;
  constexpr std::size_t elements = 2500;
  for (const auto& present : test::presence_patterns(leaves)) {
    for (std::size_t own = 0; own < leaves; ++own) {
      auto values = test::random_leaves(leaves, elements, 5);
      const auto expected = serial_sum({0, leaves}, values, present);
      if (!expected) continue;
      TreeSum tree(leaves);
      std::size_t terms = 0;
      for (std::size_t l = 0; l < leaves; ++l) {
        tree.set({l, 1}, present[l] != 0 ? values[l].data() : nullptr);
        terms += present[l];
      }
      EXPECT_EQ(tree.terms({0, leaves}), terms);
      tree.write({0, leaves}, 0, elements, values[own].data());
      ASSERT_TRUE(same_bits(values[own], *expected)) << "term " << own;
    }
  }
}

TEST(TreeSum, LeavesMustBeAPowerOfTwo) {
  EXPECT_THROW(TreeSum(0), std::invalid_argument);
  EXPECT_THROW(TreeSum(6), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::comm

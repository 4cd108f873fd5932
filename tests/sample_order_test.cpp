#include "datasets/sample_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <stdexcept>

#include "datasets/sha256.hpp"

namespace lockstep::datasets {
namespace {

std::vector<std::uint32_t> identity(std::size_t n) {
  std::vector<std::uint32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}

TEST(Permutation, HoldsEveryRowOnce) {
  for (const std::size_t n : {0u, 1u, 2u, 3u, 1000u}) {
    for (std::uint64_t epoch = 0; epoch < 5; ++epoch) {
      auto order = permutation(n, 1, Purpose::shuffle, epoch);
      std::sort(order.begin(), order.end());
      EXPECT_EQ(order, identity(n));
    }
  }
}

// Several draws at a time, and with so many rows one now and then whose first word may be rejected.
TEST(Permutation, SwapsWithSingleDraws) {
  for (const std::uint32_t n : {1u, 2u, 255u, 256u, 257u, 60000u}) {
    for (std::uint64_t epoch = 0; epoch < 20; ++epoch) {
      auto order = identity(n);
      for (std::uint32_t i = n; i-- > 1;) {
        std::swap(order[i], order[uniform_below(i + 1, 5, Purpose::shuffle, epoch, i)]);
      }
      ASSERT_EQ(permutation(n, 5, Purpose::shuffle, epoch), order) << n << ", epoch " << epoch;
    }
  }
}

// These bits are part of every result of every run: they may not change, on any platform.
TEST(Permutation, IsTheRecordedOne) {
  EXPECT_EQ(permutation(10, 1, Purpose::shuffle, 0),
            (std::vector<std::uint32_t>{3, 8, 0, 9, 2, 4, 6, 1, 5, 7}));
  Sha256 sha;
  const auto large = permutation(60000, 12345678901234567890u, Purpose::shuffle, 7);
  sha.update(std::as_bytes(std::span(large)));  // little-endian
  EXPECT_EQ(sha.hex_digest(), "634a70a31014b5ac85a28f860b8993e2044e0ef48f8d0d0f2dbd45ab3ff3f31d");
}

TEST(Permutation, IsAFunctionOfAllItsArguments) {
  const auto order = permutation(100, 1, Purpose::shuffle, 3);
  EXPECT_EQ(order, permutation(100, 1, Purpose::shuffle, 3));
  EXPECT_NE(order, permutation(100, 2, Purpose::shuffle, 3));
  EXPECT_NE(order, permutation(100, 1 + (std::uint64_t{1} << 32), Purpose::shuffle, 3));
  EXPECT_NE(order, permutation(100, 1, Purpose::split, 3));
  EXPECT_NE(order, permutation(100, 1, Purpose::shuffle, 4));
  EXPECT_NE(order, permutation(100, 1, Purpose::shuffle, 3 + (std::uint64_t{1} << 32)));
}

// Every row is as often at every place. Rows and columns of the table of counts have fixed sums:
// the sum below is n / (n-1) times chi-squared with (n-1)^2 degrees of freedom. The limit is 6
// standard deviations of that, which are sqrt(2 * freedom).
TEST(Permutation, IsUniform) {
  constexpr std::size_t n = 12, trials = 24000;
  std::vector<double> counts(n * n, 0.0);
  for (std::uint64_t epoch = 0; epoch < trials; ++epoch) {
    const auto order = permutation(n, 5, Purpose::shuffle, epoch);
    for (std::size_t place = 0; place < n; ++place) counts[place * n + order[place]] += 1.0;
  }
  constexpr double expected = static_cast<double>(trials) / n;
  double chi_squared = 0.0;
  for (const double count : counts) {
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  constexpr double freedom = (n - 1) * (n - 1);
  EXPECT_NEAR(chi_squared * (n - 1) / n, freedom, 6.0 * std::sqrt(2.0 * freedom));
}

TEST(Permutation, RefusesMoreRowsThanItCanNumber) {
  EXPECT_THROW(permutation(std::size_t{1} << 32, 1, Purpose::shuffle, 0), std::length_error);
}

// With bound 3 * 2^30 every fourth word is rejected: multiply-shift alone would make every third
// result twice as likely as the others.
TEST(UniformBelow, IsUnbiasedWhereWordsAreRejected) {
  constexpr std::uint32_t bound = 3u << 30;
  constexpr std::uint32_t draws = 90000;
  std::vector<double> thirds(3, 0.0), residues(3, 0.0);
  for (std::uint32_t position = 0; position < draws; ++position) {
    const std::uint32_t value = uniform_below(bound, 9, Purpose::shuffle, 0, position);
    ASSERT_LT(value, bound);
    thirds[value >> 30] += 1.0;
    residues[value % 3] += 1.0;
  }
  // Each count is binomial; 5 standard deviations.
  const double limit = 5.0 * std::sqrt(draws * (1.0 / 3.0) * (2.0 / 3.0));
  for (const double count : thirds) EXPECT_NEAR(count, draws / 3.0, limit);
  for (const double count : residues) EXPECT_NEAR(count, draws / 3.0, limit);
}

TEST(UniformBelow, KnowsTheSmallestAndLargestBound) {
  for (std::uint32_t position = 0; position < 100; ++position) {
    EXPECT_EQ(uniform_below(1, 1, Purpose::shuffle, 0, position), 0u);
    EXPECT_LT(
        uniform_below(std::numeric_limits<std::uint32_t>::max(), 1, Purpose::shuffle, 0, position),
        std::numeric_limits<std::uint32_t>::max());
  }
}

TEST(Split, IsDisjointAscendingAndCovers) {
  for (const std::size_t n : {0u, 1u, 2u, 3u, 10u, 1003u}) {
    for (const double fraction : {0.0, 0.01, 0.1, 0.5, 0.99}) {
      const Split parts = split(n, fraction, 3);
      EXPECT_TRUE(std::is_sorted(parts.train.begin(), parts.train.end()));
      EXPECT_TRUE(std::is_sorted(parts.validation.begin(), parts.validation.end()));
      std::vector<std::uint32_t> all = parts.train;
      all.insert(all.end(), parts.validation.begin(), parts.validation.end());
      std::sort(all.begin(), all.end());
      EXPECT_EQ(all, identity(n)) << n << " " << fraction;
      EXPECT_EQ(parts.train.empty(), n == 0);
      EXPECT_EQ(parts.validation.empty(), n < 2 || fraction == 0.0);
    }
  }
}

TEST(Split, HoldsOutTheFractionAskedFor) {
  EXPECT_EQ(split(60000, 0.1, 1).validation.size(), 6000u);
  EXPECT_EQ(split(1003, 0.25, 1).validation.size(), 251u);  // 250.75
  EXPECT_EQ(split(10, 0.25, 1).validation.size(), 3u);      // a half rounds up
  EXPECT_NE(split(1000, 0.1, 1).validation, split(1000, 0.1, 2).validation);
}

TEST(Split, RefusesAFractionThatIsNone) {
  for (const double fraction : {-0.1, 1.0, 2.0, std::nan("")}) {
    EXPECT_THROW(split(10, fraction, 1), std::invalid_argument) << fraction;
  }
}

}  // namespace
}  // namespace lockstep::datasets

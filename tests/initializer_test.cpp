#include "nn/initializer.hpp"

#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include <cmath>
#include <vector>

namespace lockstep::nn {
namespace {

std::vector<double> values(const InitialValues& how, std::uint64_t seed = 1,
                           std::size_t tensor = 0) {
  std::vector<double> weights(how.inputs * how.outputs);
  initialize<double>(how, seed, tensor, weights);
  return weights;
}

double mean(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x;
  return sum / static_cast<double>(v.size());
}

double deviation(const std::vector<double>& v) {
  const double m = mean(v);
  double sum = 0;
  for (const double x : v) sum += (x - m) * (x - m);
  return std::sqrt(sum / static_cast<double>(v.size()));
}

// Means of n values lie within 5 deviations / sqrt(n) but once in a million; deviations likewise.
void expect_moments(const std::vector<double>& v, double expected_deviation) {
  const double spread = 5 / std::sqrt(static_cast<double>(v.size()));
  EXPECT_NEAR(mean(v), 0, spread * expected_deviation);
  EXPECT_NEAR(deviation(v), expected_deviation, spread * expected_deviation);
}

TEST(Initializer, HasTheDeviationOfItsPaper) {
  expect_moments(values({Initializer::he, 0, 200, 300}), std::sqrt(2.0 / 200));
  expect_moments(values({Initializer::xavier, 0, 200, 300}), std::sqrt(2.0 / 500));
  expect_moments(values({Initializer::normal, 0.3, 200, 300}), 0.3);
  expect_moments(values({Initializer::uniform, 0.3, 200, 300}), 0.3 / std::sqrt(3.0));
}

TEST(Initializer, ZeroAndConstant) {
  for (const double w : values({Initializer::zero, 1, 5, 7})) EXPECT_EQ(w, 0);
  for (const double w : values({Initializer::constant, 0.25, 5, 7})) EXPECT_EQ(w, 0.25);
}

TEST(Initializer, UniformStaysWithinItsBounds) {
  const double bound = std::sqrt(6.0 / 500);
  for (const double w : values({Initializer::xavier, 0, 200, 300})) EXPECT_LT(std::abs(w), bound);
}

TEST(Initializer, DependsOnSeedAndTensorAlone) {
  const InitialValues how{Initializer::he, 0, 10, 10};
  EXPECT_EQ(values(how, 1, 2), values(how, 1, 2));
  EXPECT_NE(values(how, 1, 2), values(how, 2, 2));
  EXPECT_NE(values(how, 1, 2), values(how, 1, 3));
}

TEST(Initializer, HasTheSameBitsForAnyNumberOfThreads) {
  const InitialValues how{Initializer::he, 0, 300, 200};  // many parts
  const auto with_threads = [&](int threads) {
    std::vector<double> weights;
    tbb::task_arena(threads).execute([&] { weights = values(how); });
    return weights;
  };
  EXPECT_EQ(with_threads(1), with_threads(4));
}

TEST(NormalQuantile, InvertsTheDistributionFunction) {
  // The distribution function through erfc, whose relative error is a few units: what that does to
  // z is bounded through the density.
  for (const double p : {1e-12, 1e-6, 0.001, 0.02, 0.075, 0.3, 0.5, 0.6, 0.925, 0.99, 1 - 1e-9}) {
    const double z = normal_quantile(p);
    EXPECT_NEAR(0.5 * std::erfc(-z / std::sqrt(2.0)), p, 1e-13 * p + 1e-16) << p;
  }
}

}  // namespace
}  // namespace lockstep::nn

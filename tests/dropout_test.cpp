#include "nn/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kWidth = 30;

Matrix<float> ones(std::size_t rows) {
  Matrix<float> x(rows, kWidth);
  for (std::size_t m = 0; m < rows; ++m) std::fill_n(x.view().row(m), kWidth, 1.0f);
  return x;
}

std::vector<float> forward(const Dropout<float>& layer, const Pass& pass, std::size_t rows) {
  const auto x = ones(rows);
  Matrix<float> y(rows, kWidth);
  layer.forward(pass, {}, x.view(), y.view(), {});
  std::vector<float> values;
  for (std::size_t m = 0; m < rows; ++m) {
    values.insert(values.end(), y.view().row(m), y.view().row(m) + kWidth);
  }
  return values;
}

Pass training(std::uint64_t step, std::size_t first_sample = 0) {
  return {.training = true, .seed = 5, .step = step, .first_sample = first_sample};
}

TEST(Dropout, KeptUnitsAreScaledAndTheRestAreZero) {
  const double rate = 0.3;
  const auto y = forward(Dropout<float>(kWidth, 1, rate), training(1), 2000);
  std::size_t kept = 0;
  for (const float v : y) {
    if (v != 0) {
      EXPECT_EQ(v, static_cast<float>(1 / (1 - rate)));
      ++kept;
    }
  }
  // Within five deviations of the binomial.
  const double n = static_cast<double>(y.size());
  EXPECT_NEAR(static_cast<double>(kept) / n, 1 - rate, 5 * std::sqrt(rate * (1 - rate) / n));
}

TEST(Dropout, MaskIsTheSameHoweverTheBatchIsCut) {
  const Dropout<float> layer(kWidth, 1, 0.5);
  const auto whole = forward(layer, training(4), 20);
  for (const std::size_t cut : {1u, 7u, 19u}) {
    auto parts = forward(layer, training(4), cut);
    const auto rest = forward(layer, training(4, cut), 20 - cut);
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_EQ(parts, whole) << cut;
  }
}

TEST(Dropout, MaskDependsOnStepLayerAndSeed) {
  const auto y = forward(Dropout<float>(kWidth, 1, 0.5), training(1), 20);
  EXPECT_NE(forward(Dropout<float>(kWidth, 1, 0.5), training(2), 20), y);
  EXPECT_NE(forward(Dropout<float>(kWidth, 2, 0.5), training(1), 20), y);
  EXPECT_NE(forward(Dropout<float>(kWidth, 1, 0.5), {.training = true, .seed = 6, .step = 1}, 20),
            y);
}

TEST(Dropout, EvaluationPassesEverythingOn) {
  for (const float v : forward(Dropout<float>(kWidth, 1, 0.5), {}, 20)) EXPECT_EQ(v, 1.0f);
}

TEST(Dropout, BackwardHasTheMaskOfForward) {
  const Dropout<float> layer(kWidth, 1, 0.5);
  const auto y = forward(layer, training(9), 10);
  auto d_y = ones(10);
  Matrix<float> d_x(10, kWidth);
  layer.backward(training(9), {}, {}, {}, d_y.view(), d_x.view(), {}, {});
  for (std::size_t m = 0; m < 10; ++m) {
    for (std::size_t j = 0; j < kWidth; ++j) {
      EXPECT_EQ(d_x.view().row(m)[j], y[m * kWidth + j]);
    }
  }
}

}  // namespace
}  // namespace lockstep::nn

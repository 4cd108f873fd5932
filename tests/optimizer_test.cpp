// Each rule against its formula written out, over several steps, and on a function whose minimum is
// known.
#include "nn/optimizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kCount = 21;

ParameterLayout layout() {
  ParameterLayout layout;
  layout.add("0.weight", {3, 7}, false);
  layout.add("0.bias", {3}, true);
  return layout;
}

// How one parameter moves: (t, w, g, scratch of two moments) -> w.
using Formula = std::function<double(double, double, double, double (&)[2])>;

void expect_formula(const OptimizerOptions& options, const Formula& formula) {
  const ParameterLayout tensors = layout();
  Optimizer<double> optimizer(tensors, options);
  AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
  test::fill_uniform(w.span().first(kCount), 1);
  std::vector<double> expected(w.data(), w.data() + kCount);
  std::vector<std::array<double, 2>> moments(kCount, {0, 0});
  for (std::uint64_t t = 1; t <= 7; ++t) {
    test::fill_uniform(g.span().first(kCount), 10 + t);
    double norm = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      const double mean = g.data()[i] / 4;
      norm += mean * mean;
      double scratch[2] = {moments[i][0], moments[i][1]};
      expected[i] = formula(static_cast<double>(t), expected[i], mean, scratch);
      moments[i] = {scratch[0], scratch[1]};
    }
    EXPECT_NEAR(optimizer.mean_gradient_squares(4, g.span()), norm, 1e-14 * norm);
    optimizer.update(t, 4, w.span(), g.span());
    for (std::size_t i = 0; i < kCount; ++i) {
      // A few dozen roundings a step.
      ASSERT_NEAR(w.data()[i], expected[i], 1e-14) << "step " << t << ", parameter " << i;
    }
  }
  for (std::size_t i = kCount; i < round_up(kCount, kLanes); ++i) {
    EXPECT_EQ(w.data()[i], 0) << "padding moved";
  }
}

TEST(Optimizer, Sgd) {
  expect_formula({.rule = UpdateRule::sgd, .learning_rate = 0.3},
                 [](double, double w, double g, double(&)[2]) { return w - 0.3 * g; });
}

// A gradient longer than the limit is scaled to it, before penalties; a shorter one is left alone.
TEST(Optimizer, ClippingScalesTheWholeGradient) {
  const ParameterLayout tensors = layout();
  for (const double limit : {0.5, 1e3}) {
    Optimizer<double> optimizer(
        tensors, {.rule = UpdateRule::sgd, .learning_rate = 0.3, .l2 = 0.1, .clip_norm = limit});
    AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
    test::fill_uniform(w.span().first(kCount), 1);
    test::fill_uniform(g.span().first(kCount), 2);
    const std::vector<double> before(w.data(), w.data() + kCount);
    double squares = 0;
    for (std::size_t i = 0; i < kCount; ++i) squares += g.data()[i] * g.data()[i] / 16;
    const double scale = std::min(1.0, limit / (std::sqrt(squares) + 1e-6));
    ASSERT_EQ(scale < 1, limit < 1);
    optimizer.update(1, 4, w.span(), g.span());
    for (std::size_t i = 0; i < kCount; ++i) {
      const double expected = before[i] - 0.3 * (scale * g.data()[i] / 4 + 0.1 * before[i]);
      ASSERT_NEAR(w.data()[i], expected, 1e-14) << i;
    }
  }
}

TEST(Optimizer, Momentum) {
  expect_formula({.rule = UpdateRule::momentum, .learning_rate = 0.3, .momentum = 0.8},
                 [](double, double w, double g, double(&m)[2]) {
                   m[0] = 0.8 * m[0] + g;
                   return w - 0.3 * m[0];
                 });
}

TEST(Optimizer, AveragedMomentum) {
  expect_formula(
      {.rule = UpdateRule::momentum, .learning_rate = 0.3, .momentum = 0.8, .averaged = true},
      [](double, double w, double g, double(&m)[2]) {
        m[0] = 0.8 * m[0] + 0.2 * g;
        return w - 0.3 * m[0];
      });
}

TEST(Optimizer, Adagrad) {
  expect_formula({.rule = UpdateRule::adagrad, .learning_rate = 0.3},
                 [](double, double w, double g, double(&m)[2]) {
                   m[0] += g * g;
                   return w - 0.3 * g / (std::sqrt(m[0]) + 1e-10);
                 });
}

TEST(Optimizer, RmspropWithEpsilonOutsideAndInsideTheRoot) {
  for (const bool inside : {false, true}) {
    expect_formula({.rule = UpdateRule::rmsprop,
                    .learning_rate = 0.1,
                    .decay = 0.9,
                    .epsilon = 0.01,
                    .epsilon_inside_root = inside},
                   [inside](double, double w, double g, double(&m)[2]) {
                     m[0] = 0.9 * m[0] + 0.1 * g * g;
                     const double root = inside ? std::sqrt(m[0] + 0.01) : std::sqrt(m[0]) + 0.01;
                     return w - 0.1 * g / root;
                   });
  }
}

TEST(Optimizer, AdamCorrectsItsBias) {
  expect_formula({.rule = UpdateRule::adam, .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95},
                 [](double t, double w, double g, double(&m)[2]) {
                   m[0] = 0.8 * m[0] + 0.2 * g;
                   m[1] = 0.95 * m[1] + 0.05 * g * g;
                   const double mean = m[0] / (1 - std::pow(0.8, t));
                   const double square = m[1] / (1 - std::pow(0.95, t));
                   return w - 0.1 * mean / (std::sqrt(square) + 1e-8);
                 });
}

TEST(Optimizer, PenaltiesAreForWeightsUnlessAskedForBiases) {
  for (const bool biases : {false, true}) {
    const ParameterLayout tensors = layout();
    Optimizer<double> optimizer(tensors, {.rule = UpdateRule::sgd,
                                          .learning_rate = 1,
                                          .l1 = 0.25,
                                          .l2 = 0.5,
                                          .penalise_biases = biases});
    AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
    const std::size_t bias = tensors.tensors()[1].offset;
    w.data()[0] = 2;
    w.data()[1] = -2;
    w.data()[bias] = 2;
    EXPECT_EQ(optimizer.mean_gradient_squares(1, g.span()), 0);
    optimizer.update(1, 1, w.span(), g.span());
    EXPECT_EQ(w.data()[0], 2 - (0.25 + 0.5 * 2));
    EXPECT_EQ(w.data()[1], -2 + (0.25 + 0.5 * 2));
    EXPECT_EQ(w.data()[2], 0);
    EXPECT_EQ(w.data()[bias], biases ? 2 - (0.25 + 0.5 * 2) : 2);
  }
}

// f(w) = sum_i c_i (w_i - 1)^2 / 2 with curvatures c from 1 to 2: every rule walks to w = 1.
TEST(Optimizer, EveryRuleFindsTheMinimumOfABowl) {
  const std::vector<std::pair<UpdateRule, double>> rules = {
      {UpdateRule::sgd, 0.5},       {UpdateRule::momentum, 0.1}, {UpdateRule::adagrad, 0.5},
      {UpdateRule::rmsprop, 0.002}, {UpdateRule::adam, 0.05},    {UpdateRule::lamb, 0.002}};
  for (const auto& [rule, rate] : rules) {
    const ParameterLayout tensors = layout();
    Optimizer<float> optimizer(tensors, {.rule = rule, .learning_rate = rate});
    AlignedBuffer<float> w(tensors.buffer_size()), g(tensors.buffer_size());
    test::fill_uniform(w.span().first(kCount), 3);
    for (std::uint64_t t = 1; t <= 3000; ++t) {
      for (std::size_t i = 0; i < kCount; ++i) {
        const float curvature = 1 + static_cast<float>(i) / kCount;
        g.data()[i] = curvature * (w.data()[i] - 1);
      }
      optimizer.update(t, 1, w.span(), g.span());
    }
    for (std::size_t i = 0; i < kCount; ++i) {
      // rmsprop steps by the learning rate whatever the gradient, so it hovers that far away.
      EXPECT_NEAR(w.data()[i], 1, 2 * 0.002) << kUpdateRuleNames[static_cast<std::size_t>(rule)];
    }
  }
}

}  // namespace
}  // namespace lockstep::nn

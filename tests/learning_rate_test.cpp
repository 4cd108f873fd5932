// The factor of each update: against the formulas, at their ends, and in an optimizer's step.
#include "nn/learning_rate.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "nn/optimizer.hpp"

namespace lockstep::nn {
namespace {

TEST(LearningRateSchedule, IsConstantByDefault) {
  const LearningRateSchedule constant;
  for (const std::uint64_t step : {1, 2, 1000000}) EXPECT_EQ(constant.factor(step), 1);
}

TEST(LearningRateSchedule, FollowsTheFormulas) {
  for (const std::uint64_t warmup : {0, 1, 7}) {
    for (const double end : {0.0, 0.25, 1.0}) {
      constexpr std::uint64_t kUpdates = 23;
      const LearningRateSchedule linear{ScheduleShape::linear, end, warmup, kUpdates};
      const LearningRateSchedule cosine{ScheduleShape::cosine, end, warmup, kUpdates};
      for (std::uint64_t t = 1; t <= kUpdates; ++t) {
        const double rise = static_cast<double>(t) / static_cast<double>(warmup);
        const double f =
            static_cast<double>(t - 1 - warmup) / static_cast<double>(kUpdates - warmup);
        const double wave = (1 + std::cos(std::numbers::pi * f)) / 2;
        EXPECT_NEAR(linear.factor(t), t <= warmup ? rise : end + (1 - end) * (1 - f), 1e-15) << t;
        EXPECT_NEAR(cosine.factor(t), t <= warmup ? rise : end + (1 - end) * wave, 1e-15) << t;
      }
    }
  }
}

TEST(LearningRateSchedule, BeginsWholeAndNeitherRisesAgainNorFallsBelowItsEnd) {
  for (const ScheduleShape shape : {ScheduleShape::linear, ScheduleShape::cosine}) {
    const LearningRateSchedule schedule{shape, 0, 0, 100000};
    EXPECT_NEAR(schedule.factor(1), 1, 1e-15);
    for (std::uint64_t t = 2; t <= schedule.updates; ++t) {
      ASSERT_LE(schedule.factor(t), schedule.factor(t - 1) + 1e-15) << t;
      ASSERT_GT(schedule.factor(t), 0) << t;
    }
    EXPECT_EQ(schedule.factor(schedule.updates + 1), 0);
    EXPECT_EQ(schedule.factor(schedule.updates + 1), schedule.factor(2 * schedule.updates));
  }
}

// A sum of rounded terms, which another order of the same operations would change.
TEST(LearningRateSchedule, CosineHasTheSameBitsEverywhere) {
  const LearningRateSchedule cosine{ScheduleShape::cosine, 0, 0, 7};
  double sum = 0;
  for (std::uint64_t t = 1; t <= 7; ++t) sum = sum * 3 + cosine.factor(t);
  EXPECT_EQ(sum, 0x1.05958169866a3p+10);
}

TEST(LearningRateSchedule, ScalesAnOptimizersStep) {
  ParameterLayout layout;
  layout.add("0.weight", {1, kLanes}, false);
  Optimizer<double> optimizer(
      layout, {.rule = UpdateRule::sgd,
               .learning_rate = 0.5,
               .schedule = {ScheduleShape::linear, 0, /*warmup_updates=*/2, /*updates=*/6}});
  AlignedBuffer<double> w(layout.buffer_size()), g(layout.buffer_size());
  g.data()[0] = 1;
  double expected = 0;
  std::uint64_t step = 0;
  for (const double factor : {0.5, 1.0, 1.0, 0.75, 0.5, 0.25}) {
    optimizer.update(++step, 1, w.span(), g.span());
    expected -= 0.5 * factor;
    EXPECT_EQ(w.data()[0], expected) << step;
    EXPECT_EQ(optimizer.learning_rate_at(step), 0.5 * factor) << step;
  }
}

}  // namespace
}  // namespace lockstep::nn

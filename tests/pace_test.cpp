#include "trainer/pace.hpp"

#include <gtest/gtest.h>

#include "comm_main.hpp"

namespace lockstep::trainer {
namespace {

using comm::test::world;

// Rank r of R has waited for the others (R - 1 - r) seconds of ten, and for its samples r.
TEST(Pace, TellsOfAllRanks) {
  const double rank = static_cast<double>(world().rank());
  const double others = static_cast<double>(world().size() - 1);
  PaceMeter meter;
  meter.open_epoch(100);
  meter.add_step(30, 4, rank);
  meter.add_step(20, 6, 0);
  EXPECT_EQ(meter.epoch_samples(), 50u);
  EXPECT_EQ(meter.epoch_seconds(), 10);
  const Pace pace = meter.close_epoch(world(), 100 + others - rank);
  EXPECT_EQ(pace.samples_per_second, 5);
  EXPECT_EQ(pace.input_seconds, others);
  EXPECT_DOUBLE_EQ(pace.input_share, others / 10);
  EXPECT_DOUBLE_EQ(pace.wait_seconds, others / 2);
  EXPECT_DOUBLE_EQ(pace.wait_share, others / 20);
  EXPECT_EQ(pace.slowest_rank, world().size() - 1);
  // The lower middle one of 10 - others, …, 9, 10.
  const double middle = 10 - others + static_cast<double>((world().size() - 1) / 2);
  EXPECT_DOUBLE_EQ(pace.slowest_excess, 10 / middle - 1);
}

TEST(Pace, SumsEpochsButNotWhatIsBetweenThem) {
  PaceMeter meter;
  for (int epoch = 0; epoch < 3; ++epoch) {
    const double before = 10.0 * epoch;  // of which validation waited 7
    meter.open_epoch(before);
    meter.add_step(8, 5, 1);
    meter.close_epoch(world(), before + 3);
  }
  EXPECT_EQ(meter.samples(), 24u);
  EXPECT_EQ(meter.seconds(), 15);
  EXPECT_EQ(meter.input_seconds(), 3);
  EXPECT_DOUBLE_EQ(meter.wait_seconds(), 9);
}

TEST(Pace, OfNoStepIsZero) {
  PaceMeter meter;
  const Pace pace = meter.close_epoch(world(), 0);
  EXPECT_EQ(pace.samples_per_second, 0);
  EXPECT_EQ(pace.wait_share, 0);
  EXPECT_EQ(pace.slowest_excess, 0);
}

}  // namespace
}  // namespace lockstep::trainer

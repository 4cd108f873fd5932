#include "even_split.hpp"

#include <gtest/gtest.h>

namespace lockstep::test {
namespace {

// A piece every `piece_seconds`, for `seconds`.
PieceEnds steady(double piece_seconds, double seconds) {
  PieceEnds ends;
  for (int i = 1; i * piece_seconds <= seconds; ++i) ends.push_back(i * piece_seconds);
  return ends;
}

constexpr double kSeconds = 4, kStep = 0.1;

TEST(EvenSplit, LosesNothingOnCoresThatAreAlike) {
  const PieceEnds core = steady(0.001, kSeconds);
  EXPECT_NEAR(even_split({core, core}, kSeconds, kStep), 1, 0.03);
}

// Two cores of speeds 1 and 1/2: each does half of a step, which takes as long as the slower one's.
TEST(EvenSplit, GoesAtThePaceOfTheSlowestCore) {
  const double share = 2 * 0.5 / 1.5;
  EXPECT_NEAR(even_split({steady(0.001, kSeconds), steady(0.002, kSeconds)}, kSeconds, kStep),
              share, 0.03);
}

// Each core is slow half of the time, in turn: together they never are faster or slower.
TEST(EvenSplit, CoresThatAreSlowInTurnLoseAsMuch) {
  std::vector<PieceEnds> cores(2);
  for (std::size_t core = 0; core < 2; ++core) {
    for (double now = 0; now < kSeconds;) {
      const bool slow = static_cast<std::size_t>(now) % 2 == core;
      now += slow ? 0.002 : 0.001;
      cores[core].push_back(now);
    }
  }
  EXPECT_NEAR(even_split(cores, kSeconds, kStep), 2 * 0.5 / 1.5, 0.05);
}

TEST(EvenSplit, SaysNothingOfTooFewPieces) {
  EXPECT_EQ(even_split({steady(3, kSeconds), steady(3, kSeconds)}, kSeconds, 10), 0);
}

}  // namespace
}  // namespace lockstep::test

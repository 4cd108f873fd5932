#include "comm/detail/rounded.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace lockstep::comm::detail {
namespace {

std::vector<float> there_and_back(std::vector<float> values) {
  round_in_place(values.data(), values.size());
  expand_in_place(values.data(), values.size());
  return values;
}

TEST(Rounded, KeepsWhatHasEightBitsAndRoundsTiesToEven) {
  const std::vector<float> kept{
      0.0F, -0.0F, 1.0F, -1.5F, 0x1.fep100F, 0x1p-130F, std::numeric_limits<float>::infinity()};
  EXPECT_EQ(there_and_back(kept), kept);
  EXPECT_EQ(there_and_back({0x1.01p0F, 0x1.03p0F, 0x1.0101p0F, -0x1.01p0F}),
            (std::vector<float>{0x1p0F, 0x1.04p0F, 0x1.02p0F, -0x1p0F}));
  EXPECT_EQ(there_and_back({std::numeric_limits<float>::max()})[0],
            std::numeric_limits<float>::infinity());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(there_and_back({nan})[0]));
}

// Longer than what is held on the way.
TEST(Rounded, EveryElementIsRoundedOnce) {
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{1023}, std::size_t{2048}, std::size_t{5001}}) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i));
    const auto rounded = there_and_back(values);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_LE(std::abs(rounded[i] - values[i]), std::abs(values[i]) / 256);
      ASSERT_EQ(there_and_back({rounded[i]})[0], rounded[i]);
    }
  }
}

}  // namespace
}  // namespace lockstep::comm::detail

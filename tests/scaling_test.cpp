#include "datasets/scaling.hpp"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace lockstep::datasets {
namespace {

// Scales in use, and some that are awkward: subnormal and infinite floats, negative zeros.
const std::vector<double> kScales = {
    1.0,   1.0 / 255, 1.0 / 256, 2.0 / 255,           0.1, 1e-3, 3.0, -1.0, -1.0 / 255,
    1e-44, 1e37,      1e300,     0.003921568859368563};
const std::vector<double> kOffsets = {0.0, -0.5, -1.0, 1e-9, 33.3, -0.0};

// Lengths around those of vectors, and starts off their boundaries.
template <class T>
void expect_like_one_by_one(const Scaling& scaling, const std::vector<T>& stored) {
  for (std::size_t begin = 0; begin < std::min<std::size_t>(stored.size(), 5); ++begin) {
    for (std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{15}, std::size_t{16},
                              std::size_t{67}, stored.size() - begin}) {
      count = std::min(count, stored.size() - begin);
      const float untouched = 1234.5f;
      std::vector<float> real(count + 1, untouched);
      scaling.apply(stored.data() + begin, count, real.data());
      for (std::size_t i = 0; i < count; ++i) {
        const float expected = static_cast<float>(
            static_cast<double>(stored[begin + i]) * scaling.scale() + scaling.offset());
        ASSERT_EQ(std::bit_cast<std::uint32_t>(real[i]), std::bit_cast<std::uint32_t>(expected))
            << "stored " << +stored[begin + i] << ", scale " << scaling.scale() << ", offset "
            << scaling.offset();
      }
      EXPECT_EQ(real[count], untouched);
    }
  }
}

template <class T>
class ScalingOf : public testing::Test {};

using StoredTypes =
    testing::Types<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                   std::int32_t, std::uint64_t, std::int64_t, float, double>;
TYPED_TEST_SUITE(ScalingOf, StoredTypes);

// Each instruction set that Highway has here, one after the other; then its own choice again.
class Targets {
 public:
  Targets() : supported_(hwy::SupportedTargets()) {}
  ~Targets() { hwy::SetSupportedTargetsForTest(0); }

  template <class F>
  void for_each(const F& f) const {
    for (std::int64_t left = supported_; left != 0; left &= left - 1) {
      const std::int64_t target = left & -left;
      hwy::SetSupportedTargetsForTest(target);
      SCOPED_TRACE(hwy::TargetName(target));
      f();
    }
  }

 private:
  std::int64_t supported_;
};

TEST(Scaling, BytesHaveTheSameBitsWithEveryInstructionSet) {
  std::vector<std::uint8_t> stored(256);
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<std::uint8_t>(i);
  Targets().for_each([&] {
    const Scaling scaling(1.0 / 255, 0);
    EXPECT_TRUE(scaling.exact_in_float());
    expect_like_one_by_one(scaling, stored);
  });
}

TYPED_TEST(ScalingOf, RowsHaveTheBitsOfSingleValues) {
  using T = TypeParam;
  std::vector<T> stored;
  if constexpr (sizeof(T) == 1) {
    for (int value = 0; value < 256; ++value) stored.push_back(static_cast<T>(value));
  } else {
    for (int i = -100; i < 100; ++i) stored.push_back(static_cast<T>(7.3 * i));
    stored.push_back(std::numeric_limits<T>::max());
    stored.push_back(std::numeric_limits<T>::min());
    stored.push_back(std::numeric_limits<T>::max() / 3);
  }
  for (const double scale : kScales) {
    for (const double offset : kOffsets) {
      expect_like_one_by_one(Scaling(scale, offset), stored);
    }
  }
}

TEST(Scaling, ImagesTakeTheFastWayAndWhatItCannotDoDoesNot) {
  EXPECT_TRUE(Scaling(1.0 / 255, 0).exact_in_float());
  EXPECT_TRUE(Scaling(1.0, 0).exact_in_float());
  EXPECT_FALSE(Scaling(1.0 / 255, -0.5).exact_in_float());
  EXPECT_FALSE(Scaling(-1.0 / 255, 0).exact_in_float());  // of 0 it would make -0
}

TEST(Scaling, TheFastWayIsTakenOnlyWhereAllValuesAgree) {
  std::vector<std::uint8_t> stored(256);
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<std::uint8_t>(i);
  int fast = 0;
  for (int i = 1; i <= 3000; ++i) {
    const Scaling scaling(std::sqrt(static_cast<double>(i)) / 1000, 0);
    fast += scaling.exact_in_float() ? 1 : 0;
    std::vector<float> real(256);
    scaling.apply(stored.data(), stored.size(), real.data());
    for (std::size_t s = 0; s < 256; ++s) ASSERT_EQ(real[s], scaling(stored[s])) << i;
  }
  EXPECT_GT(fast, 2000);
}

}  // namespace
}  // namespace lockstep::datasets

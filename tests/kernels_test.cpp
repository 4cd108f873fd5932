// The kernels that work element by element against slow references, with tolerances derived from
// the number of roundings, and against each other: every instruction set must give the same bits.
// Products and sums over samples: product_test.cpp.
#include "nn/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "instruction_sets.hpp"
#include "moving_parameters.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

using test::bytes_of;
using test::fill_uniform;
using test::kAllRules;
using test::Moving;
using test::uniform_matrix;
using test::with_each_instruction_set;

template <class T>
class KernelsTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(KernelsTest, Types);

TYPED_TEST(KernelsTest, ActivationsAgreeWithTheirFormulas) {
  using T = TypeParam;
  const std::size_t cols = 37;
  const auto inputs = uniform_matrix<T>(9, cols, 8);
  const auto formula = [](Activation activation, double z) {
    switch (activation) {
      case Activation::sigmoid:
        return 1 / (1 + std::exp(-z));
      case Activation::tanh:
        return std::tanh(z);
      case Activation::relu:
        return std::max(z, 0.0);
      case Activation::leaky_relu:
        return z > 0 ? z : 0.25 * z;
      default:
        return z;
    }
  };
  for (const Activation activation : {Activation::sigmoid, Activation::tanh, Activation::relu,
                                      Activation::leaky_relu, Activation::softmax}) {
    std::vector<std::byte> first;
    with_each_instruction_set([&] {
      Matrix<T> z(9, cols);
      for (std::size_t i = 0; i < 9; ++i) {
        for (std::size_t j = 0; j < cols; ++j) z.view().row(i)[j] = 9 * inputs.view().row(i)[j];
      }
      const Matrix<T> before = [&] {
        Matrix<T> copy(9, cols);
        for (std::size_t i = 0; i < 9; ++i) std::copy_n(z.view().row(i), cols, copy.view().row(i));
        return copy;
      }();
      kernels<T>().activate(activation, T{0.25}, z.view());
      // Polynomials of a few units in the last place, sums of `cols` terms for softmax.
      const double tolerance = 48 * static_cast<double>(std::numeric_limits<T>::epsilon());
      for (std::size_t i = 0; i < 9; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < cols; ++j) {
          sum += std::exp(static_cast<double>(before.view().row(i)[j]));
        }
        for (std::size_t j = 0; j < cols; ++j) {
          const double in = static_cast<double>(before.view().row(i)[j]);
          const double expected =
              activation == Activation::softmax ? std::exp(in) / sum : formula(activation, in);
          EXPECT_NEAR(static_cast<double>(z.view().row(i)[j]), expected,
                      tolerance * std::max(std::abs(expected), 1e-3));
        }
      }
      const auto bytes = bytes_of(std::as_const(z).view());
      if (first.empty()) first = bytes;
      EXPECT_EQ(bytes, first) << name_of(activation) << ": bits differ between instruction sets";
    });
  }
}

TYPED_TEST(KernelsTest, ActivationsHoldFarFromZero) {
  using T = TypeParam;
  with_each_instruction_set([] {
    for (double size = 1; size < 1e6; size *= 1.07) {
      Matrix<T> z(1, 2);
      T* row = z.view().row(0);
      const auto apply = [&](Activation activation) {
        row[0] = static_cast<T>(size);
        row[1] = static_cast<T>(-size);
        kernels<T>().activate(activation, T{0}, z.view());
      };
      const double e = std::exp(-static_cast<double>(static_cast<T>(size)));
      // A polynomial of a few units, and subnormal numbers may be flushed to zero.
      const double relative = 8 * static_cast<double>(std::numeric_limits<T>::epsilon());
      const double least = static_cast<double>(std::numeric_limits<T>::min());
      apply(Activation::sigmoid);
      EXPECT_NEAR(static_cast<double>(row[0]), 1 / (1 + e), relative) << size;
      EXPECT_NEAR(static_cast<double>(row[1]), e / (1 + e), size * relative * e + least) << size;
      apply(Activation::tanh);
      EXPECT_NEAR(static_cast<double>(row[0]), std::tanh(size), relative) << size;
      EXPECT_EQ(row[1], -row[0]) << size;
      apply(Activation::softmax);
      EXPECT_NEAR(static_cast<double>(row[0]), 1 / (1 + e * e), relative) << size;
      EXPECT_NEAR(static_cast<double>(row[1]), e * e / (1 + e * e),
                  2 * size * relative * e * e + least)
          << size;
    }
  });
}

// The nearest of the two bfloat16 around x, by its definition; the even one of two that are as
// near. What is smaller than 2^-55 is zero.
float nearest_bfloat16(float x) {
  if (std::abs(x) < 0x1p-55f) return 0;
  const std::uint32_t low = std::bit_cast<std::uint32_t>(x) & 0xFFFF0000u;
  const double below = static_cast<double>(std::bit_cast<float>(low));
  const std::uint32_t high = low + 0x10000u;
  // Beyond the largest one, infinity stands where the next would be.
  const double above = std::isinf(std::bit_cast<float>(high))
                           ? std::copysign(0x1p128, static_cast<double>(x))
                           : static_cast<double>(std::bit_cast<float>(high));
  const double to_below = std::abs(static_cast<double>(x) - below);
  const double to_above = std::abs(above - static_cast<double>(x));
  if (to_below != to_above) return std::bit_cast<float>(to_below < to_above ? low : high);
  return std::bit_cast<float>(low >> 16 & 1 ? high : low);
}

TEST(Bfloat16, RoundsToTheNearestOnEveryInstructionSet) {
  std::vector<float> values = {0.0f,    -0.0f,    1.0f,      1.00390625f,     1.01171875f,
                               3.4e38f, -3.4e38f, 1e-40f,    3.3895314e38f,   0.1f,
                               -0.3f,   0x1p-55f, -0x1p-55f, 0x1.fffffep-56f, -0x1.fffffep-56f};
  for (std::uint32_t bits = 0x00000001u; bits < 0x7F7F0000u; bits += 0x00012345u) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(-values.back());
  }
  with_each_instruction_set([&] {
    Matrix<float> row(1, values.size() + 2);
    std::ranges::copy(values, row.view().row(0));
    row.view().row(0)[values.size()] = std::numeric_limits<float>::infinity();
    row.view().row(0)[values.size() + 1] = std::bit_cast<float>(0x7FFFFFFFu);  // a NaN
    kernels<float>().round_to_bfloat16(row.view());
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(row.view().row(0)[i]),
                std::bit_cast<std::uint32_t>(nearest_bfloat16(values[i])))
          << values[i];
    }
    EXPECT_TRUE(std::isinf(row.view().row(0)[values.size()]));
    EXPECT_TRUE(std::isnan(row.view().row(0)[values.size() + 1]));
    EXPECT_EQ(std::bit_cast<std::uint32_t>(row.view().row(0)[values.size() + 1]) & 0xFFFFu, 0u);
  });
}

TYPED_TEST(KernelsTest, TinyDerivativesAreZero) {
  using T = TypeParam;
  const T tiny = std::numeric_limits<T>::min() * 8;
  with_each_instruction_set([&] {
    for (const Activation activation : {Activation::sigmoid, Activation::tanh, Activation::relu,
                                        Activation::leaky_relu, Activation::softmax}) {
      Matrix<T> y(1, 3);
      Matrix<T> d_y(1, 3);
      for (const std::size_t j : {0u, 1u, 2u}) y.view().row(0)[j] = T(0.5);
      d_y.view().row(0)[0] = tiny;
      d_y.view().row(0)[1] = -tiny;
      kernels<T>().activation_backward(activation, T(0.5), std::as_const(y).view(), d_y.view());
      for (const std::size_t j : {0u, 1u, 2u})
        EXPECT_EQ(d_y.view().row(0)[j], 0) << name_of(activation);
    }
    Matrix<T> z(1, 3);
    z.view().row(0)[0] = std::is_same_v<T, float> ? T(80) : T(700);
    const std::int32_t label = 1;
    T loss = 0;
    Matrix<T> d_z(1, 3);
    kernels<T>().cross_entropy(std::as_const(z).view(), &label, &loss, d_z.view());
    EXPECT_EQ(d_z.view().row(0)[0], 1);
    EXPECT_EQ(d_z.view().row(0)[1], -1);
    EXPECT_EQ(d_z.view().row(0)[2], 0);
    EXPECT_EQ(loss, z.view().row(0)[0]);
  });
}

TYPED_TEST(KernelsTest, NotANumberComesThrough) {
  using T = TypeParam;
  constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
  with_each_instruction_set([] {
    for (const Activation activation : {Activation::sigmoid, Activation::tanh, Activation::relu,
                                        Activation::leaky_relu, Activation::softmax}) {
      Matrix<T> z(1, 3);
      z.view().row(0)[1] = kNan;
      kernels<T>().activate(activation, T{0.5}, z.view());
      EXPECT_TRUE(std::isnan(z.view().row(0)[1])) << name_of(activation);
    }
    for (const bool gradient : {false, true}) {
      Matrix<T> z(1, 3);
      Matrix<T> d_z(1, 3);
      z.view().row(0)[1] = kNan;
      const std::int32_t label = 2;
      T loss = 0;
      kernels<T>().cross_entropy(std::as_const(z).view(), &label, &loss,
                                 gradient ? d_z.view() : MatrixView<T>{});
      EXPECT_TRUE(std::isnan(loss));
      if (gradient) {
        EXPECT_TRUE(std::isnan(d_z.view().row(0)[0]));
      }
    }
  });
}

// A moment whose gradient has died out would end at a subnormal number, and stay there.
TYPED_TEST(KernelsTest, MomentsDieOut) {
  using T = TypeParam;
  AlignedBuffer<T> none(256);
  for (const UpdateRule rule : {UpdateRule::momentum, UpdateRule::rmsprop, UpdateRule::adam}) {
    with_each_instruction_set([&] {
      Moving<T> moving(rule);
      moving.u.l1 = moving.u.l2 = 0;
      for (int step = 0; step < 100'000; ++step) kernels<T>().update(moving.u, none.data(), 256);
      if (moving.u.moment1 != nullptr) {
        for (const T m : moving.m1.span()) ASSERT_EQ(m, 0);
      }
      if (moving.u.moment2 != nullptr) {
        for (const T m : moving.m2.span()) ASSERT_EQ(m, 0);
      }
    });
  }
}

TYPED_TEST(KernelsTest, MomentsOfLambDieOut) {
  using T = TypeParam;
  AlignedBuffer<T> none(256);
  with_each_instruction_set([&] {
    Moving<T> moving(UpdateRule::lamb);
    moving.u.l1 = moving.u.l2 = moving.u.weight_decay = 0;
    SquaredNorms norms;
    for (int step = 0; step < 100'000; ++step) {
      norms = kernels<T>().lamb_moments(moving.u, none.data(), 256);
    }
    for (const T m : moving.m1.span()) ASSERT_EQ(m, 0);
    for (const T m : moving.m2.span()) ASSERT_EQ(m, 0);
    EXPECT_EQ(norms.direction, 0);
    EXPECT_GT(norms.parameters, 0);
  });
}

// The formula, and that the second half moves in the direction whose norm the first has told.
TYPED_TEST(KernelsTest, LambsHalvesGoTogether) {
  using T = TypeParam;
  AlignedBuffer<T> g(256);
  fill_uniform(g.span(), 10);
  std::vector<std::byte> first;
  SquaredNorms first_norms;
  with_each_instruction_set([&] {
    Moving<T> moving(UpdateRule::lamb);
    const Moving<T> before(UpdateRule::lamb);
    const SquaredNorms norms = kernels<T>().lamb_moments(moving.u, g.data(), 256);
    EXPECT_TRUE(std::ranges::equal(moving.w.span(), before.w.span())) << "moved too early";
    kernels<T>().lamb_move(moving.u, 256);
    double parameters = 0;
    double direction = 0;
    for (std::size_t i = 0; i < 256; ++i) {
      const double w = static_cast<double>(before.w.data()[i]);
      const double mean = 0.9 * static_cast<double>(before.m1.data()[i]);
      const double l1 = w > 0 ? 0.01 : -0.01;
      const double gradient = static_cast<double>(g.data()[i]) / 3 + l1 + 0.1 * w;
      const double m = 1.25 * (mean + 0.1 * gradient);
      const double v = 1.5 * (0.99 * 0.5 + 0.01 * gradient * gradient);
      const double r = m / (std::sqrt(v) + 1e-8) + 0.05 * w;
      // Some twenty roundings of terms no larger than 2, as well as of the constants.
      const double allowed = 64 * static_cast<double>(std::numeric_limits<T>::epsilon());
      EXPECT_NEAR(static_cast<double>(moving.w.data()[i]), w - 0.1 * r, allowed) << i;
      parameters += w * w;
      direction += r * r;
    }
    // Each lane adds up sixteen squares, and lanes are added in four levels.
    const double allowed = 128 * static_cast<double>(std::numeric_limits<T>::epsilon());
    EXPECT_NEAR(norms.parameters, parameters, allowed * parameters);
    EXPECT_NEAR(norms.direction, direction, allowed * direction);
    if (first.empty()) {
      first = moving.bytes();
      first_norms = norms;
    }
    EXPECT_EQ(moving.bytes(), first);
    EXPECT_EQ(norms.parameters, first_norms.parameters);
    EXPECT_EQ(norms.direction, first_norms.direction);
  });
}

TYPED_TEST(KernelsTest, UpdatesAreTheSameBitsOnEveryInstructionSet) {
  using T = TypeParam;
  AlignedBuffer<T> g(256);
  fill_uniform(g.span(), 10);
  for (const UpdateRule rule : kAllRules) {
    std::vector<std::byte> first;
    double first_squares = 0;
    with_each_instruction_set([&] {
      Moving<T> moving(rule);
      kernels<T>().update(moving.u, g.data(), 256);
      const double squares = kernels<T>().sum_of_squares(g.data(), 256, T(1) / 3);
      if (first.empty()) {
        first = moving.bytes();
        first_squares = squares;
      }
      EXPECT_EQ(moving.bytes(), first);
      EXPECT_EQ(squares, first_squares);
    });
  }
}

TEST(InstructionSet, UnknownNameIsAnErrorThatNamesTheKnown) {
  try {
    hold_instruction_set("ABACUS");
    FAIL() << "no exception";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find(available_instruction_sets().front()),
              std::string::npos);
  }
}

}  // namespace
}  // namespace lockstep::nn

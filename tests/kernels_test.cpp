// The kernels against slow references, with tolerances derived from the number of roundings, and
// against each other: every instruction set must give the same bits.
#include "nn/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "nn/product.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

using test::fill_uniform;
using test::uniform_matrix;

template <class T>
class KernelsTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(KernelsTest, Types);

// Runs `check` with the choice held at each instruction set, and back at the best one in the end.
template <class Check>
void with_each_instruction_set(const Check& check) {
  const auto names = available_instruction_sets();
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    hold_instruction_set(name);
    SCOPED_TRACE(name);
    check();
  }
  hold_instruction_set(names.front());
}

template <class T>
std::vector<std::byte> bytes_of(std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

template <class T>
std::vector<std::byte> bytes_of(MatrixView<const T> matrix) {
  std::vector<std::byte> all;
  for (std::size_t i = 0; i < matrix.rows; ++i) {
    const auto row = bytes_of(std::span<const T>(matrix.row(i), matrix.cols));
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

struct Shape {
  std::size_t rows, depth, cols;
};
const std::vector<Shape> kShapes = {{1, 1, 1},     {3, 5, 7},      {12, 16, 32},  {13, 17, 33},
                                    {25, 513, 10}, {50, 1030, 49}, {200, 40, 70}, {5, 2, 100}};

TYPED_TEST(KernelsTest, ProductAgreesWithReferenceAndBetweenInstructionSets) {
  using T = TypeParam;
  for (const bool transposed : {false, true}) {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.rows << "x" << s.depth << "x" << s.cols << " " << transposed);
      const auto a = uniform_matrix<T>(s.rows, s.depth, 1);
      AlignedBuffer<T> b(s.depth * s.cols);
      AlignedBuffer<T> bias(s.cols);
      fill_uniform(b.span(), 2);
      fill_uniform(bias.span(), 3);
      const std::size_t b_stride = transposed ? s.depth : s.cols;
      const auto b_at = [&](std::size_t p, std::size_t j) {
        return static_cast<double>(transposed ? b.data()[j * b_stride + p]
                                              : b.data()[p * b_stride + j]);
      };
      std::vector<std::byte> first;
      with_each_instruction_set([&] {
        Matrix<T> c(s.rows, s.cols);
        multiply<T>({a.view(), b.data(), b_stride, transposed, c.view(), bias.data(),
                     Activation::none, T{0}});
        for (std::size_t i = 0; i < s.rows; ++i) {
          for (std::size_t j = 0; j < s.cols; ++j) {
            long double sum = bias.data()[j];
            double magnitude = std::abs(static_cast<double>(bias.data()[j]));
            for (std::size_t p = 0; p < s.depth; ++p) {
              const double term = static_cast<double>(a.view().row(i)[p]) * b_at(p, j);
              sum += static_cast<long double>(term);
              magnitude += std::abs(term);
            }
            // Each of depth + 2 additions rounds by half a unit of at most the magnitude.
            const double tolerance = static_cast<double>(s.depth + 2) *
                                     static_cast<double>(std::numeric_limits<T>::epsilon()) *
                                     magnitude;
            ASSERT_NEAR(static_cast<double>(c.view().row(i)[j]), static_cast<double>(sum),
                        tolerance);
          }
        }
        const auto bytes = bytes_of(std::as_const(c).view());
        if (first.empty()) first = bytes;
        EXPECT_EQ(bytes, first) << "bits differ between instruction sets";
      });
    }
  }
}

TYPED_TEST(KernelsTest, ProductIsTheSameForAnyCutOfTheRows) {
  using T = TypeParam;
  const auto a = uniform_matrix<T>(67, 600, 4);
  AlignedBuffer<T> b(600 * 45);
  fill_uniform(b.span(), 5);
  const auto product = [&](std::size_t begin, std::size_t end, Matrix<T>& c) {
    Product<T> p;
    p.a = {a.view().row(begin), end - begin, 600, a.view().stride};
    p.b = b.data();
    p.b_stride = 600;
    p.b_transposed = true;
    p.c = {c.view().row(begin), end - begin, 45, c.view().stride};
    multiply(p);
  };
  Matrix<T> whole(67, 45);
  product(0, 67, whole);
  for (const std::size_t step : {1u, 2u, 5u, 12u, 30u}) {
    Matrix<T> cut(67, 45);
    for (std::size_t i = 0; i < 67; i += step) product(i, std::min<std::size_t>(67, i + step), cut);
    EXPECT_EQ(bytes_of(std::as_const(cut).view()), bytes_of(std::as_const(whole).view())) << step;
  }
}

// The tree by its definition: the sum over leaves [first, first + size), null where all are empty.
template <class T>
std::vector<T> tree_sum(MatrixView<const T> x, MatrixView<const T> d_y,
                        std::span<const std::size_t> rows, std::size_t first, std::size_t size) {
  if (rows[first] == rows[first + size]) return {};
  if (size == 1) {
    std::vector<T> sum(x.cols * d_y.cols, T{0});
    for (std::size_t block = rows[first]; block < rows[first + 1]; block += kDepthBlock) {
      const std::size_t end = std::min(block + kDepthBlock, rows[first + 1]);
      for (std::size_t i = 0; i < x.cols; ++i) {
        for (std::size_t j = 0; j < d_y.cols; ++j) {
          T part = 0;
          for (std::size_t m = block; m < end; ++m) {
            part = std::fma(x.row(m)[i], d_y.row(m)[j], part);
          }
          T& total = sum[i * d_y.cols + j];
          total = block == rows[first] ? part : total + part;
        }
      }
    }
    return sum;
  }
  auto left = tree_sum<T>(x, d_y, rows, first, size / 2);
  auto right = tree_sum<T>(x, d_y, rows, first + size / 2, size / 2);
  if (left.empty()) return right;
  for (std::size_t i = 0; i < right.size(); ++i) left[i] += right[i];
  return left;
}

TYPED_TEST(KernelsTest, WeightGradientIsTheLeafTreeBitByBit) {
  using T = TypeParam;
  const std::vector<std::vector<std::size_t>> all_rows = {
      {0, 9},                        // one leaf
      {0, 3, 3, 10, 12},             // an empty leaf inside
      {0, 0, 0, 0, 0, 0, 0, 0, 1},   // stochastic descent: all but the last empty
      {0, 1, 2, 3, 5, 6, 7, 8, 10},  // a sample or two a leaf
      {3, 3, 7, 11, 11, 12, 15, 15, 15},
      {2, 6, 7, 7, 7},
      {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2},  // more leaves than have slots
      {2, 14, 27, 39, 52, 64, 77, 89, 100},
      {0, 1100, 2200},  // leaves longer than a block
      {5, 5, 5}};       // nothing at all
  for (const auto& rows : all_rows) {
    const std::size_t samples = std::max<std::size_t>(1, rows.back());
    const auto d_y = uniform_matrix<T>(samples, 29, 6);
    const auto x = uniform_matrix<T>(samples, 43, 7);
    auto expected = tree_sum<T>(x.view(), d_y.view(), rows, 0, rows.size() - 1);
    if (expected.empty()) expected.assign(29 * 43, T{0});
    const auto ones = [&] {
      Matrix<T> column(samples, 1);
      for (std::size_t m = 0; m < samples; ++m) *column.view().row(m) = 1;
      return column;
    }();
    with_each_instruction_set([&] {
      std::vector<T> gradient(29 * 43, T{-1});
      AlignedBuffer<T> scratch(weight_gradient_scratch<T>(samples, 43, 29));
      const SubtreeGradient<T> subtree{rows, gradient};
      weight_gradients<T>(x.view(), d_y.view(), std::span(&subtree, 1), 0, scratch.span());
      EXPECT_EQ(bytes_of(std::span<const T>(gradient)), bytes_of(std::span<const T>(expected)));

      auto bias_expected =
          tree_sum<T>(std::as_const(ones).view(), d_y.view(), rows, 0, rows.size() - 1);
      if (bias_expected.empty()) bias_expected.assign(29, T{0});
      std::vector<T> bias(29, T{-1});
      kernels<T>().bias_gradient(d_y.view(), rows, bias.data());
      EXPECT_EQ(bytes_of(std::span<const T>(bias)), bytes_of(std::span<const T>(bias_expected)));
    });
  }
}

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

// The nearest of the two bfloat16 around x, by its definition; the even one of two that are as near.
float nearest_bfloat16(float x) {
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
  std::vector<float> values = {0.0f,     -0.0f,  1.0f,          1.00390625f, 1.01171875f, 3.4e38f,
                               -3.4e38f, 1e-40f, 3.3895314e38f, 0.1f,        -0.3f};
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
  });
}

TYPED_TEST(KernelsTest, ProductRoundsItsSecondFactorToBfloat16) {
  using T = TypeParam;
  for (const bool transposed : {false, true}) {
    for (const std::size_t rows : {1u, 40u}) {
      const auto a = uniform_matrix<T>(rows, 600, 1);
      Matrix<T> b(1, 600 * 45);
      fill_uniform(std::span<T>(b.view().row(0), 600 * 45), 2);
      const auto product = [&](Precision precision) {
        Matrix<T> c(rows, 45);
        Product<T> p{a.view(), b.view().data, transposed ? 600u : 45u, transposed, c.view()};
        p.precision = precision;
        multiply(p);
        return bytes_of(std::as_const(c).view());
      };
      const auto exact = product(Precision::float32);
      const auto rounded = product(Precision::bfloat16);
      kernels<T>().round_to_bfloat16(b.view());
      EXPECT_EQ(rounded, product(Precision::float32));
      EXPECT_NE(rounded, exact);
    }
  }
}

// A long run of a small sigmoid network spent four fifths of its time on subnormal products.
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

// 256 parameters and moments, and a rule in whose formula every constant counts.
template <class T>
struct Moving {
  explicit Moving(UpdateRule rule, std::size_t count = 256) : w(count), m1(count), m2(count) {
    fill_uniform(w.span(), 9);
    fill_uniform(m1.span(), 11);
    for (T& x : m2.span()) x = T{0.5};
    u.rule = rule;
    u.parameters = w.data();
    u.moment1 = rule == UpdateRule::momentum || rule == UpdateRule::adam ? m1.data() : nullptr;
    u.moment2 = rule == UpdateRule::sgd || rule == UpdateRule::momentum ? nullptr : m2.data();
    u.per_sample = T(1) / 3;
    u.l1 = T(0.01);
    u.l2 = T(0.1);
    u.step_size = T(0.1);
    u.keep1 = T(0.9);
    u.take1 = T(0.1);
    u.keep2 = T(0.99);
    u.take2 = T(0.01);
    u.correction2 = T(1.5);
    u.epsilon = T(1e-8);
  }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const AlignedBuffer<T>* buffer : {&w, &m1, &m2}) {
      const auto one = bytes_of(buffer->span());
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }

  AlignedBuffer<T> w, m1, m2;
  Update<T> u;
};

constexpr std::array kAllRules = {UpdateRule::sgd, UpdateRule::momentum, UpdateRule::adagrad,
                                  UpdateRule::rmsprop, UpdateRule::adam};

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

TYPED_TEST(KernelsTest, ParametersThatMoveWithTheirGradientEndAtTheSameBits) {
  using T = TypeParam;
  constexpr std::size_t kOutputs = 29;
  for (const std::size_t inputs : {43u, 64u}) {
    const std::size_t count = round_up(kOutputs * inputs, kLanes);
    // As the factors stand, and packed; the number of leaves as well.
    for (const auto& rows : {std::vector<std::size_t>{0, 0, 1, 1, 1},
                             {0, 2, 3, 3, 10},
                             {0, 12, 25, 37, 50, 62, 75, 87, 100},
                             {7, 7}}) {
      const auto d_y = uniform_matrix<T>(100, kOutputs, 6);
      const auto x = uniform_matrix<T>(100, inputs, 7);
      AlignedBuffer<T> scratch(weight_gradient_scratch<T>(100, inputs, kOutputs));
      const auto run = [&](const SubtreeGradient<T>& subtree) {
        const std::size_t all = rows.back();
        weight_gradients<T>(x.view().top(all), d_y.view().top(all), std::span(&subtree, 1), 0,
                            scratch.span());
      };
      for (const UpdateRule rule : kAllRules) {
        with_each_instruction_set([&] {
          AlignedBuffer<T> gradient(count);
          Moving<T> after(rule, count);
          run({rows, gradient.span()});
          kernels<T>().update(after.u, gradient.data(), count);
          Moving<T> at_once(rule, count);
          run({rows, {}, &at_once.u});
          const auto bytes = [&](const Moving<T>& moving) {  // the padding is no part of it
            std::vector<std::byte> all;
            for (const AlignedBuffer<T>* buffer : {&moving.w, &moving.m1, &moving.m2}) {
              const auto one = bytes_of(buffer->span().first(kOutputs * inputs));
              all.insert(all.end(), one.begin(), one.end());
            }
            return all;
          };
          EXPECT_EQ(bytes(at_once), bytes(after))
              << inputs << " inputs, " << rows.back() << " rows";
        });
      }
    }
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

// Products and sums over samples against slow references, with tolerances derived from the number
// of roundings, or bit by bit; every instruction set, and any cut of the work, gives the same bits.
#include "nn/product.hpp"

#include <gtest/gtest.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "instruction_sets.hpp"
#include "moving_parameters.hpp"
#include "nn/weight_gradient.hpp"
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
class ProductTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ProductTest, Types);

struct Shape {
  std::size_t rows, depth, cols;
};
const std::vector<Shape> kShapes = {{1, 1, 1},
                                    {3, 5, 7},
                                    {12, 16, 32},
                                    {13, 17, 33},
                                    {25, 513, 10},
                                    {50, 1030, 49},
                                    {200, 40, 70},
                                    {5, 2, 100},
                                    // Whole panels, which the first of many rows pack.
                                    {24, 300, 64},
                                    {25, 513, 96},
                                    {29, 257, 32},
                                    {64, 784, 160},
                                    // Fewer, whose rows of b are far apart.
                                    {8, 300, 512},
                                    {11, 257, 544},
                                    {14, 300, 512},
                                    {23, 513, 1024}};

TYPED_TEST(ProductTest, AgreesWithReferenceAndBetweenInstructionSets) {
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

TYPED_TEST(ProductTest, IsTheSameForAnyCutOfTheRows) {
  using T = TypeParam;
  constexpr std::size_t kRows = 67, kDepth = 600;
  const auto a = uniform_matrix<T>(kRows, kDepth, 4);
  for (const bool transposed : {false, true}) {
    for (const std::size_t cols : {45u, 64u}) {
      AlignedBuffer<T> b(kDepth * cols);
      fill_uniform(b.span(), 5);
      const auto product = [&](std::size_t begin, std::size_t end, Matrix<T>& c) {
        Product<T> p;
        p.a = {a.view().row(begin), end - begin, kDepth, a.view().stride};
        p.b = b.data();
        p.b_stride = transposed ? kDepth : cols;
        p.b_transposed = transposed;
        p.c = {c.view().row(begin), end - begin, cols, c.view().stride};
        multiply(p);
      };
      Matrix<T> whole(kRows, cols);
      product(0, kRows, whole);
      for (const std::size_t step : {1u, 2u, 5u, 12u, 24u, 30u}) {
        Matrix<T> cut(kRows, cols);
        for (std::size_t i = 0; i < kRows; i += step) product(i, std::min(kRows, i + step), cut);
        EXPECT_EQ(bytes_of(std::as_const(cut).view()), bytes_of(std::as_const(whole).view()))
            << step << " rows of " << cols << " columns" << (transposed ? ", transposed" : "");
      }
    }
  }
}

// The definition of sums of bfloat16 factors, of which term(p) has those of number p.
template <class T, class Term>
T sum_in_runs(std::size_t terms, const Term& term) {
  const auto run = [&](std::size_t begin) {
    T sum = 0;
    for (std::size_t p = begin; p < std::min(terms, begin + kRun); ++p) {
      const auto [a, b] = term(p);
      sum = std::fma(a, b, sum);
    }
    return sum;
  };
  T sum = 0;
  for (std::size_t p = 0; p < terms; p += 2 * kRun) sum += run(p) + run(p + kRun);
  return sum;
}

template <class T, class Term>
T sum_in_blocks(std::size_t terms, const Term& term) {
  T sum = 0;
  for (std::size_t block = 0; block < terms; block += kDepthBlock) {
    T part = 0;
    for (std::size_t p = block; p < std::min(terms, block + kDepthBlock); ++p) {
      const auto [a, b] = term(p);
      part = std::fma(a, b, part);
    }
    sum = block == 0 ? part : sum + part;
  }
  return sum;
}

// The tree by its definition: the sum over leaves [first, first + size), empty where all are.
template <class T>
std::vector<T> tree_sum(MatrixView<const T> x, MatrixView<const T> d_y,
                        std::span<const std::size_t> rows, std::size_t first, std::size_t size,
                        Precision precision = Precision::float32) {
  if (rows[first] == rows[first + size]) return {};
  if (size == 1) {
    std::vector<T> sum;
    for (std::size_t i = 0; i < x.cols; ++i) {
      for (std::size_t j = 0; j < d_y.cols; ++j) {
        const std::size_t terms = rows[first + 1] - rows[first];
        const auto term = [&](std::size_t p) {
          return std::pair(x.row(rows[first] + p)[i], d_y.row(rows[first] + p)[j]);
        };
        sum.push_back(precision == Precision::bfloat16 ? sum_in_runs<T>(terms, term)
                                                       : sum_in_blocks<T>(terms, term));
      }
    }
    return sum;
  }
  auto left = tree_sum<T>(x, d_y, rows, first, size / 2, precision);
  auto right = tree_sum<T>(x, d_y, rows, first + size / 2, size / 2, precision);
  if (left.empty()) return right;
  for (std::size_t i = 0; i < right.size(); ++i) left[i] += right[i];
  return left;
}

const std::vector<std::vector<std::size_t>> kLeafRows = {
    {0, 9},                        // one leaf
    {0, 3, 3, 10, 12},             // an empty leaf inside
    {0, 0, 0, 0, 0, 0, 0, 0, 1},   // stochastic descent: all but the last empty
    {0, 1, 2, 3, 5, 6, 7, 8, 10},  // a sample or two a leaf
    {3, 3, 7, 11, 11, 12, 15, 15, 15},
    {2, 6, 7, 7, 7},
    {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2},  // more than few_gradient takes
    {0, 20, 32},  // few, but more than a run of bfloat16 factors
    {1, 41},
    {0, 257, 260},  // and more than a block of the depth
    {2, 14, 27, 39, 52, 64, 77, 89, 100},
    {1, 17, 33, 49, 66, 82, 98, 114, 130},  // leaves that AMX takes: of a run, …
    {3, 3, 35, 67, 100, 100, 148, 196, 228, 228, 228, 228, 228, 245, 277, 277, 341},  // … and more
    {0, 90, 90, 90, 300, 310, 350, 420, 420, 420, 420, 480, 560, 561, 600, 640, 700},
    {0,  3,  4,  4,  8,  9,  12, 14, 15, 19, 21, 22, 22, 25, 29, 30, 34,  // many small ones, …
     35, 37, 39, 43, 43, 46, 47, 50, 54, 55, 57, 60, 61, 65, 65, 70},
    {0, 14, 14, 23, 323, 330, 337, 351, 352, 360, 371, 371, 380, 392, 399, 411, 424},  // one long
    {0, 1100, 2200},  // leaves longer than a block
    {0, 1029, 1700},  // and odd
    {5, 5, 5}};       // nothing at all

// What is asked for meanwhile changes nothing.
TYPED_TEST(ProductTest, WeightGradientIsTheLeafTreeBitByBit) {
  using T = TypeParam;
  const std::vector<const void*> upcoming(100, &kLeafRows);
  for (const auto& rows : kLeafRows) {
    const std::size_t samples = std::max<std::size_t>(1, rows.back());
    // Factors where they stand, or packed: of many samples, or of long rows.
    for (const Shape& s :
         {Shape{0, 43, 29}, {0, 38, 16}, {0, 9, 10}, {0, 14, 263}, {0, 9, 1100}, {0, 1100, 9}}) {
      SCOPED_TRACE(testing::Message() << rows.size() - 1 << " leaves, " << samples << " samples, "
                                      << s.depth << "x" << s.cols);
      const auto d_y = uniform_matrix<T>(samples, s.cols, 6);
      const auto x = uniform_matrix<T>(samples, s.depth, 7);
      auto expected = tree_sum<T>(x.view(), d_y.view(), rows, 0, rows.size() - 1);
      if (expected.empty()) expected.assign(s.depth * s.cols, T{0});
      with_each_instruction_set([&] {
        std::vector<T> gradient(s.depth * s.cols, T{-1});
        AlignedBuffer<T> scratch(weight_gradient_scratch<T>(samples, s.depth, s.cols));
        const SubtreeGradient<T> subtree{rows, gradient};
        weight_gradients<T>(x.view(), d_y.view(), std::span(&subtree, 1), 0, scratch.span(),
                            Precision::float32, {}, upcoming);
        EXPECT_EQ(bytes_of(std::span<const T>(gradient)), bytes_of(std::span<const T>(expected)));
      });
    }
  }
}

TYPED_TEST(ProductTest, BiasGradientIsTheLeafTreeBitByBit) {
  using T = TypeParam;
  for (const auto& rows : kLeafRows) {
    const std::size_t samples = std::max<std::size_t>(1, rows.back());
    const auto d_y = uniform_matrix<T>(samples, 29, 6);
    const auto ones = [&] {
      Matrix<T> column(samples, 1);
      for (std::size_t m = 0; m < samples; ++m) *column.view().row(m) = 1;
      return column;
    }();
    with_each_instruction_set([&] {
      auto bias_expected =
          tree_sum<T>(std::as_const(ones).view(), d_y.view(), rows, 0, rows.size() - 1);
      if (bias_expected.empty()) bias_expected.assign(29, T{0});
      std::vector<T> bias(29, T{-1});
      kernels<T>().bias_gradient(d_y.view(), rows, bias.data());
      EXPECT_EQ(bytes_of(std::span<const T>(bias)), bytes_of(std::span<const T>(bias_expected)));
    });
  }
}

// Factors of any size and sign between 2^-70 and 2^10, some of which are zero for bfloat16 and some
// of which cancel; rounded if `round` says so.
template <class T>
Matrix<T> bfloat16_factors(std::size_t rows, std::size_t cols, std::uint32_t seed, bool round) {
  Matrix<T> matrix = uniform_matrix<T>(rows, cols, seed);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) {
      T& value = matrix.view().row(i)[j];
      const std::size_t at = i * cols + j;
      if (at % 5 == 1) value = std::ldexp(value, -static_cast<int>(at % 71));
      if (at % 7 == 2) value = std::ldexp(value, static_cast<int>(at % 11));
      if (at % 13 == 3) value = at % 2 == 0 ? T{0} : -T{0};
      if (at % 17 == 4 && j > 0) value = -matrix.view().row(i)[j - 1];
      if (at % 19 == 5) value = static_cast<T>(1e-41);
    }
  }
  if (round) kernels<T>().round_to_bfloat16(matrix.view());
  return matrix;
}

const std::vector<Shape> kPairShapes = {
    {5, 1, 3},    {5, 2, 1},   {6, 3, 40},     {7, 17, 16},    {9, 31, 17},   {12, 32, 33},
    {13, 33, 64}, {5, 255, 8}, {24, 256, 5},   {25, 257, 10},  {40, 511, 70}, {300, 513, 49},
    {2, 600, 33}, {1, 31, 5},  {50, 769, 131}, {140, 1100, 33}};

TYPED_TEST(ProductTest, OfBfloat16FactorsIsSummedInRunsBitByBit) {
  using T = TypeParam;
  for (const bool transposed : {false, true}) {
    for (const Shape& s : kPairShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.rows << "x" << s.depth << "x" << s.cols << " " << transposed);
      const auto a = bfloat16_factors<T>(s.rows, s.depth, 1, true);
      auto b = bfloat16_factors<T>(1, s.depth * s.cols, 2, false);
      auto rounded = bfloat16_factors<T>(1, s.depth * s.cols, 2, true);
      AlignedBuffer<T> bias(s.cols);
      fill_uniform(bias.span(), 3);
      const std::size_t b_stride = transposed ? s.depth : s.cols;
      Matrix<T> expected(s.rows, s.cols);
      for (std::size_t i = 0; i < s.rows; ++i) {
        for (std::size_t j = 0; j < s.cols; ++j) {
          expected.view().row(i)[j] =
              bias.data()[j] + sum_in_runs<T>(s.depth, [&](std::size_t p) {
                const std::size_t at = transposed ? j * b_stride + p : p * b_stride + j;
                return std::pair(a.view().row(i)[p], rounded.view().data[at]);
              });
        }
      }
      with_each_instruction_set([&] {
        for (const bool scratch_given : {true, false}) {
          Matrix<T> c(s.rows, s.cols);
          AlignedBuffer<T> scratch(
              scratch_given ? multiply_scratch<T>(s.rows, s.depth, s.cols, Precision::bfloat16)
                            : 0);
          multiply<T>({a.view(), b.view().data, b_stride, transposed, c.view(), bias.data(),
                       Activation::none, T{0}, Precision::bfloat16},
                      scratch.span());
          EXPECT_EQ(bytes_of(std::as_const(c).view()), bytes_of(std::as_const(expected).view()))
              << "scratch given: " << scratch_given;
        }
      });
    }
  }
}

// Subtrees begin and end, and leaves too, at odd rows; pairs are of one leaf.
TYPED_TEST(ProductTest, WeightGradientOfBfloat16FactorsIsTheLeafTreeBitByBit) {
  using T = TypeParam;
  for (const auto& rows : kLeafRows) {
    for (const Shape& s : {Shape{0, 43, 29}, Shape{0, 12, 33}, Shape{0, 3, 70}, Shape{0, 1, 1}}) {
      SCOPED_TRACE(testing::Message() << rows.size() - 1 << " leaves, " << rows.back()
                                      << " samples, " << s.depth << "x" << s.cols);
      const std::size_t samples = rows.back() + 3;
      const std::vector<std::size_t> others = {0, 2, samples};
      const auto x = bfloat16_factors<T>(samples, s.depth, 6, true);
      const auto d_y = bfloat16_factors<T>(samples, s.cols, 7, true);
      const std::size_t size = s.depth * s.cols;
      std::vector<T> expected =
          tree_sum<T>(x.view(), d_y.view(), rows, 0, rows.size() - 1, Precision::bfloat16);
      if (expected.empty()) expected.assign(size, T{0});
      const std::vector<T> expected_others =
          tree_sum<T>(x.view(), d_y.view(), others, 0, 2, Precision::bfloat16);
      with_each_instruction_set([&] {
        std::vector<T> first(size, T{-1}), second(size, T{-1}), again(size, T{-1});
        AlignedBuffer<T> scratch(weight_gradient_scratch<T>(samples, s.depth, s.cols));
        const SubtreeGradient<T> subtrees[] = {{rows, first}, {others, second}, {rows, again}};
        weight_gradients<T>(x.view(), d_y.view(), subtrees, 0, scratch.span(), Precision::bfloat16);
        const auto bytes = [](const std::vector<T>& v) { return bytes_of(std::span<const T>(v)); };
        EXPECT_EQ(bytes(first), bytes(expected));
        EXPECT_EQ(bytes(second), bytes(expected_others));
        EXPECT_EQ(bytes(again), bytes(expected));
      });
    }
  }
}

// Once b is b as it was rounded, whichever way it went into the product.
TEST(Product, RoundsEveryNumberAsTheKernelForItDoes) {
  constexpr std::size_t kRows = 2 * kFewRows, kDepth = 1;
  std::vector<float> values = {std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(), 0x1p-55f, 0x1.fffffep-56f};
  for (std::uint64_t bits = 0; bits < 0xFFFFFFFFu; bits += 0x0000C35Du) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  for (std::uint64_t bits = 0; bits < 0xFFFFFFFFu; bits += 0x00008000u) {  // ties
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  const std::size_t count = values.size();
  Matrix<float> b(1, count), rounded(1, count), ones(kRows, kDepth);
  std::ranges::copy(values, b.view().row(0));
  std::ranges::copy(values, rounded.view().row(0));
  kernels<float>().round_to_bfloat16(rounded.view());
  for (std::size_t i = 0; i < kRows; ++i) *ones.view().row(i) = 1;
  with_each_instruction_set([&] {
    for (const bool transposed : {false, true}) {
      Matrix<float> c(kRows, count);
      AlignedBuffer<float> scratch(
          multiply_scratch<float>(kRows, kDepth, count, Precision::bfloat16));
      multiply<float>({std::as_const(ones).view(), b.view().data, transposed ? kDepth : count,
                       transposed, c.view(), nullptr, Activation::none, 0.0f, Precision::bfloat16},
                      scratch.span());
      for (std::size_t j = 0; j < count; ++j) {
        const float expected = rounded.view().row(0)[j];
        const float found = c.view().row(kRows - 1)[j];
        ASSERT_TRUE(found == expected || (std::isnan(found) && std::isnan(expected)))
            << values[j] << " became " << found << " instead of " << expected;
      }
    }
  });
}

TYPED_TEST(ProductTest, RoundsItsSecondFactorToBfloat16) {
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
      EXPECT_EQ(rounded, product(Precision::bfloat16));
      EXPECT_NE(rounded, exact);
    }
  }
}

TYPED_TEST(ProductTest, ParametersThatMoveWithTheirGradientEndAtTheSameBits) {
  using T = TypeParam;
  constexpr std::size_t kOutputs = 29;
  for (const std::size_t inputs : {43u, 64u}) {
    const std::size_t count = round_up(kOutputs * inputs, kLanes);
    // As the factors stand, and packed; the number of leaves as well.
    for (const auto& rows : {std::vector<std::size_t>{0, 0, 1, 1, 1},
                             {0, 2, 3, 3, 10},
                             {0, 12, 25, 37, 50, 62, 75, 87, 100},
                             {0, 40, 80, 120, 160, 200, 240, 280, 300},
                             {7, 7}}) {
      const auto d_y = uniform_matrix<T>(300, kOutputs, 6);
      const auto x = uniform_matrix<T>(300, inputs, 7);
      AlignedBuffer<T> scratch(weight_gradient_scratch<T>(300, inputs, kOutputs));
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

// With scratch, blocks of the depth are summed by their owners: the same bits as without.
TYPED_TEST(ProductTest, FewRowsByBlocksGiveTheSameBits) {
  using T = TypeParam;
  const std::size_t depth = 2 * kDepthBlock + 37;
  const std::size_t cols = 1045;  // enough that the work is shared out
  AlignedBuffer<T> b(depth * cols);
  AlignedBuffer<T> bias(cols);
  fill_uniform(b.span(), 2);
  fill_uniform(bias.span(), 3);
  for (const std::size_t rows : {1u, 3u, 4u}) {
    const auto a = uniform_matrix<T>(rows, depth, 1);
    AlignedBuffer<T> scratch(multiply_scratch<T>(rows, depth, cols));
    const auto product = [&](std::span<T> use) {
      Matrix<T> c(rows, cols);
      multiply<T>({a.view(), b.data(), cols, false, c.view(), bias.data(), Activation::relu, T{0}},
                  use);
      return bytes_of(std::as_const(c).view());
    };
    EXPECT_EQ(product(scratch.span()), product({})) << rows;
    EXPECT_NE(scratch.data()[0], 0) << "the scratch was not used";
  }
}

// A product may take the derivative of what its second use comes from: the same bits as afterwards.
TYPED_TEST(ProductTest, TakesADerivativeAsThePassAfterItDoes) {
  using T = TypeParam;
  for (const Activation activation :
       {Activation::sigmoid, Activation::tanh, Activation::relu, Activation::leaky_relu}) {
    for (const Shape& s : {Shape{1, 600, 10}, Shape{3, 16, 45}, Shape{10, 300, 16},
                           Shape{70, 513, 100}, Shape{200, 40, 70},
                           // Few rows by blocks, and several parts of rows.
                           Shape{3, 600, 200}, Shape{200, 300, 16}, Shape{1100, 64, 100}}) {
      for (const bool transposed : {false, true}) {
        const auto a = uniform_matrix<T>(s.rows, s.depth, 1);
        AlignedBuffer<T> b(s.depth * s.cols);
        fill_uniform(b.span(), 2);
        const auto y = uniform_matrix<T>(s.rows, s.cols, 3);
        with_each_instruction_set([&] {
          AlignedBuffer<T> scratch(multiply_scratch<T>(s.rows, s.depth, s.cols));
          Product<T> product;
          product.a = a.view();
          product.b = b.data();
          product.b_stride = transposed ? s.depth : s.cols;
          product.b_transposed = transposed;
          product.slope = T{0.125};
          Matrix<T> expected(s.rows, s.cols), together(s.rows, s.cols);
          product.c = expected.view();
          multiply(product, scratch.span());
          kernels<T>().activation_backward(activation, product.slope, y.view(), expected.view());
          product.c = together.view();
          product.derivative = activation;
          product.y = y.view();
          multiply(product, scratch.span());
          EXPECT_EQ(bytes_of(std::as_const(together).view()),
                    bytes_of(std::as_const(expected).view()))
              << name_of(activation) << " " << s.rows << "x" << s.depth << "x" << s.cols;
        });
      }
    }
  }
}

TEST(Product, SameBitsForAnyNumberOfThreads) {
  const auto a = test::uniform_matrix<float>(400, 300, 1);
  AlignedBuffer<float> b(300 * 200);
  test::fill_uniform(b.span(), 2);
  std::vector<std::size_t> rows;
  for (std::size_t l = 0; l <= 8; ++l) rows.push_back(l * 400 / 8);

  const auto run = [&](int threads) {
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(threads));
    std::vector<float> all;
    tbb::task_arena(threads).execute([&] {
      Matrix<float> c(400, 200);
      multiply<float>({a.view(), b.data(), 300, true, c.view(), nullptr, Activation::tanh, 0.0f});
      AlignedBuffer<float> gradient(200 * 300);
      AlignedBuffer<float> scratch(weight_gradient_scratch<float>(400, 300, 200));
      const SubtreeGradient<float> subtree{rows, gradient.span()};
      weight_gradients<float>(a.view(), std::as_const(c).view(), std::span(&subtree, 1), 0,
                              scratch.span());
      all.assign(gradient.span().begin(), gradient.span().end());
    });
    return all;
  };
  const auto one = run(1);
  for (const int threads : {2, 3, 4}) EXPECT_EQ(run(threads), one) << threads;
}

// Parts of few samples, as many as threads find, and pieces of them.
TEST(Product, WeightGradientOfFewSamplesIsTheLeafTreeForAnyNumberOfThreads) {
  struct Everything : ParameterFlow {
    void before_reading(std::size_t) override {}
    void final_from(std::size_t begin, Parameters) override {
      const auto from = static_cast<std::ptrdiff_t>(begin);
      EXPECT_TRUE(std::equal(pieces.begin() + from, pieces.end(), expected.begin() + from));
      told.push_back(begin);
    }
    bool carries_sums_meanwhile() const override { return true; }
    std::span<const float> pieces, expected;
    std::vector<std::size_t> told;
  };
  constexpr std::size_t kInputs = 700, kOutputs = 1000;
  for (const auto& rows : {std::vector<std::size_t>{0, 5, 12}, {0, 1, 2, 3, 4}, {0, 40}}) {
    const auto x = test::uniform_matrix<float>(rows.back(), kInputs, 1);
    const auto d_y = test::uniform_matrix<float>(rows.back(), kOutputs, 2);
    const auto expected = tree_sum<float>(x.view(), d_y.view(), rows, 0, rows.size() - 1);
    for (const int threads : {1, 2, 4}) {
      const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                      static_cast<std::size_t>(threads));
      tbb::task_arena(threads).execute([&] {
        std::vector<float> whole(kInputs * kOutputs, -1), pieces(kInputs * kOutputs, -1);
        AlignedBuffer<float> scratch(
            weight_gradient_scratch<float>(rows.back(), kInputs, kOutputs));
        Everything flow;
        flow.pieces = pieces;
        flow.expected = expected;
        const SubtreeGradient<float> alone{rows, whole}, told{rows, pieces};
        weight_gradients<float>(x.view(), d_y.view(), std::span(&alone, 1), 0, scratch.span());
        weight_gradients<float>(x.view(), d_y.view(), std::span(&told, 1), 0, scratch.span(),
                                Precision::float32, {&flow});
        EXPECT_EQ(whole, expected) << rows.back() << " samples, " << threads << " threads";
        EXPECT_EQ(pieces, expected) << rows.back() << " samples, " << threads << " threads";
        EXPECT_EQ(flow.told.empty(), rows.back() <= kFewRows && threads > 1);
        EXPECT_EQ(std::ranges::adjacent_find(flow.told, std::less_equal<>()), flow.told.end());
      });
    }
  }
}

TEST(RowBlocks, CoverEveryRowOnce) {
  for (const std::size_t rows : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    std::vector<int> seen(rows);
    for_each_row_block(rows, 1e6, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) ++seen[i];
    });
    EXPECT_EQ(std::ranges::count(seen, 1), static_cast<std::ptrdiff_t>(rows));
  }
}

}  // namespace
}  // namespace lockstep::nn

// Inputs of one sample that are zero are left out, together with the weights that they would meet:
// the same bits as by the definition of the sums, on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "instruction_sets.hpp"
#include "moving_parameters.hpp"
#include "nn/product.hpp"
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
class ZeroInputsTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ZeroInputsTest, Types);

constexpr std::size_t kInputs = 2 * kDepthBlock + 37;
// Outputs with a rest that is no panel, and no register, of its own: enough that zeros are looked
// for. With the most of them each pass is worth sharing out, with the fewest neither is.
constexpr std::size_t kFewOutputs = 69, kOutputs = 149, kManyOutputs = 402;

// The sample stands behind others, which have no part in anything.
constexpr std::size_t kRow = 2;
const std::vector<std::size_t> kLeafRows = {kRow, kRow, kRow, kRow, kRow + 1};

enum class Zeros { none, some, most, all };
constexpr Zeros kZeros[] = {Zeros::none, Zeros::some, Zeros::most, Zeros::all};

// Zeros have either sign.
template <class T>
Matrix<T> sample_with(Zeros zeros) {
  Matrix<T> x = uniform_matrix<T>(kRow + 1, kInputs, 1);
  const Matrix<T> draw = uniform_matrix<T>(1, kInputs, 2);
  for (std::size_t i = 0; i < kInputs; ++i) {
    T& value = x.view().row(kRow)[i];
    const bool zero = zeros == Zeros::all || (zeros == Zeros::some && draw.view().row(0)[i] < 0) ||
                      (zeros == Zeros::most && i != 5 && i != kInputs - 1);
    if (zero) value = std::copysign(T{0}, value);
  }
  return x;
}

template <class T>
MatrixView<const T> sample_of(const Matrix<T>& x) {
  return {x.view().row(kRow), 1, x.view().cols, x.view().stride};
}

// A signalling NaN, which any arithmetic would change.
template <class T>
T untouched() {
  if constexpr (sizeof(T) == 4) return std::bit_cast<T>(std::uint32_t{0x7FA00001});
  if constexpr (sizeof(T) == 8) return std::bit_cast<T>(std::uint64_t{0x7FF4000000000001});
}

TYPED_TEST(ZeroInputsTest, ForwardIsTheSumOverAllInputsBitByBit) {
  using T = TypeParam;
  for (const std::size_t outputs : {kOutputs, kManyOutputs}) {
    AlignedBuffer<T> weights(kInputs * outputs + kLanes);
    AlignedBuffer<T> bias(outputs);
    fill_uniform(weights.span(), 3);
    fill_uniform(bias.span(), 4);
    AlignedBuffer<T> scratch(multiply_scratch<T>(1, kInputs, outputs));
    for (const bool transposed : {false, true}) {
      const std::size_t input_step = transposed ? 1 : outputs;
      const std::size_t output_step = transposed ? kInputs : 1;
      for (const Zeros zeros : kZeros) {
        const Matrix<T> x = sample_with<T>(zeros);
        Matrix<T> expected(1, outputs);
        for (std::size_t j = 0; j < outputs; ++j) {
          T sum = 0;
          for (std::size_t block = 0; block < kInputs; block += kDepthBlock) {
            T part = 0;
            for (std::size_t i = block; i < std::min(kInputs, block + kDepthBlock); ++i) {
              const T weight = weights.data()[i * input_step + j * output_step];
              part = std::fma(x.view().row(kRow)[i], weight, part);
            }
            sum = block == 0 ? part : sum + part;
          }
          expected.view().row(0)[j] = bias.data()[j] + sum;
        }
        with_each_instruction_set([&] {
          for (const std::span<T> use : {scratch.span(), std::span<T>()}) {
            Matrix<T> y(1, outputs);
            multiply<T>({sample_of(x), weights.data(), transposed ? kInputs : outputs, transposed,
                         y.view(), bias.data()},
                        use);
            EXPECT_EQ(bytes_of(std::as_const(y).view()), bytes_of(std::as_const(expected).view()))
                << outputs << " outputs, zeros " << static_cast<int>(zeros) << ", transposed "
                << transposed;
          }
        });
      }
    }
  }
}

// A product too small for any other number than -0 must not leave its sign to a sum that goes
// without the zeros after it: as where several rows are multiplied together.
TYPED_TEST(ZeroInputsTest, SumsThatAreZeroHaveOneSign) {
  using T = TypeParam;
  constexpr std::size_t kDepth = kDepthBlock - 5;  // another block would add +0
  const T tiny = std::numeric_limits<T>::min();
  Matrix<T> x(2, kDepth);
  for (std::size_t m = 0; m < 2; ++m) {
    std::fill_n(x.view().row(m), kDepth, T{0});
    x.view().row(m)[3] = -tiny;
  }
  for (const T other : {T{1}, T{-1}}) {
    AlignedBuffer<T> weights(kDepth * kManyOutputs + kLanes);
    std::ranges::fill(weights.span(), other);
    std::fill_n(weights.data() + 3 * kManyOutputs, kManyOutputs, tiny);
    with_each_instruction_set([&] {
      for (const std::size_t rows : {1u, 2u}) {
        Matrix<T> y(rows, kManyOutputs);
        multiply<T>(
            {std::as_const(x).view().top(rows), weights.data(), kManyOutputs, false, y.view()});
        const T* found = y.view().row(0);
        EXPECT_TRUE(std::all_of(found, found + kManyOutputs,
                                [](T value) { return value == 0 && !std::signbit(value); }))
            << rows << " rows, other weights " << other;
      }
    });
  }
}

// Under every rule; with penalties plain SGD moves weights without a gradient too.
TYPED_TEST(ZeroInputsTest, ParametersMoveAsByTheGradientOfAllInputs) {
  using T = TypeParam;
  const std::vector<const void*> upcoming(100, &kLeafRows);
  for (const std::size_t outputs : {kFewOutputs, kOutputs}) {
    const std::size_t weights = kInputs * outputs;
    const std::size_t count = round_up(weights, kLanes);
    const auto d_y = uniform_matrix<T>(kRow + 1, outputs, 5);
    for (const Zeros zeros : kZeros) {
      const Matrix<T> x = sample_with<T>(zeros);
      std::vector<T> gradient(count);
      for (std::size_t i = 0; i < kInputs; ++i) {
        for (std::size_t j = 0; j < outputs; ++j) {
          gradient[i * outputs + j] =
              std::fma(x.view().row(kRow)[i], d_y.view().row(kRow)[j], T{0});
        }
      }
      const auto expect_same = [&](UpdateRule rule, bool penalised, Precision precision) {
        Moving<T> expected(rule, count), found(rule, count);
        if (!penalised) expected.u.l1 = expected.u.l2 = found.u.l1 = found.u.l2 = 0;
        kernels<T>().update(expected.u, gradient.data(), count);
        const SubtreeGradient<T> subtree{kLeafRows, {}, &found.u};
        weight_gradients<T>(x.view(), d_y.view(), std::span(&subtree, 1), 0, {}, precision, {},
                            upcoming);
        for (const auto buffer : {&Moving<T>::w, &Moving<T>::m1, &Moving<T>::m2}) {
          const auto bytes = [&](Moving<T>& moving) {  // the padding is no part of it
            return bytes_of<T>((moving.*buffer).span().first(weights));
          };
          EXPECT_EQ(bytes(found), bytes(expected))
              << outputs << " outputs, zeros " << static_cast<int>(zeros) << ", rule "
              << static_cast<int>(rule) << ", penalised " << penalised;
        }
      };
      with_each_instruction_set([&] {
        for (const UpdateRule rule : kAllRules) expect_same(rule, true, Precision::float32);
        expect_same(UpdateRule::sgd, false, Precision::float32);
        expect_same(UpdateRule::sgd, false, Precision::bfloat16);
      });
    }
  }
}

// What tells that zeros are left out: their weights are neither read nor written.
TYPED_TEST(ZeroInputsTest, WeightsOfZerosAreLeftAlone) {
  using T = TypeParam;
  const Matrix<T> x = sample_with<T>(Zeros::some);
  for (const std::size_t outputs : {kFewOutputs, kOutputs}) {
    const auto d_y = uniform_matrix<T>(kRow + 1, outputs, 5);
    // Columns of four whole panels, which all instruction sets sum at once.
    const std::size_t columns = 4 * 32;
    with_each_instruction_set([&] {
      Moving<T> moving(UpdateRule::sgd, round_up(kInputs * outputs, kLanes) + kLanes);
      moving.u.l1 = moving.u.l2 = 0;
      std::vector<std::byte> before, after;
      const auto add_bytes = [&](std::size_t i, std::vector<std::byte>& all) {
        const auto bytes = bytes_of(std::span<const T>(moving.w.data() + i * outputs, outputs));
        all.insert(all.end(), bytes.begin(), bytes.end());
      };
      for (std::size_t i = 0; i < kInputs; ++i) {
        if (x.view().row(kRow)[i] != 0) continue;
        std::fill_n(moving.w.data() + i * outputs, outputs, untouched<T>());
        add_bytes(i, before);
      }
      if (outputs >= columns) {
        Matrix<T> y(1, outputs);
        multiply<T>({sample_of(x), moving.w.data(), outputs, false, y.view()});
        EXPECT_TRUE(std::all_of(y.view().row(0), y.view().row(0) + columns,
                                [](T value) { return std::isfinite(value); }));
      }
      const SubtreeGradient<T> subtree{kLeafRows, {}, &moving.u};
      weight_gradients<T>(x.view(), d_y.view(), std::span(&subtree, 1), 0, {});
      for (std::size_t i = 0; i < kInputs; ++i) {
        if (x.view().row(kRow)[i] == 0) add_bytes(i, after);
      }
      EXPECT_EQ(after, before) << outputs << " outputs";
    });
  }
}

// An input that is no number is not zero.
TYPED_TEST(ZeroInputsTest, NotANumberIsNotLeftOut) {
  using T = TypeParam;
  constexpr std::size_t kPlace = 300;
  Matrix<T> x = sample_with<T>(Zeros::some);
  x.view().row(kRow)[kPlace] = std::numeric_limits<T>::quiet_NaN();
  const auto d_y = uniform_matrix<T>(kRow + 1, kOutputs, 5);
  const auto all_nan = [](const T* values) {
    return std::all_of(values, values + kOutputs, [](T value) { return std::isnan(value); });
  };
  with_each_instruction_set([&] {
    Moving<T> moving(UpdateRule::sgd, round_up(kInputs * kOutputs, kLanes) + kLanes);
    moving.u.l1 = moving.u.l2 = 0;
    Matrix<T> y(1, kOutputs);
    multiply<T>({sample_of(x), moving.w.data(), kOutputs, false, y.view()});
    EXPECT_TRUE(all_nan(y.view().row(0)));
    const SubtreeGradient<T> subtree{kLeafRows, {}, &moving.u};
    weight_gradients<T>(std::as_const(x).view(), d_y.view(), std::span(&subtree, 1), 0, {});
    EXPECT_TRUE(all_nan(moving.w.data() + kPlace * kOutputs));
  });
}

}  // namespace
}  // namespace lockstep::nn

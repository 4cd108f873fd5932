// Inputs of one sample that are zero are left out, together with the weights that they would meet:
// the same bits as by the definition of the sums, on every instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
// Enough that zeros are looked for, with a rest that is no panel, and no register, of its own.
constexpr std::size_t kOutputs = 4 * 32 + 21;

enum class Zeros { none, some, most, all };
constexpr Zeros kZeros[] = {Zeros::none, Zeros::some, Zeros::most, Zeros::all};

// One sample, whose zeros have either sign.
template <class T>
Matrix<T> sample_with(Zeros zeros) {
  Matrix<T> x = uniform_matrix<T>(1, kInputs, 1);
  const Matrix<T> draw = uniform_matrix<T>(1, kInputs, 2);
  for (std::size_t i = 0; i < kInputs; ++i) {
    T& value = x.view().row(0)[i];
    const bool zero = zeros == Zeros::all || (zeros == Zeros::some && draw.view().row(0)[i] < 0) ||
                      (zeros == Zeros::most && i != 5 && i != kInputs - 1);
    if (zero) value = std::copysign(T{0}, value);
  }
  return x;
}

TYPED_TEST(ZeroInputsTest, ForwardIsTheSumOverAllInputsBitByBit) {
  using T = TypeParam;
  AlignedBuffer<T> weights(kInputs * kOutputs);
  AlignedBuffer<T> bias(kOutputs);
  fill_uniform(weights.span(), 3);
  fill_uniform(bias.span(), 4);
  AlignedBuffer<T> scratch(multiply_scratch<T>(1, kInputs, kOutputs));
  for (const bool transposed : {false, true}) {
    const std::size_t input_step = transposed ? 1 : kOutputs;
    const std::size_t output_step = transposed ? kInputs : 1;
    for (const Zeros zeros : kZeros) {
      const Matrix<T> x = sample_with<T>(zeros);
      Matrix<T> expected(1, kOutputs);
      for (std::size_t j = 0; j < kOutputs; ++j) {
        T sum = 0;
        for (std::size_t block = 0; block < kInputs; block += kDepthBlock) {
          T part = 0;
          for (std::size_t i = block; i < std::min(kInputs, block + kDepthBlock); ++i) {
            const T weight = weights.data()[i * input_step + j * output_step];
            part = std::fma(x.view().row(0)[i], weight, part);
          }
          sum = block == 0 ? part : sum + part;
        }
        expected.view().row(0)[j] = bias.data()[j] + sum;
      }
      with_each_instruction_set([&] {
        for (const std::span<T> use : {scratch.span(), std::span<T>()}) {
          Matrix<T> y(1, kOutputs);
          multiply<T>({x.view(), weights.data(), transposed ? kInputs : kOutputs, transposed,
                       y.view(), bias.data()},
                      use);
          EXPECT_EQ(bytes_of(std::as_const(y).view()), bytes_of(std::as_const(expected).view()))
              << "zeros " << static_cast<int>(zeros) << ", transposed " << transposed;
        }
      });
    }
  }
}

// Under every rule, with penalties and without: with a gradient of zero plain SGD without penalties
// moves nothing, the others do.
TYPED_TEST(ZeroInputsTest, ParametersMoveAsByTheGradientOfAllInputs) {
  using T = TypeParam;
  constexpr std::size_t kWeights = kInputs * kOutputs;
  const std::size_t count = round_up(kWeights, kLanes);
  const auto d_y = uniform_matrix<T>(1, kOutputs, 5);
  const std::vector<std::size_t> rows = {0, 0, 0, 0, 1};
  const std::vector<const void*> upcoming(100, &rows);
  for (const Zeros zeros : kZeros) {
    const Matrix<T> x = sample_with<T>(zeros);
    std::vector<T> gradient(count);
    for (std::size_t i = 0; i < kInputs; ++i) {
      for (std::size_t j = 0; j < kOutputs; ++j) {
        gradient[i * kOutputs + j] = std::fma(x.view().row(0)[i], d_y.view().row(0)[j], T{0});
      }
    }
    for (const UpdateRule rule : kAllRules) {
      for (const bool penalised : {true, false}) {
        with_each_instruction_set([&] {
          Moving<T> expected(rule, count), found(rule, count);
          if (!penalised) expected.u.l1 = expected.u.l2 = found.u.l1 = found.u.l2 = 0;
          kernels<T>().update(expected.u, gradient.data(), count);
          const SubtreeGradient<T> subtree{rows, {}, &found.u};
          weight_gradients<T>(x.view(), d_y.view(), std::span(&subtree, 1), 0, {},
                              Precision::float32, {}, upcoming);
          for (const auto buffer : {&Moving<T>::w, &Moving<T>::m1, &Moving<T>::m2}) {
            const auto bytes = [&](Moving<T>& moving) {  // the padding is no part of it
              return bytes_of<T>((moving.*buffer).span().first(kWeights));
            };
            EXPECT_EQ(bytes(found), bytes(expected))
                << "zeros " << static_cast<int>(zeros) << ", rule " << static_cast<int>(rule)
                << ", penalised " << penalised;
          }
        });
      }
    }
  }
}

// What tells that they are left out: a weight that is no number is not read.
TYPED_TEST(ZeroInputsTest, WeightsOfZerosAreNotRead) {
  using T = TypeParam;
  const Matrix<T> x = sample_with<T>(Zeros::some);
  const auto d_y = uniform_matrix<T>(1, kOutputs, 5);
  Moving<T> moving(UpdateRule::sgd, round_up(kInputs * kOutputs, kLanes));
  moving.u.l1 = moving.u.l2 = 0;
  // Columns of four whole panels, which all instruction sets sum at once.
  constexpr std::size_t kColumns = 4 * 32;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (x.view().row(0)[i] != 0) continue;
    std::fill_n(moving.w.data() + i * kOutputs, kColumns, std::numeric_limits<T>::quiet_NaN());
  }
  with_each_instruction_set([&] {
    Matrix<T> y(1, kOutputs);
    multiply<T>({x.view(), moving.w.data(), kOutputs, false, y.view()});
    EXPECT_TRUE(std::all_of(y.view().row(0), y.view().row(0) + kColumns,
                            [](T value) { return std::isfinite(value); }));
  });
}

}  // namespace
}  // namespace lockstep::nn

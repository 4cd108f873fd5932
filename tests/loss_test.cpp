#include "nn/loss.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

TEST(Loss, CrossEntropyIsMinusTheLogarithmOfTheClassesShare) {
  const auto z = test::uniform_matrix<double>(6, 21, 1);
  const std::vector<std::int32_t> labels = {0, 20, 3, 4, 5, 19};
  std::vector<double> loss(6);
  std::vector<std::uint8_t> correct(6);
  Matrix<double> d_z(6, 21);
  evaluate_loss<double>(Loss::cross_entropy, z.view(), {labels, {}}, loss, correct, d_z.view());
  for (std::size_t m = 0; m < 6; ++m) {
    double sum = 0;
    for (std::size_t j = 0; j < 21; ++j) sum += std::exp(z.view().row(m)[j]);
    const auto label = static_cast<std::size_t>(labels[m]);
    // 21 terms and a handful of operations round.
    const double tolerance = 64 * std::numeric_limits<double>::epsilon();
    EXPECT_NEAR(loss[m], std::log(sum) - z.view().row(m)[label], tolerance * 10);
    for (std::size_t j = 0; j < 21; ++j) {
      const double share = std::exp(z.view().row(m)[j]) / sum;
      EXPECT_NEAR(d_z.view().row(m)[j], share - (j == label ? 1 : 0), tolerance);
    }
  }
  std::vector<double> without_gradient(6);
  evaluate_loss<double>(Loss::cross_entropy, z.view(), {labels, {}}, without_gradient, correct, {});
  EXPECT_EQ(without_gradient, loss);
}

TEST(Loss, CrossEntropyOfHugeOutputsIsFinite) {
  Matrix<float> z(1, 2);
  z.view().row(0)[0] = 1e30f;
  z.view().row(0)[1] = -1e30f;
  std::vector<float> loss(1);
  std::vector<std::uint8_t> correct(1);
  const std::vector<std::int32_t> labels = {0};
  evaluate_loss<float>(Loss::cross_entropy, std::as_const(z).view(), {labels, {}}, loss, correct,
                       {});
  EXPECT_EQ(loss[0], 0.0f);
  EXPECT_EQ(correct[0], 1);
}

TEST(Loss, MeanSquaredErrorIsTheMeanOverOutputs) {
  const auto y = test::uniform_matrix<double>(4, 19, 2);
  const auto t = test::uniform_matrix<double>(4, 19, 3);
  std::vector<double> loss(4);
  Matrix<double> d_y(4, 19);
  evaluate_loss<double>(Loss::mean_squared_error, y.view(), {{}, t.view()}, loss, {}, d_y.view());
  for (std::size_t m = 0; m < 4; ++m) {
    double sum = 0;
    for (std::size_t j = 0; j < 19; ++j) {
      const double error = y.view().row(m)[j] - t.view().row(m)[j];
      sum += error * error;
      EXPECT_DOUBLE_EQ(d_y.view().row(m)[j], 2 * error / 19);
    }
    EXPECT_NEAR(loss[m], sum / 19, 24 * std::numeric_limits<double>::epsilon() * loss[m]);
  }
}

TEST(Loss, PredictedClass) {
  EXPECT_EQ(predicted_class<float>(std::vector<float>{0.1f, 3.0f, 2.0f}), 1);
  EXPECT_EQ(predicted_class<float>(std::vector<float>{2.0f, 2.0f}), 0);
  EXPECT_EQ(predicted_class<float>(std::vector<float>{0.49f}), 0);
  EXPECT_EQ(predicted_class<float>(std::vector<float>{0.5f}), 1);
}

}  // namespace
}  // namespace lockstep::nn

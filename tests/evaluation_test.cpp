#include "trainer/evaluation.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "comm_main.hpp"
#include "small_dataset.hpp"

namespace lockstep::trainer {
namespace {

using comm::test::world;

// Sample counts around the block of 512 that evaluation is cut into, and fewer than ranks.
const std::vector<std::size_t> kCounts = {1, 2, 511, 512, 513, 2000};

nn::Network<float> network_of(std::size_t outputs, nn::Loss loss) {
  nn::LayerDescription layer;
  layer.dense.outputs = outputs;
  return nn::Network<float>(5, std::span(&layer, 1), loss);
}

nn::AlignedBuffer<float> parameters_of(const nn::Network<float>& network) {
  nn::AlignedBuffer<float> parameters(network.layout().buffer_size());
  network.initialize(3, parameters.span());
  return parameters;
}

// The outputs of the one dense layer, in double.
std::vector<double> outputs_of(const nn::AlignedBuffer<float>& parameters,
                               const datasets::Dataset& data, std::size_t row,
                               std::size_t outputs) {
  std::vector<float> x(5);
  data.copy_sample(row, x.data());
  std::vector<double> z(outputs);
  for (std::size_t i = 0; i < outputs; ++i) {
    for (std::size_t j = 0; j < 5; ++j) {
      z[i] += static_cast<double>(parameters.data()[j * outputs + i]) * static_cast<double>(x[j]);
    }
  }
  return z;
}

// Sums of five products and a loss of a few operations, in float.
constexpr double kTolerance = 32 * 1.2e-7;

TEST(Evaluation, CountsEverySampleOnceOnAnyNumberOfRanks) {
  const auto network = network_of(3, nn::Loss::cross_entropy);
  const auto parameters = parameters_of(network);
  for (const std::size_t count : kCounts) {
    const auto data = test::small_dataset(count);
    double loss = 0;
    double correct = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto z = outputs_of(parameters, data, i, 3);
      const auto label = static_cast<std::size_t>(data.label(i));
      loss += std::log(std::exp(z[0]) + std::exp(z[1]) + std::exp(z[2])) - z[label];
      correct += std::ranges::max_element(z) - z.begin() == data.label(i) ? 1 : 0;
    }
    const Evaluation found = evaluate(network, parameters.span(), data, all_rows(count), world());
    EXPECT_EQ(found.samples, count);
    EXPECT_NEAR(found.loss, loss / static_cast<double>(count), kTolerance * (1 + found.loss));
    ASSERT_TRUE(found.accuracy.has_value());
    // Two outputs that float holds for equal may be told apart in double: one sample's worth.
    EXPECT_NEAR(*found.accuracy, correct / static_cast<double>(count),
                1.0 / static_cast<double>(count) + 1e-12);
  }
}

TEST(Evaluation, IsTheSameOnEveryRank) {
  const auto network = network_of(3, nn::Loss::cross_entropy);
  const auto parameters = parameters_of(network);
  const auto data = test::small_dataset(2000);
  const Evaluation mine = evaluate(network, parameters.span(), data, all_rows(2000), world());
  std::vector<double> all(world().size());
  world().all_gather(std::span(&mine.loss, 1), std::vector<std::size_t>(world().size(), 1), all);
  for (const double loss : all) EXPECT_EQ(loss, mine.loss);
}

TEST(Evaluation, OfRealTargetsHasNoAccuracy) {
  const auto network = network_of(1, nn::Loss::mean_squared_error);
  const auto parameters = parameters_of(network);
  const auto data = test::small_dataset(700, false);
  double loss = 0;
  for (std::size_t i = 0; i < 700; ++i) {
    float target = 0;
    data.copy_targets(i, &target);
    const double error = outputs_of(parameters, data, i, 1)[0] - static_cast<double>(target);
    loss += error * error;
  }
  const Evaluation found = evaluate(network, parameters.span(), data, all_rows(700), world());
  EXPECT_NEAR(found.loss, loss / 700, kTolerance * (1 + found.loss));
  EXPECT_FALSE(found.accuracy.has_value());
}

TEST(Predict, SharesOfTheRanksAreDisjointAndCoverAll) {
  const auto network = network_of(3, nn::Loss::cross_entropy);
  const auto parameters = parameters_of(network);
  for (const std::size_t count : kCounts) {
    const auto data = test::small_dataset(count);
    for (const std::size_t ranks : {1u, 2u, 3u, 7u}) {
      std::vector<int> seen(count);
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        predict(network, parameters.span(), data, all_rows(count), rank, ranks,
                [&](std::uint32_t row, std::span<const float> outputs) {
                  ++seen[row];
                  EXPECT_NEAR(outputs[0] + outputs[1] + outputs[2], 1.0f, 4 * 1.2e-7f);
                });
      }
      EXPECT_EQ(std::ranges::count(seen, 1), static_cast<std::ptrdiff_t>(count));
    }
  }
}

}  // namespace
}  // namespace lockstep::trainer

#include "trainer/batch.hpp"

#include <gtest/gtest.h>

#include "small_dataset.hpp"

namespace lockstep::trainer {
namespace {

nn::Network<float> network_of(std::size_t outputs, nn::Loss loss) {
  nn::LayerDescription layer;
  layer.dense.outputs = outputs;
  return nn::Network<float>(5, std::span(&layer, 1), loss);
}

const std::vector<std::uint32_t> kRows = {7, 0, 19, 7};

TEST(Batch, BringsInputsAndLabelsOfTheRowsAsked) {
  const auto data = test::small_dataset(20);
  const auto network = network_of(3, nn::Loss::cross_entropy);
  Batch batch(network, data, 4);
  nn::Matrix<float> inputs(4, 5);
  batch.fill(kRows, inputs.view());
  for (std::size_t m = 0; m < 4; ++m) {
    std::vector<float> sample(5);
    data.copy_sample(kRows[m], sample.data());
    EXPECT_TRUE(std::equal(sample.begin(), sample.end(), inputs.view().row(m)));
    EXPECT_EQ(batch.targets().labels[m], data.label(kRows[m]));
  }
  EXPECT_TRUE(batch.targets().values.empty());
}

TEST(Batch, ClassesStandAsOneHotUnderMeanSquaredError) {
  const auto data = test::small_dataset(20);
  const auto network = network_of(3, nn::Loss::mean_squared_error);
  Batch batch(network, data, 4);
  nn::Matrix<float> inputs(4, 5);
  batch.fill(kRows, inputs.view());
  for (std::size_t m = 0; m < 4; ++m) {
    for (std::int32_t j = 0; j < 3; ++j) {
      EXPECT_EQ(batch.targets().values.row(m)[j], j == data.label(kRows[m]) ? 1.0f : 0.0f);
    }
  }
}

TEST(Batch, RealTargetsComeAsTheyAre) {
  const auto data = test::small_dataset(20, false);
  const auto network = network_of(1, nn::Loss::mean_squared_error);
  Batch batch(network, data, 4);
  nn::Matrix<float> inputs(4, 5);
  batch.fill(kRows, inputs.view());
  for (std::size_t m = 0; m < 4; ++m) {
    float target = 0;
    data.copy_targets(kRows[m], &target);
    EXPECT_EQ(batch.targets().values.row(m)[0], target);
  }
  EXPECT_TRUE(batch.targets().labels.empty());
}

}  // namespace
}  // namespace lockstep::trainer

#include "nn/network.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"
#include "nn/product.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

LayerDescription dense(std::size_t outputs, Activation activation) {
  LayerDescription layer;
  layer.dense.outputs = outputs;
  layer.dense.activation = activation;
  return layer;
}

LayerDescription of_kind(LayerDescription::Kind kind) {
  LayerDescription layer;
  layer.kind = kind;
  layer.activation = Activation::softmax;
  layer.rate = 0.5;
  return layer;
}

TEST(Network, CountsTheParametersOfTheNotesNetwork) {
  const std::vector<LayerDescription> layers = {
      dense(16, Activation::sigmoid), dense(16, Activation::sigmoid), dense(10, Activation::none)};
  EXPECT_EQ(Network<float>(784, layers, Loss::cross_entropy).layout().count(), 13'002u);
}

TEST(Network, NamesParametersByTheirEntry) {
  const std::vector<LayerDescription> layers = {dense(4, Activation::relu),
                                                of_kind(LayerDescription::Kind::dropout),
                                                dense(3, Activation::none)};
  const Network<float> network(5, layers, Loss::cross_entropy);
  std::vector<std::string> names;
  for (const ParameterTensor& tensor : network.layout().tensors()) names.push_back(tensor.name);
  EXPECT_EQ(names, (std::vector<std::string>{"0.weight", "0.bias", "2.weight", "2.bias"}));
  EXPECT_EQ(network.layout().tensors()[0].shape, (std::vector<std::size_t>{4, 5}));
  for (const ParameterTensor& tensor : network.layout().tensors()) {
    EXPECT_EQ(tensor.offset % kLanes, 0u);
  }
}

TEST(Network, SoftmaxBeforeCrossEntropyIsPartOfTheLoss) {
  const std::vector<LayerDescription> plain = {dense(3, Activation::none)};
  const std::vector<LayerDescription> in_dense = {dense(3, Activation::softmax)};
  const std::vector<LayerDescription> apart = {dense(3, Activation::none),
                                               of_kind(LayerDescription::Kind::activation)};
  for (const auto& layers : {plain, in_dense, apart}) {
    const Network<float> network(5, layers, Loss::cross_entropy);
    ASSERT_EQ(network.layers().size(), 1u);
    EXPECT_EQ(network.layers()[0]->describe(), "dense 5 -> 3");
  }
  EXPECT_EQ(Network<float>(5, apart, Loss::mean_squared_error).layers().size(), 2u);
}

TEST(Network, WithoutParametersIsAnError) {
  const std::vector<LayerDescription> layers = {of_kind(LayerDescription::Kind::dropout)};
  EXPECT_THROW(Network<float>(5, layers, Loss::cross_entropy), std::invalid_argument);
  EXPECT_THROW(Network<float>(5, {}, Loss::cross_entropy), std::invalid_argument);
}

TEST(Network, SubtreesTogetherAreTheWholeTree) {
  const std::vector<LayerDescription> layers = {dense(20, Activation::tanh),
                                                dense(3, Activation::none)};
  const Network<float> network(30, layers, Loss::cross_entropy);
  AlignedBuffer<float> parameters(network.layout().buffer_size());
  network.initialize(1, parameters.span());
  constexpr std::size_t kRows = 50;
  Workspace<float> workspace(network, kRows, true);
  const auto x = test::uniform_matrix<float>(kRows, 30, 2);
  for (std::size_t m = 0; m < kRows; ++m) {
    std::copy_n(x.view().row(m), 30, workspace.input().row(m));
  }
  std::vector<std::int32_t> labels(kRows, 1);

  const auto gradients = [&](const std::vector<std::vector<std::size_t>>& subtrees) {
    const Pass pass{.training = true, .seed = 1, .step = 1, .first_sample = 0};
    std::vector<float> loss(kRows);
    std::vector<std::uint8_t> correct(kRows);
    const auto outputs = network.forward(pass, parameters.span(), kRows, workspace);
    evaluate_loss<float>(Loss::cross_entropy, outputs, {labels, {}}, loss, correct,
                         workspace.d_outputs());
    std::vector<AlignedBuffer<float>> buffers;
    std::vector<SubtreeGradient<float>> views;
    for (std::size_t i = 0; i < subtrees.size(); ++i) {
      buffers.emplace_back(network.layout().buffer_size());
    }
    for (std::size_t i = 0; i < subtrees.size(); ++i) {
      views.push_back({subtrees[i], buffers[i].span()});
    }
    network.backward(pass, parameters.span(), kRows, workspace, views);
    return buffers;
  };
  const auto whole = gradients({{0, 12, 25, 37, 50}});
  const auto parts = gradients({{0, 12}, {12, 25}, {25, 37, 50}});
  for (std::size_t i = 0; i < whole[0].size(); ++i) {
    const float left = parts[0].data()[i] + parts[1].data()[i];
    EXPECT_EQ(whole[0].data()[i], left + parts[2].data()[i]) << i;
  }
}

// Moves parameters as soon as they are free: to nothing that a product could use.
class Mover : public ParameterFlow {
 public:
  Mover(bool carries, std::span<float> parameters) : carries_(carries), parameters_(parameters) {}
  void before_reading(std::size_t) override {}
  void final_from(std::size_t begin, Parameters parameters) override {
    std::size_t& last = parameters == Parameters::free ? free_from : final_from_;
    EXPECT_LE(begin, last);
    last = begin;
    if (parameters == Parameters::in_use) {
      ++in_use;
    } else {
      ++free;
      std::ranges::fill(parameters_.subspan(begin), std::numeric_limits<float>::quiet_NaN());
    }
  }
  bool carries_sums_meanwhile() const override { return carries_; }

  std::size_t free_from = static_cast<std::size_t>(-1);
  std::size_t free = 0, in_use = 0;  // how often it was told so

 private:
  std::size_t final_from_ = static_cast<std::size_t>(-1);
  bool carries_;
  std::span<float> parameters_;
};

// With leaves of very few samples, of a few, and of so many that factors are packed.
class FreeParameters : public ::testing::TestWithParam<std::vector<std::size_t>> {};
INSTANTIATE_TEST_SUITE_P(Leaves, FreeParameters,
                         ::testing::Values(std::vector<std::size_t>{0, 1, 3},
                                           std::vector<std::size_t>{0, 5, 12},
                                           std::vector<std::size_t>{0, 40, 90}));

TEST_P(FreeParameters, AreNotReadAgain) {
  constexpr std::size_t kInputs = 700, kWide = 1000;
  const std::vector<LayerDescription> layers = {
      dense(kWide, Activation::relu), of_kind(LayerDescription::Kind::batch_norm),
      dense(kWide, Activation::relu), dense(3, Activation::none)};
  const std::vector<std::size_t> leaves = GetParam();
  const std::size_t rows = leaves.back();
  const std::vector<SubtreeRows> subtrees = {leaves};
  const auto x = test::uniform_matrix<float>(rows, kInputs, 2);
  const auto gradient_with = [&](Precision precision,
                                 const std::function<ParameterFlow*(std::span<float>)>& flow) {
    const Network<float> network(kInputs, layers, Loss::mean_squared_error, precision);
    AlignedBuffer<float> parameters(network.layout().buffer_size());
    network.initialize(1, parameters.span());
    Workspace<float> workspace(network, rows, true);
    for (std::size_t m = 0; m < rows; ++m) {
      std::copy_n(x.view().row(m), kInputs, workspace.input().row(m));
    }
    const Pass pass{.training = true,
                    .flow = flow(parameters.span()),
                    .subtrees = subtrees,
                    .batch_samples = rows};
    network.forward(pass, parameters.span(), rows, workspace);
    const auto d_y = workspace.d_outputs();
    for (std::size_t m = 0; m < rows; ++m) std::fill_n(d_y.row(m), 3, 1.0f);
    AlignedBuffer<float> gradient(network.layout().buffer_size());
    const std::vector<SubtreeGradient<float>> views = {{leaves, gradient.span()}};
    network.backward(pass, parameters.span(), rows, workspace, views);
    return std::vector<float>(gradient.span().begin(), gradient.span().end());
  };
  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    const auto expected = gradient_with(precision, [](std::span<float>) { return nullptr; });
    for (const bool carries : {false, true}) {
      std::optional<Mover> mover;
      EXPECT_EQ(gradient_with(precision,
                              [&](std::span<float> parameters) {
                                return &mover.emplace(carries, parameters);
                              }),
                expected);
      EXPECT_EQ(mover->free_from, 0u);
      // Weights of a mebibyte and more come in pieces, unless threads share very few samples; where
      // sums travel they come before the input gradient reads them.
      const bool pieces = rows > kFewRows || !others_can_work();
      EXPECT_EQ(mover->free > layers.size(), pieces);
      EXPECT_EQ(mover->in_use > 0, carries);
    }
  }
}

// What a network of one layer computes under bfloat16 is what it computes in float32 of factors
// that were rounded before.
TEST(Network, Bfloat16RoundsTheFactorsOfEveryProduct) {
  constexpr std::size_t kRows = 9, kInputs = 20, kOutputs = 7;
  const std::vector<LayerDescription> layers = {dense(kOutputs, Activation::tanh)};
  const std::vector<std::size_t> leaves = {0, 4, 9};
  struct Result {
    std::vector<float> outputs, gradient;
    bool operator==(const Result&) const = default;
  };
  const auto run = [&](Precision precision, bool round_before) {
    const Network<float> network(kInputs, layers, Loss::mean_squared_error, precision);
    Workspace<float> workspace(network, kRows, true);
    AlignedBuffer<float> parameters(network.layout().buffer_size());
    network.initialize(1, parameters.span());
    const auto x = test::uniform_matrix<float>(kRows, kInputs, 2);
    for (std::size_t m = 0; m < kRows; ++m) {
      std::copy_n(x.view().row(m), kInputs, workspace.input().row(m));
    }
    const auto round = [](MatrixView<float> values) { kernels<float>().round_to_bfloat16(values); };
    if (round_before) {
      const std::size_t weights = network.layout().tensors()[0].size;
      round({parameters.data(), 1, weights, weights});
      round(workspace.input());
    }
    const auto outputs = network.forward({}, parameters.span(), kRows, workspace);
    Result result;
    for (std::size_t m = 0; m < kRows; ++m) {
      for (std::size_t i = 0; i < kOutputs; ++i) result.outputs.push_back(outputs.row(m)[i]);
    }
    // d_y = 1 makes d_z the activation's derivative, which is rounded once.
    const auto d_y = workspace.d_outputs();
    for (std::size_t m = 0; m < kRows; ++m) std::fill_n(d_y.row(m), kOutputs, 1.0f);
    if (round_before) {
      kernels<float>().activation_backward(Activation::tanh, 0, workspace.output(0), d_y);
      round(d_y);
      // With d_z in place of d_y, and an activation whose derivative is one.
      const Network<float> linear(kInputs,
                                  std::vector<LayerDescription>{dense(kOutputs, Activation::none)},
                                  Loss::mean_squared_error);
      AlignedBuffer<float> gradient(network.layout().buffer_size());
      const SubtreeGradient<float> subtree{leaves, gradient.span()};
      linear.backward({}, parameters.span(), kRows, workspace, std::span(&subtree, 1));
      result.gradient.assign(gradient.span().begin(), gradient.span().end());
      return result;
    }
    AlignedBuffer<float> gradient(network.layout().buffer_size());
    const SubtreeGradient<float> subtree{leaves, gradient.span()};
    network.backward({}, parameters.span(), kRows, workspace, std::span(&subtree, 1));
    result.gradient.assign(gradient.span().begin(), gradient.span().end());
    return result;
  };
  const Result rounded = run(Precision::bfloat16, false);
  EXPECT_EQ(rounded, run(Precision::float32, true));
  EXPECT_NE(rounded, run(Precision::float32, false));
}

}  // namespace
}  // namespace lockstep::nn

// Backward against central differences, in double: every layer, activation and loss.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "nn/network.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kRows = 11;
constexpr std::size_t kInputs = 6;
constexpr std::size_t kOutputs = 5;

LayerDescription dense(std::size_t outputs, Activation activation, bool bias = true) {
  LayerDescription layer;
  layer.dense = {outputs, bias, activation, 0.1, Initializer::xavier, 0.0};
  return layer;
}

LayerDescription activation_layer(Activation activation) {
  LayerDescription layer;
  layer.kind = LayerDescription::Kind::activation;
  layer.activation = activation;
  layer.slope = 0.2;
  return layer;
}

LayerDescription dropout(double rate) {
  LayerDescription layer;
  layer.kind = LayerDescription::Kind::dropout;
  layer.rate = rate;
  return layer;
}

LayerDescription batch_norm(NormScope scope, bool affine = true) {
  LayerDescription layer;
  layer.kind = LayerDescription::Kind::batch_norm;
  layer.batch_norm.scope = scope;
  layer.batch_norm.affine = affine;
  layer.batch_norm.leaves = 4;
  // The variance of a leaf of two samples may be next to nothing, and third derivatives grow with
  // the third power of one over its root: this bounds them.
  layer.batch_norm.epsilon = 0.1;
  return layer;
}

struct Case {
  std::string name;
  std::vector<LayerDescription> layers;
  Loss loss;
  bool labels;  // else real targets
};

class GradientCheck : public ::testing::TestWithParam<Case> {
 protected:
  GradientCheck()
      : network_(kInputs, GetParam().layers, GetParam().loss),
        workspace_(network_, kRows, true),
        parameters_(network_.layout().buffer_size()),
        values_(test::uniform_matrix<double>(kRows, network_.outputs(), 5)) {
    network_.initialize(7, parameters_.span());
    // Biases too, or no test would see them.
    for (const ParameterTensor& tensor : network_.layout().tensors()) {
      if (!tensor.is_bias) continue;
      test::fill_uniform(parameters_.span().subspan(tensor.offset, tensor.size), 3);
    }
    const auto x = test::uniform_matrix<double>(kRows, kInputs, 4);
    for (std::size_t m = 0; m < kRows; ++m) {
      std::copy_n(x.view().row(m), kInputs, workspace_.input().row(m));
      labels_.push_back(static_cast<std::int32_t>(m % kOutputs));
    }
  }

  // The sum over samples of the loss; with a gradient, d_outputs holds the loss's.
  double total_loss(bool gradient) {
    Targets<double> targets;
    if (GetParam().labels) targets.labels = labels_;
    if (GetParam().loss == Loss::mean_squared_error) targets.values = values_.view();
    const auto outputs = network_.forward(pass_, parameters_.span(), kRows, workspace_);
    std::vector<double> loss(kRows);
    std::vector<std::uint8_t> correct(kRows);
    evaluate_loss<double>(GetParam().loss, outputs, targets, loss, correct,
                          gradient ? workspace_.d_outputs() : MatrixView<double>{});
    double sum = 0;
    for (const double l : loss) sum += l;
    return sum;
  }

  const std::vector<std::size_t> rows_ = {0, 2, 2, 7, kRows};  // leaves, one of them empty
  const SubtreeRows subtree_{rows_};
  const Pass pass_{.training = true,
                   .seed = 11,
                   .step = 3,
                   .first_sample = 2,
                   .subtrees = {&subtree_, 1},
                   .batch_samples = kRows};
  Network<double> network_;
  Workspace<double> workspace_;
  AlignedBuffer<double> parameters_;
  Matrix<double> values_;
  std::vector<std::int32_t> labels_;
};

TEST_P(GradientCheck, BackwardAgreesWithCentralDifferences) {
  const double loss = total_loss(true);
  AlignedBuffer<double> gradient(parameters_.size());
  const std::vector<SubtreeGradient<double>> subtrees = {{rows_, gradient.span()}};
  network_.backward(pass_, parameters_.span(), kRows, workspace_, subtrees);

  // The difference quotient is off by h^2 / 6 times a third derivative, at most a few hundred for
  // these sums over 11 samples, and by the rounding of two losses, a hundred operations deep, over
  // h.
  const double h = 1e-5;
  const double tolerance =
      200 * h * h + 100 * std::numeric_limits<double>::epsilon() * std::max(1.0, loss) / h;
  for (const ParameterTensor& tensor : network_.layout().tensors()) {
    if (!tensor.is_trained) continue;
    for (std::size_t i = 0; i < tensor.size; ++i) {
      double& w = parameters_.data()[tensor.offset + i];
      const double before = w;
      w = before + h;
      const double above = total_loss(false);
      w = before - h;
      const double below = total_loss(false);
      w = before;
      EXPECT_NEAR(gradient.data()[tensor.offset + i], (above - below) / (2 * h), tolerance)
          << tensor.name << "[" << i << "]";
    }
  }
}

TEST_P(GradientCheck, GradientIsNotJustZero) {
  total_loss(true);
  AlignedBuffer<double> gradient(parameters_.size());
  const std::vector<SubtreeGradient<double>> subtrees = {{rows_, gradient.span()}};
  network_.backward(pass_, parameters_.span(), kRows, workspace_, subtrees);
  for (const ParameterTensor& tensor : network_.layout().tensors()) {
    if (!tensor.is_trained) continue;
    double most = 0;
    for (const double g : gradient.span().subspan(tensor.offset, tensor.size)) {
      most = std::max(most, std::abs(g));
    }
    EXPECT_GT(most, 1e-3) << tensor.name;
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Activation activation :
       {Activation::none, Activation::sigmoid, Activation::tanh, Activation::relu,
        Activation::leaky_relu, Activation::softmax}) {
    const std::string name(name_of(activation));
    cases.push_back({"dense_" + name + "_cross_entropy",
                     {dense(9, activation), dense(kOutputs, Activation::none)},
                     Loss::cross_entropy,
                     true});
    cases.push_back(
        {"layer_" + name + "_mean_squared_error",
         {dense(8, Activation::none), activation_layer(activation), dense(kOutputs, activation)},
         Loss::mean_squared_error,
         false});
  }
  cases.push_back({"without_bias",
                   {dense(7, Activation::tanh, false), dense(kOutputs, Activation::none, false)},
                   Loss::cross_entropy,
                   true});
  cases.push_back({"dropout",
                   {dense(20, Activation::tanh), dropout(0.4), dense(kOutputs, Activation::none)},
                   Loss::cross_entropy,
                   true});
  // Without biases before them, whose gradient is rightly zero.
  for (const NormScope scope : {NormScope::batch, NormScope::leaf}) {
    const std::string name = "batch_norm_" + std::string(kNormScopeNames[std::size_t(scope)]);
    const auto layers = [&](bool affine) -> std::vector<LayerDescription> {
      return {dense(20, Activation::none, false), batch_norm(scope, affine),
              activation_layer(Activation::tanh), dense(9, Activation::none, false),
              batch_norm(scope, affine),          dense(kOutputs, Activation::none)};
    };
    cases.push_back({name, layers(true), Loss::cross_entropy, true});
    cases.push_back({name + "_not_affine", layers(false), Loss::mean_squared_error, false});
    cases.push_back({name + "_first_and_last",
                     {batch_norm(scope), dense(kOutputs, Activation::tanh), batch_norm(scope)},
                     Loss::mean_squared_error,
                     false});
  }
  cases.push_back({"softmax_into_cross_entropy",
                   {dense(9, Activation::sigmoid), dense(kOutputs, Activation::softmax)},
                   Loss::cross_entropy,
                   true});
  cases.push_back({"one_output",
                   {dense(9, Activation::sigmoid), dense(1, Activation::sigmoid)},
                   Loss::mean_squared_error,
                   false});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Networks, GradientCheck, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lockstep::nn

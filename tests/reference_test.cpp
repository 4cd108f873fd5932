// Training against PyTorch: outputs, first gradients, losses and the parameters after ten steps of
// every optimizer, from tests/reference.h5 (made by scripts/reference.py).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "datasets/hdf5.hpp"
#include "nn/network.hpp"
#include "nn/optimizer.hpp"

namespace lockstep::nn {
namespace {

using datasets::hdf5::File;

// One group of the reference file.
class Reference {
 public:
  explicit Reference(std::string name)
      : file_(File::open(REFERENCE_FILE)), name_(std::move(name)) {}

  double number(const std::string& attribute, double otherwise = 0) const {
    if (!file_.has_attribute(name_, attribute)) return otherwise;
    return file_.read_attribute<double>(name_, attribute);
  }
  std::string text(const std::string& attribute) const {
    return file_.read_text_attribute(name_, attribute);
  }
  std::vector<double> values(const std::string& dataset) const {
    return file_.read<double>(name_ + "/" + dataset);
  }
  bool has(const std::string& dataset) const { return file_.is_dataset(name_ + "/" + dataset); }

  Loss loss() const { return loss_named(text("loss")).value(); }

  std::vector<LayerDescription> layers() const {
    std::vector<LayerDescription> layers;
    std::istringstream activations(text("activations"));
    std::string activation;
    for (const std::size_t units : {9u, 7u, 5u}) {
      std::getline(activations, activation, ',');
      LayerDescription layer;
      layer.dense.outputs = units;
      layer.dense.bias = number("bias") != 0;
      const bool apart = number("batch_norm") != 0 && units != 5;
      if (!apart) layer.dense.activation = activation_named(activation).value();
      layer.dense.slope = number("slope");
      layers.push_back(layer);
      if (!apart) continue;
      LayerDescription norm;
      norm.kind = LayerDescription::Kind::batch_norm;
      norm.batch_norm = {.momentum = number("norm_momentum"),
                         .epsilon = number("norm_epsilon"),
                         .affine = number("affine") != 0};
      LayerDescription own;
      own.kind = LayerDescription::Kind::activation;
      own.activation = activation_named(activation).value();
      layers.insert(layers.end(), {norm, own});
    }
    return layers;
  }

  OptimizerOptions optimizer() const {
    OptimizerOptions options;
    options.rule = update_rule_named(text("optimizer")).value();
    options.learning_rate = number("learning_rate");
    options.momentum = number("momentum");
    options.averaged = number("averaged") != 0;
    options.beta1 = number("beta1");
    options.beta2 = number("beta2");
    options.decay = number("decay");
    options.l1 = number("l1");
    options.l2 = number("l2");
    options.weight_decay = number("weight_decay");
    options.penalise_biases = number("biases") != 0;
    options.clip_norm = number("clip_norm");
    return options;  // epsilon stays at its default, which is to be the reference's
  }

 private:
  File file_;
  std::string name_;
};

// A network in the reference's initial state, with its data.
template <class T>
class Replica {
 public:
  Replica(const Reference& reference, Loss loss)
      : network_(12, reference.layers(), loss),
        workspace_(network_, 100, true),
        parameters_(network_.layout().buffer_size()),
        gradient_(network_.layout().trained_size()),
        inputs_(reference.values("x")) {
    for (const ParameterTensor& tensor : network_.layout().tensors()) {
      const auto initial = reference.values("initial/" + tensor.name);
      tensor.put(std::span<const double>(initial), parameters_.span());
    }
    if (!reference.has("y")) return;
    const auto y = reference.values("y");
    if (loss == Loss::cross_entropy) {
      for (const double label : y) labels_.push_back(static_cast<std::int32_t>(label));
    } else {
      values_ = Matrix<T>(100, 5);
      for (std::size_t i = 0; i < 500; ++i) {
        values_.view().row(i / 5)[i % 5] = static_cast<T>(y[i]);
      }
    }
  }

  MatrixView<const T> forward(std::size_t first, std::size_t rows, const Pass& pass = {}) {
    for (std::size_t i = 0; i < rows * 12; ++i) {
      workspace_.input().row(i / 12)[i % 12] = static_cast<T>(inputs_[first * 12 + i]);
    }
    return network_.forward(pass, parameters_.span(), rows, workspace_);
  }

  // The gradient's sum over ten samples, in eight leaves, of which statistics then know; returns
  // the mean loss.
  double gradient_of_batch(std::size_t first) {
    constexpr std::size_t kBatch = 10;
    std::vector<std::size_t> rows;
    for (std::size_t l = 0; l <= 8; ++l) rows.push_back(l * kBatch / 8);
    const SubtreeRows whole(rows);
    const Pass pass{.training = true, .step = 1, .subtrees = {&whole, 1}, .batch_samples = kBatch};
    const auto outputs = forward(first, kBatch, pass);
    Targets<T> targets;
    if (!labels_.empty()) targets.labels = std::span(labels_).subspan(first, kBatch);
    if (values_.rows() > 0) {
      targets.values = {values_.view().row(first), kBatch, 5, values_.view().stride};
    }
    std::vector<T> loss(kBatch);
    std::vector<std::uint8_t> correct(kBatch);
    evaluate_loss<T>(network_.loss(), outputs, targets, loss, correct,
                     workspace_.d_outputs().top(kBatch));
    const std::vector<SubtreeGradient<T>> subtrees = {{rows, gradient_.span()}};
    network_.backward(pass, parameters_.span(), kBatch, workspace_, subtrees);
    network_.update_statistics(pass, parameters_.span(), workspace_);
    double sum = 0;
    for (const T l : loss) sum += static_cast<double>(l);
    return sum / kBatch;
  }

  const Network<T>& network() const { return network_; }
  std::span<T> parameters() { return parameters_.span(); }
  std::span<const T> gradient() const { return gradient_.span(); }

 private:
  Network<T> network_;
  Workspace<T> workspace_;
  AlignedBuffer<T> parameters_;
  AlignedBuffer<T> gradient_;
  std::vector<double> inputs_;
  std::vector<std::int32_t> labels_;
  Matrix<T> values_;
};

template <class T>
constexpr double kEpsilon = static_cast<double>(std::numeric_limits<T>::epsilon());

double largest(const std::vector<double>& v) {
  double most = 0;
  for (const double x : v) most = std::max(most, std::abs(x));
  return most;
}

// How far rounding may take ten steps is for the reference itself to tell: its own runs in float
// and in double differ by what rounding at float's unit did in one order of operations. Ours is
// another order of as many operations, so a few times that, and for double in proportion to its
// unit; plus what every one of about 32 operations on the parameter itself may round.
template <class T>
double tolerance(const std::vector<double>& in_double, const std::vector<double>& in_float) {
  double apart = 0;
  for (std::size_t i = 0; i < in_double.size(); ++i) {
    apart = std::max(apart, std::abs(in_double[i] - in_float[i]));
  }
  return 8 * apart * kEpsilon<T> / kEpsilon<float> + 32 * kEpsilon<T> * largest(in_double);
}

template <class T>
void expect_ten_steps(const std::string& name) {
  SCOPED_TRACE(name + (sizeof(T) == 4 ? " in float" : " in double"));
  const Reference reference(name);
  Replica<T> replica(reference, reference.loss());
  Optimizer<T> optimizer(replica.network().layout(), reference.optimizer());
  const auto tensors = replica.network().layout().tensors();
  const auto losses = reference.values("losses64");
  for (std::size_t step = 0; step < 10; ++step) {
    const double loss = replica.gradient_of_batch(step * 10);
    // Losses come early in the chain; a thousand units cover ten steps of some hundred operations.
    EXPECT_NEAR(loss, losses[step], 1000 * kEpsilon<T> * std::max(1.0, losses[step])) << step;
    if (step == 0) {
      for (const ParameterTensor& tensor : tensors) {
        if (!tensor.is_trained) continue;
        const auto expected = reference.values("gradient64/" + tensor.name);
        const auto found = tensor.values_in(std::span<const T>(replica.gradient()));
        for (std::size_t i = 0; i < tensor.size; ++i) {
          // A gradient goes through fewer than 100 roundings of terms no larger than the largest.
          EXPECT_NEAR(static_cast<double>(found[i]) / 10, expected[i],
                      100 * kEpsilon<T> * largest(expected))
              << tensor.name << " " << i;
        }
      }
    }
    optimizer.update(step + 1, 10, replica.parameters(), replica.gradient());
  }
  for (const ParameterTensor& tensor : tensors) {
    const auto expected = reference.values("final64/" + tensor.name);
    const double allowed = tolerance<T>(expected, reference.values("final32/" + tensor.name));
    const auto found = tensor.values_in(std::span<const T>(replica.parameters()));
    for (std::size_t i = 0; i < tensor.size; ++i) {
      EXPECT_NEAR(static_cast<double>(found[i]), expected[i], allowed) << tensor.name << " " << i;
    }
  }
  if (!reference.has("evaluated64")) return;
  const auto outputs = replica.forward(0, 100);
  const auto expected = reference.values("evaluated64");
  const double allowed = tolerance<T>(expected, reference.values("evaluated32"));
  for (std::size_t i = 0; i < 500; ++i) {
    EXPECT_NEAR(static_cast<double>(outputs.row(i / 5)[i % 5]), expected[i], allowed) << i;
  }
}

class ReferenceTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ReferenceTest, TenStepsInDouble) {
  expect_ten_steps<double>(GetParam());
}
TEST_P(ReferenceTest, TenStepsInFloat) {
  expect_ten_steps<float>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(PyTorch, ReferenceTest,
                         ::testing::Values("adagrad", "adam", "adam_l2", "adam_l2_batch_norm",
                                           "adam_tanh_mse", "lamb", "lamb_batch_norm",
                                           "lamb_clip_norm", "lamb_l2_biases", "lamb_weight_decay",
                                           "momentum", "momentum_averaged", "momentum_batch_norm",
                                           "rmsprop", "sgd_batch_norm_not_affine", "sgd_l1",
                                           "sgd_l1_l2", "sgd_leaky_relu", "sgd_mixed_mse",
                                           "sgd_no_bias", "sgd_sigmoid", "sgd_tanh_mse"),
                         [](const auto& test) { return test.param; });

TEST(ReferenceOutputs, SoftmaxOverLeakyRelu) {
  const Reference reference("forward");
  Replica<double> replica(reference, Loss::mean_squared_error);
  const auto outputs = replica.forward(0, 100);
  const auto expected = reference.values("outputs64");
  for (std::size_t i = 0; i < 500; ++i) {
    EXPECT_NEAR(outputs.row(i / 5)[i % 5], expected[i], 100 * kEpsilon<double>) << i;
  }
}

TEST(ReferenceFile, HasNoCaseThatIsNotTested) {
  const File file = File::open(REFERENCE_FILE);
  EXPECT_EQ(file.members("/").size(), 23u);
}

}  // namespace
}  // namespace lockstep::nn

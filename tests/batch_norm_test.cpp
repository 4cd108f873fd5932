// Batch normalisation: its kernels against plain loops, on every instruction set; the layer against
// its formulas, and the same bits however the leaves of a batch are spread. Backward against
// central differences: gradient_check_test.cpp.
#include "nn/batch_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "instruction_sets.hpp"
#include "nn/network.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

using test::bytes_of;
using test::fill_uniform;
using test::uniform_matrix;
using test::with_each_instruction_set;

template <class T>
constexpr double kEpsilon = static_cast<double>(std::numeric_limits<T>::epsilon());

template <class T>
class NormalizationKernels : public ::testing::Test {
 protected:
  static constexpr std::size_t kRows = 600;  // more than a block of a sum
  static constexpr std::size_t kCols = 37;

  NormalizationKernels() {
    int seed = 3;
    for (auto* values : {&mean_, &inverse_, &weight_, &bias_}) {
      *values = AlignedBuffer<T>(round_up(kCols, kLanes));
      fill_uniform(values->span().first(kCols), static_cast<std::uint64_t>(seed++));
    }
    to_ = {mean_.data(), inverse_.data(), weight_.data(), bias_.data()};
  }

  double n(std::size_t m, std::size_t j) const {
    return (double(x_.view().row(m)[j]) - double(mean_.data()[j])) * double(inverse_.data()[j]);
  }
  double x(std::size_t m, std::size_t j) const { return static_cast<double>(x_.view().row(m)[j]); }
  double d_y(std::size_t m, std::size_t j) const {
    return static_cast<double>(d_y_.view().row(m)[j]);
  }

  const std::vector<std::size_t> leaf_rows_ = {0, 10, 10, 300, 301, 590, 600, 600, 600};
  const Matrix<T> x_ = uniform_matrix<T>(kRows, kCols, 1);
  const Matrix<T> d_y_ = uniform_matrix<T>(kRows, kCols, 2);
  AlignedBuffer<T> mean_, inverse_, weight_, bias_;
  Normalization<T> to_;
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NormalizationKernels, Types);

TYPED_TEST(NormalizationKernels, SumsAgreeWithLoopsAndBetweenInstructionSets) {
  using T = TypeParam;
  std::vector<std::byte> first;
  with_each_instruction_set([&] {
    std::vector<T> sums(3 * this->kCols);
    T* squares = sums.data();
    T* d_bias = squares + this->kCols;
    T* d_weight = d_bias + this->kCols;
    kernels<T>().squared_deviations(this->x_.view(), this->mean_.data(), this->leaf_rows_, squares);
    kernels<T>().normalization_gradient(this->to_, this->x_.view(), this->d_y_.view(),
                                        this->leaf_rows_, d_bias, d_weight);
    for (std::size_t j = 0; j < this->kCols; ++j) {
      double square = 0, bias = 0, weight = 0, magnitude = 0;
      for (std::size_t m = 0; m < this->kRows; ++m) {
        const double deviation = this->x(m, j) - double(this->mean_.data()[j]);
        square += deviation * deviation;
        bias += this->d_y(m, j);
        weight += this->d_y(m, j) * this->n(m, j);
        magnitude += std::max(deviation * deviation,
                              std::abs(this->d_y(m, j)) * std::max(1.0, std::abs(this->n(m, j))));
      }
      // A term rounds three times, and then every addition by half a unit of at most the magnitude.
      const double tolerance = double(this->kRows + 3) * kEpsilon<T> * magnitude;
      EXPECT_NEAR(double(squares[j]), square, tolerance);
      EXPECT_NEAR(double(d_bias[j]), bias, tolerance);
      EXPECT_NEAR(double(d_weight[j]), weight, tolerance);
    }
    const auto bytes = bytes_of(std::span<const T>(sums));
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << "bits differ between instruction sets";
  });
}

TYPED_TEST(NormalizationKernels, RowsAgreeWithLoopsAndBetweenInstructionSets) {
  using T = TypeParam;
  AlignedBuffer<T> mean_d_y(round_up(this->kCols, kLanes)), mean_d_y_n(mean_d_y.size());
  fill_uniform(mean_d_y.span(), 8);
  fill_uniform(mean_d_y_n.span(), 9);
  std::vector<std::byte> first;
  with_each_instruction_set([&] {
    Matrix<T> y(this->kRows, this->kCols), plain(this->kRows, this->kCols),
        d_x(this->kRows, this->kCols);
    Normalization<T> without = this->to_;
    without.weight = without.bias = nullptr;
    kernels<T>().normalize(this->to_, this->x_.view(), y.view());
    kernels<T>().normalize(without, this->x_.view(), plain.view());
    kernels<T>().normalization_backward(this->to_, this->x_.view(), this->d_y_.view(),
                                        mean_d_y.data(), mean_d_y_n.data(), d_x.view());
    // Fewer than eight roundings of terms below eight.
    const double tolerance = 64 * kEpsilon<T>;
    for (std::size_t m = 0; m < this->kRows; ++m) {
      for (std::size_t j = 0; j < this->kCols; ++j) {
        const double weight = double(this->weight_.data()[j]);
        EXPECT_NEAR(double(plain.view().row(m)[j]), this->n(m, j), tolerance);
        EXPECT_NEAR(double(y.view().row(m)[j]),
                    this->n(m, j) * weight + double(this->bias_.data()[j]), tolerance);
        EXPECT_NEAR(double(d_x.view().row(m)[j]),
                    weight * double(this->inverse_.data()[j]) *
                        (this->d_y(m, j) - double(mean_d_y.data()[j]) -
                         this->n(m, j) * double(mean_d_y_n.data()[j])),
                    tolerance);
      }
    }
    auto bytes = bytes_of(std::as_const(y).view());
    for (const auto* other : {&plain, &d_x}) {
      const auto more = bytes_of(other->view());
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << "bits differ between instruction sets";
  });
}

// Adds up the subtrees of a rank that has them all, from the left, as the tree does it for those
// below.
class SumOfSubtrees : public BatchSum {
 public:
  explicit SumOfSubtrees(std::size_t subtrees) : subtrees_(subtrees) {}
  std::span<float> partial(std::size_t elements, std::size_t i) override {
    auto& partials = of_size_[elements];
    if (partials.empty()) {
      for (std::size_t s = 0; s < subtrees_; ++s) partials.emplace_back(elements);
    }
    return partials[i].span();
  }
  std::span<const float> total(std::size_t elements) override {
    auto& partials = of_size_[elements];
    for (std::size_t s = 1; s < subtrees_; ++s) {
      for (std::size_t e = 0; e < elements; ++e) partials[0].data()[e] += partials[s].data()[e];
    }
    ++totals;
    return partials[0].span();
  }
  int totals = 0;

 private:
  std::size_t subtrees_;
  std::map<std::size_t, std::vector<AlignedBuffer<float>>> of_size_;
};

constexpr std::size_t kWidth = 70;

class BatchNormTest : public ::testing::Test {
 protected:
  struct Result {
    std::vector<std::byte> y, d_x, gradient, parameters;
    bool operator==(const Result&) const = default;
  };

  // A step over `subtrees`, of which each has the bounds of its leaves.
  Result step(NormScope scope, const std::vector<std::vector<std::size_t>>& subtrees,
              BatchSum* sums, std::size_t leaves) {
    const std::size_t rows = subtrees.back().back();
    ParameterLayout layout;
    const BatchNorm<float> layer("0", kWidth, {.scope = scope, .leaves = leaves}, layout);
    AlignedBuffer<float> parameters(layout.buffer_size());
    layer.initialize(1, parameters.span());
    fill_uniform(parameters.span().first(kWidth), 5);
    const auto x = uniform_matrix<float>(rows, kWidth, 6);
    auto d_y = uniform_matrix<float>(rows, kWidth, 7);
    Matrix<float> y(rows, kWidth), d_x(rows, kWidth);
    AlignedBuffer<float> scratch(layer.scratch_size(rows));
    const std::vector<SubtreeRows> views(subtrees.begin(), subtrees.end());
    const Pass pass{.training = true, .subtrees = views, .batch_samples = rows, .sums = sums};
    std::vector<AlignedBuffer<float>> buffers;
    std::vector<SubtreeGradient<float>> gradients;
    for (const auto& bounds : subtrees) {
      buffers.emplace_back(layout.trained_size());
      gradients.push_back({bounds, buffers.back().span()});
    }
    layer.forward(pass, parameters.span(), x.view(), y.view(), scratch.span());
    layer.backward(pass, parameters.span(), x.view(), y.view(), d_y.view(), d_x.view(), gradients,
                   scratch.span());
    layer.update_statistics(pass, parameters.span(), scratch.span());
    for (std::size_t s = 1; s < buffers.size(); ++s) {
      for (std::size_t e = 0; e < layout.trained_size(); ++e) {
        buffers[0].data()[e] += buffers[s].data()[e];
      }
    }
    last_y_ = std::move(y);
    last_parameters_ = std::move(parameters);
    return {bytes_of(std::as_const(last_y_).view()), bytes_of(std::as_const(d_x).view()),
            bytes_of(std::as_const(buffers[0]).span()),
            bytes_of(std::as_const(last_parameters_).span())};
  }

  // Running mean and variance of a unit: the variance stands first, since it was added last.
  double running_mean(std::size_t j) const {
    return double(last_parameters_.span().last(round_up(kWidth, kLanes))[j]);
  }
  double running_variance(std::size_t j) const {
    return double(last_parameters_.span().last(2 * round_up(kWidth, kLanes))[j]);
  }

  Matrix<float> last_y_;
  AlignedBuffer<float> last_parameters_;
};

TEST_F(BatchNormTest, IsTheSameHoweverLeavesAreSpread) {
  for (const NormScope scope : {NormScope::batch, NormScope::leaf}) {
    const Result whole = step(scope, {{0, 12, 25, 37, 50}}, nullptr, 4);
    for (const std::vector<std::vector<std::size_t>>& subtrees :
         {std::vector<std::vector<std::size_t>>{{0, 12, 25}, {25, 37, 50}},
          std::vector<std::vector<std::size_t>>{{0, 12}, {12, 25}, {25, 37, 50}}}) {
      SumOfSubtrees sums(subtrees.size());
      EXPECT_EQ(step(scope, subtrees, &sums, 4), whole);
      // Two forward and one backward, or one for the statistics of all leaves.
      EXPECT_EQ(sums.totals, scope == NormScope::batch ? 3 : 1);
    }
  }
}

TEST_F(BatchNormTest, BringsEachUnitToWeightAndBias) {
  step(NormScope::batch, {{0, 12, 25, 37, 50}}, nullptr, 4);
  for (std::size_t j = 0; j < kWidth; ++j) {
    double sum = 0, squares = 0;
    for (std::size_t m = 0; m < 50; ++m) {
      const double y = double(last_y_.view().row(m)[j]);
      sum += y;
      squares += y * y;
    }
    const double weight = double(last_parameters_.data()[j]);
    // Roundings of 50 samples of at most four deviations; the variance of x is about 1/3, in which
    // the layer's epsilon is 3e-5.
    EXPECT_NEAR(sum / 50, 0, 50 * kEpsilon<float>);
    EXPECT_NEAR(squares / 50, weight * weight, 1e-4 * weight * weight + 50 * kEpsilon<float>);
  }
}

TEST_F(BatchNormTest, StatisticsAreThoseOfTheBatchOrTheMeanOverLeaves) {
  const std::vector<std::size_t> bounds = {0, 12, 25, 37, 50};
  const auto x = uniform_matrix<float>(50, kWidth, 6);
  const auto of_rows = [&](std::size_t begin, std::size_t end, std::size_t j) {
    double mean = 0, squares = 0;
    for (std::size_t m = begin; m < end; ++m) mean += double(x.view().row(m)[j]);
    mean /= double(end - begin);
    for (std::size_t m = begin; m < end; ++m) {
      squares += std::pow(double(x.view().row(m)[j]) - mean, 2);
    }
    return std::pair{mean, squares / double(end - begin - 1)};
  };
  for (const NormScope scope : {NormScope::batch, NormScope::leaf}) {
    step(scope, {bounds}, nullptr, 4);
    for (std::size_t j = 0; j < kWidth; ++j) {
      auto [mean, variance] = of_rows(0, 50, j);
      if (scope == NormScope::leaf) {
        mean = variance = 0;
        for (std::size_t l = 0; l < 4; ++l) {
          const auto [leaf_mean, leaf_variance] = of_rows(bounds[l], bounds[l + 1], j);
          mean += leaf_mean / 4;
          variance += leaf_variance / 4;
        }
      }
      // Sums of 50 terms of at most one, and a few operations on them.
      EXPECT_NEAR(running_mean(j), 0.1 * mean, 60 * kEpsilon<float>);
      EXPECT_NEAR(running_variance(j), 0.9 + 0.1 * variance, 60 * kEpsilon<float>);
    }
  }
}

TEST_F(BatchNormTest, OneSampleIsItsMeanAndTellsStatisticsNothing) {
  const auto expect_bias = [&] {
    for (std::size_t j = 0; j < kWidth; ++j) {
      EXPECT_EQ(last_y_.view().row(0)[j], 0.0f);
      EXPECT_EQ(running_mean(j), 0);
      EXPECT_EQ(running_variance(j), 1);
    }
  };
  step(NormScope::batch, {{0, 0, 0, 1, 1}}, nullptr, 4);
  expect_bias();
  step(NormScope::leaf, {{0, 1, 3, 4, 6}}, nullptr, 4);
  expect_bias();
}

TEST_F(BatchNormTest, EvaluationUsesTheStatistics) {
  step(NormScope::batch, {{0, 25, 50}}, nullptr, 2);
  ParameterLayout layout;
  const BatchNorm<float> layer("0", kWidth, {}, layout);
  const auto x = uniform_matrix<float>(5, kWidth, 8);
  Matrix<float> y(5, kWidth);
  AlignedBuffer<float> scratch(layer.scratch_size(5));
  layer.forward({}, last_parameters_.span(), x.view(), y.view(), scratch.span());
  for (std::size_t m = 0; m < 5; ++m) {
    for (std::size_t j = 0; j < kWidth; ++j) {
      const double n =
          (double(x.view().row(m)[j]) - running_mean(j)) / std::sqrt(running_variance(j) + 1e-5);
      EXPECT_NEAR(double(y.view().row(m)[j]), n * double(last_parameters_.data()[j]),
                  8 * kEpsilon<float> * std::max(1.0, std::abs(n)));
    }
  }
}

TEST(BatchNormLayout, StatisticsStandBehindAllThatIsTrained) {
  LayerDescription dense, norm;
  dense.dense.outputs = 20;
  norm.kind = LayerDescription::Kind::batch_norm;
  const std::vector<LayerDescription> layers = {dense, norm, dense, norm, dense};
  const Network<float> network(7, layers, Loss::mean_squared_error);
  const ParameterLayout& layout = network.layout();
  EXPECT_EQ(layout.count(), 7 * 20 + 20 + 2 * (20 * 20 + 20) + 2 * 2 * 20u);
  EXPECT_EQ(layout.buffer_size(), layout.trained_size() + 4 * 32);
  std::vector<std::string> names;
  std::vector<bool> taken(layout.buffer_size());
  for (const ParameterTensor& tensor : layout.tensors()) {
    names.push_back(tensor.name);
    EXPECT_EQ(tensor.is_trained, tensor.name.find("running") == std::string::npos);
    EXPECT_EQ(tensor.is_trained, tensor.offset < layout.trained_size());
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
      EXPECT_FALSE(taken[i]) << tensor.name;
      taken[i] = true;
    }
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean",
                                      "1.running_var", "2.weight", "2.bias", "3.weight", "3.bias",
                                      "3.running_mean", "3.running_var", "4.weight", "4.bias"}));
  AlignedBuffer<float> parameters(layout.buffer_size());
  network.initialize(1, parameters.span());
  for (const ParameterTensor& tensor : layout.tensors()) {
    if (tensor.shape.size() == 2) continue;
    const bool one = tensor.name.ends_with("running_var") || tensor.name.ends_with("weight");
    for (const float v : tensor.values_in(std::as_const(parameters).span())) {
      EXPECT_EQ(v, one ? 1.0f : 0.0f) << tensor.name;
    }
  }
}

}  // namespace
}  // namespace lockstep::nn

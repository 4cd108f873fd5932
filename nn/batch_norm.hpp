// Batch normalisation of each unit: y = (x - mean) / sqrt(variance + epsilon) * weight + bias.
//
// S. Ioffe, C. Szegedy, ICML 2015. In training mean and (biased) variance are those of a group of
// samples: of the whole batch, on whatever ranks it is, or with scope `leaf` of each leaf by
// itself. In evaluation they are running statistics, which after every update take in those of the
// batch:
//   running = (1 - momentum) running + momentum value
// where the variance is the unbiased one, as in PyTorch. With scope `leaf` the value is the mean
// over the leaves. In a group of one sample x is its mean, so y = bias there and nothing flows back
// to x; of a batch with such a group the statistics take in nothing, since its variance is not
// known.
//
// Backward, with n = (x - mean) / sqrt(variance + epsilon) and means over the group:
//   d_x = weight / sqrt(variance + epsilon) (d_y - mean(d_y) - n mean(d_y n))
//   d_weight = sum d_y n, d_bias = sum d_y
// Mean and variance are two sums over the batch, one after the other: the variance is that of
// deviations from the mean, since E[x^2] - E[x]^2 would lose what digits the two have in common.
// Backward takes one. With scope `leaf` there is one sum a step, for the statistics, when all else
// is done.
//
// A dense layer right before needs no bias: the mean takes it off again. All of this is in float32,
// also where products round their factors. See nn/layer.hpp for ownership and threads.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/named.hpp"
#include "nn/parameters.hpp"

namespace lockstep::nn {

enum class NormScope { batch, leaf };
inline constexpr std::array<std::string_view, 2> kNormScopeNames = {"batch", "leaf"};

constexpr std::optional<NormScope> norm_scope_named(std::string_view name) {
  return value_named<NormScope>(kNormScopeNames, name);
}

struct BatchNormOptions {
  double momentum = 0.1;  // share of the running statistics that each batch brings, (0, 1]
  double epsilon = 1e-5;  // > 0
  bool affine = true;     // with weight and bias, at first 1 and 0
  NormScope scope = NormScope::batch;
  std::size_t leaves = 0;  // of a batch; only scope `leaf` asks
};

template <class T>
class BatchNorm final : public Layer<T> {
 public:
  // Adds "<name>.weight" and "<name>.bias", if affine, and the statistics "<name>.running_mean" and
  // "<name>.running_var" to the layout. Penalties leave the weight alone as they do biases: it is
  // no factor of inputs.
  BatchNorm(const std::string& name, std::size_t width, const BatchNormOptions& options,
            ParameterLayout& layout);

  std::string describe() const override;
  std::span<const std::size_t> batch_sums() const override;
  bool keeps_scratch() const override { return true; }
  std::size_t scratch_size(std::size_t rows) const override;
  void initialize(std::uint64_t seed, std::span<T> parameters) const override;
  void forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
               MatrixView<T> y, std::span<T> scratch) const override;
  void backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const override;
  void update_statistics(const Pass& pass, std::span<T> parameters,
                         std::span<T> scratch) const override;

 private:
  // What is kept of a group of samples: rows of one table, each padded_ elements long.
  struct Group {
    T* inverse;   // 1 / sqrt(variance + epsilon)
    T* mean;      // with the next: what the running statistics take in
    T* variance;  // unbiased
    T* d_weight;  // with the next: sums over the group, then means
    T* d_bias;
  };
  static constexpr std::size_t kGroupRows = 5;

  Group group(std::span<T> scratch, std::size_t i) const;
  // Rows `first`, first + 1 of the tables of `count` groups from `i` on, as one matrix.
  MatrixView<const T> of_groups(std::span<T> scratch, std::size_t i, std::size_t count,
                                std::size_t first) const;
  Normalization<T> normalization(const Group& group, std::span<const T> parameters) const;
  void set_mean(const Group& group, const T* sums, std::size_t begin, std::size_t cols,
                std::size_t samples) const;
  void set_variance(const Group& group, const T* squares, std::size_t begin, std::size_t cols,
                    std::size_t samples) const;

  void forward_batch(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                     MatrixView<T> y, std::span<T> scratch) const;
  void forward_leaves(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                      MatrixView<T> y, std::span<T> scratch) const;
  void backward_batch(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                      MatrixView<const T> d_y, MatrixView<T> d_x,
                      std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const;
  void backward_leaves(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                       MatrixView<const T> d_y, MatrixView<T> d_x,
                       std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const;

  BatchNormOptions options_;
  std::size_t padded_;  // units, and what fills them up to whole groups of lanes
  std::array<std::size_t, 2> batch_sums_;
  std::size_t weight_offset_ = 0;  // the bias follows at once
  std::size_t mean_from_end_;      // of the flat buffer
  std::size_t variance_from_end_;
};

}  // namespace lockstep::nn

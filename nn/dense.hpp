// A dense (fully connected) layer: y = activation(x Wᵀ + b).
//
// W: outputs × inputs (Wᵀ is what stands in the flat buffer), b: outputs. Backward, with z the sum
// before the activation and m the samples: d_z = d_y activation'(y), d_x = d_z W, dW = sum_m d_zᵀ
// x, db = sum_m d_z; DenseNeighbours tells when d_y and d_x are others. Under bfloat16 x, W and d_z
// are rounded before these products. See nn/layer.hpp for ownership and threads.
#pragma once

#include <string>

#include "nn/activation.hpp"
#include "nn/initializer.hpp"
#include "nn/layer.hpp"
#include "nn/parameters.hpp"
#include "nn/precision.hpp"

namespace lockstep::nn {

struct DenseOptions {
  std::size_t outputs = 0;
  bool bias = true;
  Activation activation = Activation::none;
  double slope = 0.01;  // of leaky_relu, at least 0
  Initializer initializer = Initializer::he;
  double scale = 0.05;  // of the initializer, where it has one; biases start at zero
  Precision precision = Precision::float32;
};

// What a dense layer and those beside it do for one another. Where a dense layer follows another,
// the derivative of the first one's activation is part of the second one's product d_z W.
struct DenseNeighbours {
  // Of the second: the activation that x came out of, not softmax; d_x is the derivative with
  // respect to what went into that. Under float32 alone.
  Activation input_activation = Activation::none;
  double input_slope = 0;  // of leaky_relu
  // Of the first: d_y is d_z.
  bool takes_d_z = false;
};

struct SharedWeights;  // nn/weight_shares.hpp

template <class T>
class Dense final : public Layer<T> {
 public:
  // Adds "<name>.weight" and "<name>.bias" to the layout.
  Dense(const std::string& name, std::size_t inputs, const DenseOptions& options,
        ParameterLayout& layout, const DenseNeighbours& neighbours = {});

  bool multiplies() const override { return true; }
  bool asks_for_upcoming() const override { return true; }
  std::string describe() const override;
  void initialize(std::uint64_t seed, std::span<T> parameters) const override;
  void forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
               MatrixView<T> y, std::span<T> scratch) const override;
  std::size_t scratch_size(std::size_t rows) const override;
  void backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const override;
  void sum_shared(const Pass& pass) const override;

 private:
  // Null: backward() sums the weights' gradient.
  const SharedWeights* shared_weights(const Pass& pass) const;

  void input_gradient(std::span<const T> parameters, MatrixView<const T> x, MatrixView<const T> d_y,
                      MatrixView<T> d_x, std::span<T> scratch) const;
  void bias_gradients(MatrixView<const T> d_y, std::span<const SubtreeGradient<T>> subtrees) const;

  DenseOptions options_;
  DenseNeighbours neighbours_;
  std::size_t weight_index_;  // of the tensor
  ParameterTensor weight_;
  std::size_t bias_offset_ = 0;
};

}  // namespace lockstep::nn

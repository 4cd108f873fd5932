// An activation as a layer of its own: y = activation(x). See nn/activation.hpp for the formulas
// and nn/layer.hpp for ownership and threads.
#pragma once

#include "nn/activation.hpp"
#include "nn/layer.hpp"

namespace lockstep::nn {

template <class T>
class ActivationLayer final : public Layer<T> {
 public:
  ActivationLayer(std::size_t width, Activation activation, double slope)
      : Layer<T>(width, width), activation_(activation), slope_(static_cast<T>(slope)) {}

  std::string describe() const override { return std::string(name_of(activation_)); }
  void forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
               MatrixView<T> y, std::span<T> scratch) const override;
  void backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const override;

 private:
  Activation activation_;
  T slope_;
};

}  // namespace lockstep::nn

#include "nn/dense.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "nn/product.hpp"
#include "nn/weight_gradient.hpp"
#include "nn/weight_shares.hpp"

namespace lockstep::nn {

template <class T>
Dense<T>::Dense(const std::string& name, std::size_t inputs, const DenseOptions& options,
                ParameterLayout& layout, const DenseNeighbours& neighbours)
    : Layer<T>(inputs, options.outputs),
      options_(options),
      neighbours_(neighbours),
      weight_index_(layout.add(name + ".weight", {options.outputs, inputs}, false)),
      weight_(layout.tensors()[weight_index_]) {
  if (options.bias) {
    const std::size_t tensor = layout.add(name + ".bias", {options.outputs}, true);
    bias_offset_ = layout.tensors()[tensor].offset;
  }
}

template <class T>
std::string Dense<T>::describe() const {
  std::string text =
      "dense " + std::to_string(this->inputs()) + " -> " + std::to_string(this->outputs());
  if (!options_.bias) text += ", no bias";
  if (options_.activation != Activation::none) {
    text += ", " + std::string(name_of(options_.activation));
  }
  return text;
}

template <class T>
void Dense<T>::initialize(std::uint64_t seed, std::span<T> parameters) const {
  std::vector<T> weights(weight_.size);
  nn::initialize<T>({options_.initializer, options_.scale, this->inputs(), this->outputs()}, seed,
                    weight_index_, weights);
  weight_.put(std::span<const T>(weights), parameters);
  if (options_.bias) {
    std::ranges::fill(parameters.subspan(bias_offset_, this->outputs()), T{0});
  }
}

template <class T>
void Dense<T>::forward(const Pass&, std::span<const T> parameters, MatrixView<const T> x,
                       MatrixView<T> y, std::span<T> scratch) const {
  Product<T> product;
  product.a = x;
  product.b = parameters.data() + weight_.offset;
  product.b_stride = this->outputs();
  product.precision = options_.precision;
  product.c = y;
  product.bias = options_.bias ? parameters.data() + bias_offset_ : nullptr;
  // Softmax needs the whole row, which no single panel of the product has.
  const bool whole_row = options_.activation == Activation::softmax;
  product.activation = whole_row ? Activation::none : options_.activation;
  product.slope = static_cast<T>(options_.slope);
  multiply(product, scratch);
  if (!whole_row) return;
  const double operations_per_row = 20.0 * static_cast<double>(y.cols);
  for_each_row_block(y.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    kernels<T>().activate(options_.activation, product.slope,
                          {y.row(begin), end - begin, y.cols, y.stride});
  });
}

template <class T>
std::size_t Dense<T>::scratch_size(std::size_t rows) const {
  return std::max({weight_gradient_scratch<T>(rows, this->inputs(), this->outputs()),
                   multiply_scratch<T>(rows, this->inputs(), this->outputs(), options_.precision),
                   multiply_scratch<T>(rows, this->outputs(), this->inputs(), options_.precision)});
}

template <class T>
void Dense<T>::backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                        MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                        std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const {
  const Kernels<T>& kernel = kernels<T>();
  const bool rounded = options_.precision == Precision::bfloat16;
  const Activation derivative = neighbours_.takes_d_z ? Activation::none : options_.activation;
  if (derivative != Activation::none || rounded) {
    const double operations_per_row = 2.0 * static_cast<double>(y.cols);
    for_each_row_block(y.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
      const MatrixView<T> block{d_y.row(begin), end - begin, d_y.cols, d_y.stride};
      kernel.activation_backward(derivative, static_cast<T>(options_.slope),
                                 {y.row(begin), end - begin, y.cols, y.stride}, block);
      if (rounded) kernel.round_to_bfloat16(block);
    });
  }
  if constexpr (std::is_same_v<T, float>) {
    if (const SharedWeights* shared = shared_weights(pass)) {
      share_factors(x, d_y, *shared, options_.precision, *pass.shares);
      input_gradient(parameters, x, d_y, d_x, scratch);
      bias_gradients(d_y, subtrees);
      if (d_x.empty()) ask_for(pass.upcoming);
      return;
    }
  }
  // A rank alone moves the weights as their gradient comes, and so does one that works for the
  // exchange in between: what reads them goes first. Where sums travel beside the pass, the
  // weights' gradient does.
  const bool weights_first =
      pass.flow != nullptr && pass.flow->carries_sums_meanwhile() && !d_x.empty();
  if (!weights_first) input_gradient(parameters, x, d_y, d_x, scratch);
  bias_gradients(d_y, subtrees);
  using Parameters = ParameterFlow::Parameters;
  weight_gradients<T>(x, d_y, subtrees, weight_.offset, scratch, options_.precision,
                      {pass.flow, weights_first ? Parameters::in_use : Parameters::free},
                      d_x.empty() ? pass.upcoming : std::span<const void* const>());
  if (weights_first) {
    pass.flow->final_from(weight_.offset, Parameters::in_use);
    input_gradient(parameters, x, d_y, d_x, scratch);
  }
}

template <class T>
const SharedWeights* Dense<T>::shared_weights(const Pass& pass) const {
  return pass.shares == nullptr ? nullptr : pass.shares->find(weight_.offset);
}

template <class T>
void Dense<T>::sum_shared(const Pass& pass) const {
  const SharedWeights* shared = shared_weights(pass);
  if (shared != nullptr) sum_own_rows(*shared, options_.precision, *pass.shares, pass.flow);
}

template <class T>
void Dense<T>::input_gradient(std::span<const T> parameters, MatrixView<const T> x,
                              MatrixView<const T> d_y, MatrixView<T> d_x,
                              std::span<T> scratch) const {
  if (d_x.empty() || d_y.rows == 0) return;
  Product<T> product;
  product.a = d_y;
  product.b = parameters.data() + weight_.offset;
  product.b_stride = this->outputs();
  product.b_transposed = true;
  product.precision = options_.precision;
  product.c = d_x;
  product.derivative = neighbours_.input_activation;
  product.slope = static_cast<T>(neighbours_.input_slope);
  product.y = x;
  multiply(product, scratch);
}

template <class T>
void Dense<T>::bias_gradients(MatrixView<const T> d_y,
                              std::span<const SubtreeGradient<T>> subtrees) const {
  if (!options_.bias) return;
  for (const SubtreeGradient<T>& subtree : subtrees) {
    T* d_bias = subtree.gradient.data() + bias_offset_;
    bias_gradient<T>(d_y, subtree.leaf_rows, d_bias);
    if (subtree.update != nullptr) {
      kernels<T>().update(subtree.update->at(bias_offset_, true), d_bias,
                          round_up(this->outputs(), kLanes));
    }
  }
}

template class Dense<float>;
template class Dense<double>;

}  // namespace lockstep::nn

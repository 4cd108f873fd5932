#include "nn/network.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "nn/activation_layer.hpp"
#include "nn/dropout.hpp"
#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {
namespace {

using Kind = LayerDescription::Kind;

// The layers without a softmax that the loss takes over.
std::vector<LayerDescription> without_final_softmax(std::span<const LayerDescription> layers,
                                                    Loss loss) {
  std::vector<LayerDescription> rest(layers.begin(), layers.end());
  if (loss != Loss::cross_entropy || rest.empty()) return rest;
  LayerDescription& last = rest.back();
  if (last.kind == Kind::dense && last.dense.activation == Activation::softmax) {
    last.dense.activation = Activation::none;
  } else if (last.kind == Kind::activation && last.activation == Activation::softmax) {
    rest.pop_back();
  }
  return rest;
}

// Whether the derivative of layer i's activation becomes part of what follows it.
bool derivative_joins_next(std::span<const LayerDescription> layers, std::size_t i,
                           Precision precision) {
  if (precision != Precision::float32 || i + 1 >= layers.size()) return false;
  if (layers[i].kind != Kind::dense || layers[i + 1].kind != Kind::dense) return false;
  const Activation activation = layers[i].dense.activation;
  return activation != Activation::none && activation != Activation::softmax;
}

template <class T>
void round_rows(MatrixView<T> x) {
  const double operations_per_row = static_cast<double>(x.cols);
  for_each_row_block(x.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    kernels<T>().round_to_bfloat16({x.row(begin), end - begin, x.cols, x.stride});
  });
}

}  // namespace

template <class T>
Network<T>::Network(std::size_t inputs, std::span<const LayerDescription> layers, Loss loss,
                    Precision precision)
    : inputs_(inputs), outputs_(inputs), loss_(loss), precision_(precision) {
  const std::vector<LayerDescription> described = without_final_softmax(layers, loss);
  for (const LayerDescription& layer : described) {
    const std::size_t index = layers_.size();
    switch (layer.kind) {
      case Kind::dense: {
        DenseOptions options = layer.dense;
        options.precision = precision;
        DenseNeighbours neighbours;
        neighbours.takes_d_z = derivative_joins_next(described, index, precision);
        if (index > 0 && derivative_joins_next(described, index - 1, precision)) {
          neighbours.input_activation = described[index - 1].dense.activation;
          neighbours.input_slope = described[index - 1].dense.slope;
        }
        layers_.push_back(std::make_unique<Dense<T>>(std::to_string(index), outputs_, options,
                                                     layout_, neighbours));
        break;
      }
      case Kind::activation:
        layers_.push_back(
            std::make_unique<ActivationLayer<T>>(outputs_, layer.activation, layer.slope));
        break;
      case Kind::dropout:
        layers_.push_back(
            std::make_unique<Dropout<T>>(outputs_, static_cast<std::uint32_t>(index), layer.rate));
        break;
      case Kind::batch_norm:
        layers_.push_back(std::make_unique<BatchNorm<T>>(std::to_string(index), outputs_,
                                                         layer.batch_norm, layout_));
        break;
    }
    outputs_ = layers_.back()->outputs();
    parameters_end_.push_back(layout_.trained_size());
    if (layout_.count() == 0) first_trained_ = layers_.size();
  }
  if (layout_.count() == 0) {
    throw std::invalid_argument("the network has no parameters: it needs a dense layer");
  }
  for (const ParameterTensor& tensor : layout_.tensors()) {
    const std::size_t end = tensor.offset + tensor.size;
    if (!tensor.is_trained || end % kLanes == 0) continue;
    const auto layer = std::ranges::upper_bound(parameters_end_, tensor.offset);
    paddings_.push_back(
        {static_cast<std::size_t>(layer - parameters_end_.begin()), end, round_up(end, kLanes)});
  }
}

template <class T>
void Network<T>::initialize(std::uint64_t seed, std::span<T> parameters) const {
  for (const auto& layer : layers_) layer->initialize(seed, parameters);
}

template <class T>
MatrixView<const T> Network<T>::forward(const Pass& pass, std::span<const T> parameters,
                                        std::size_t rows, Workspace<T>& workspace) const {
  MatrixView<T> x = workspace.input().top(rows);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const MatrixView<T> y = workspace.output(i).top(rows);
    if (rows > 0 || !layers_[i]->batch_sums().empty()) {
      if (pass.flow != nullptr) pass.flow->before_reading(parameters_end_[i]);
      if (precision_ == Precision::bfloat16 && layers_[i]->multiplies()) round_rows(x);
      layers_[i]->forward(pass, parameters, x, y, workspace.scratch(i));
    }
    x = y;
  }
  return x;
}

template <class T>
void Network<T>::backward(const Pass& pass, std::span<const T> parameters, std::size_t rows,
                          Workspace<T>& workspace,
                          std::span<const SubtreeGradient<T>> subtrees) const {
  // What is shared is summed after all else, and nobody is told of sums before.
  Pass first = pass;
  if (pass.shares != nullptr) first.flow = nullptr;
  for (std::size_t i = layers_.size(); i-- > first_trained_;) {
    const MatrixView<const T> x = (i == 0 ? workspace.input() : workspace.output(i - 1)).top(rows);
    const MatrixView<T> d_x =
        i == first_trained_ ? MatrixView<T>{} : workspace.d_output(i - 1).top(rows);
    // Whoever has read a gradient meanwhile may have left anything there.
    for (const Padding& padding : paddings_) {
      if (padding.layer != i) continue;
      for (const SubtreeGradient<T>& subtree : subtrees) {
        if (subtree.update != nullptr) continue;
        std::ranges::fill(subtree.gradient.subspan(padding.begin, padding.end - padding.begin),
                          T{0});
      }
    }
    if (rows > 0 || pass.shares != nullptr || !layers_[i]->batch_sums().empty()) {
      layers_[i]->backward(first, parameters, x, workspace.output(i).top(rows),
                           workspace.d_output(i).top(rows), d_x, subtrees, workspace.scratch(i));
    }
    tell_final(first, i);
  }
  if (pass.shares == nullptr) return;
  // Only now: a rank that has shown the others all of its factors waits at most for the slowest.
  for (std::size_t i = layers_.size(); i-- > first_trained_;) {
    layers_[i]->sum_shared(pass);
    tell_final(pass, i);
  }
}

template <class T>
void Network<T>::tell_final(const Pass& pass, std::size_t layer) const {
  if (pass.flow == nullptr) return;
  pass.flow->final_from(layer == 0 ? 0 : parameters_end_[layer - 1],
                        ParameterFlow::Parameters::free);
}

template <class T>
void Network<T>::update_statistics(const Pass& pass, std::span<T> parameters,
                                   Workspace<T>& workspace) const {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->update_statistics(pass, parameters, workspace.scratch(i));
  }
}

template <class T>
void Network<T>::outputs_to_predictions(MatrixView<T> outputs) const {
  if (loss_ == Loss::cross_entropy) kernels<T>().activate(Activation::softmax, T{0}, outputs);
}

template <class T>
Workspace<T>::Workspace(const Network<T>& network, std::size_t rows, bool training)
    : input_(rows, network.inputs()) {
  std::size_t widest = 0;
  std::size_t scratch = 0;
  for (const auto& layer : network.layers()) {
    outputs_.emplace_back(rows, layer->outputs());
    widest = std::max(widest, padded_stride(layer->outputs()));
    const std::size_t wanted = layer->scratch_size(rows);
    kept_.emplace_back(layer->keeps_scratch() ? wanted : 0);
    if (!layer->keeps_scratch()) scratch = std::max(scratch, wanted);
  }
  // Without training, forward has a use for it under bfloat16 alone.
  if (training || network.precision() == Precision::bfloat16) scratch_ = AlignedBuffer<T>(scratch);
  if (!training) return;
  for (auto& buffer : d_outputs_) buffer = AlignedBuffer<T>(rows * widest);
}

template <class T>
MatrixView<T> Workspace<T>::d_output(std::size_t layer) {
  MatrixView<T> view = outputs_[layer].view();
  view.data = d_outputs_[layer % 2].data();
  return view;
}

template class Network<float>;
template class Network<double>;
template class Workspace<float>;
template class Workspace<double>;

}  // namespace lockstep::nn

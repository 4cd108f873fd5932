// A network: a sequence of layers, their parameters' layout, and a loss.
//
// A Network is immutable and owns its layers; parameters and gradients are the caller's flat
// buffers, activations the caller's Workspace. Parameters are named as in a PyTorch nn.Sequential
// over the descriptions: layer i has "i.weight" and "i.bias", batch_norm "i.running_mean" and
// "i.running_var" as well. Safe from any thread for distinct workspaces; runs on the caller's task
// arena; local, but for what Pass says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "nn/batch_norm.hpp"
#include "nn/dense.hpp"
#include "nn/layer.hpp"
#include "nn/loss.hpp"
#include "nn/parameters.hpp"

namespace lockstep::nn {

struct LayerDescription {
  enum class Kind { dense, activation, dropout, batch_norm };
  Kind kind = Kind::dense;
  DenseOptions dense;
  Activation activation = Activation::none;  // of an activation layer
  double slope = 0.01;                       // of a leaky_relu activation layer
  double rate = 0;                           // of dropout
  BatchNormOptions batch_norm;
};

template <class T>
class Workspace;

template <class T>
class Network {
 public:
  // A softmax right before cross_entropy is taken as part of that loss, which computes the two as
  // one. Throws std::invalid_argument if there is nothing to train.
  Network(std::size_t inputs, std::span<const LayerDescription> layers, Loss loss,
          Precision precision = Precision::float32);

  std::size_t inputs() const { return inputs_; }    // per sample
  std::size_t outputs() const { return outputs_; }  // per sample
  Loss loss() const { return loss_; }
  Precision precision() const { return precision_; }
  const ParameterLayout& layout() const { return layout_; }
  std::span<const std::unique_ptr<Layer<T>>> layers() const { return layers_; }
  // Whether backward() asks for pass.upcoming.
  bool asks_for_upcoming() const { return layers_[first_trained_]->asks_for_upcoming(); }

  // parameters = initial values, a function of the seed alone.
  void initialize(std::uint64_t seed, std::span<T> parameters) const;

  // Where pass.flow is set, forward() asks it for each layer's parameters, and backward() tells it
  // how far the gradient is; at the end that is all of it.

  // The outputs for the first `rows` rows of workspace.input(), which under bfloat16 are rounded; a
  // view into the workspace. Without rows only layers that sum over the batch are called, to meet
  // the other ranks.
  MatrixView<const T> forward(const Pass& pass, std::span<const T> parameters, std::size_t rows,
                              Workspace<T>& workspace) const;

  // After forward() of the same pass, with workspace.d_outputs() holding the loss's gradient: every
  // subtree's gradient = the sum over its leaves. Gradients are written whole, their padding as
  // zeros, but for weights that pass.shares has: of these the rank's share is summed, over the
  // samples of all ranks, or moves, when all else is done.
  void backward(const Pass& pass, std::span<const T> parameters, std::size_t rows,
                Workspace<T>& workspace, std::span<const SubtreeGradient<T>> subtrees) const;

  // After backward() of the same pass, which need not be the last thing that was done with the
  // parameters: the layers' statistics take in those of the batch.
  void update_statistics(const Pass& pass, std::span<T> parameters, Workspace<T>& workspace) const;

  // What the network says of a sample: softmax of the outputs under cross_entropy, in place.
  void outputs_to_predictions(MatrixView<T> outputs) const;

 private:
  // The gradient is final from this layer's parameters on.
  void tell_final(const Pass& pass, std::size_t layer) const;

  std::size_t inputs_;
  std::size_t outputs_;
  Loss loss_;
  Precision precision_;
  ParameterLayout layout_;
  std::vector<std::unique_ptr<Layer<T>>> layers_;
  std::vector<std::size_t>
      parameters_end_;  // by layer: where its parameters end, the next ones begin
  // Where no tensor's elements lie, up to the next multiple of kLanes: zero in every gradient.
  struct Padding {
    std::size_t layer, begin, end;
  };
  std::vector<Padding> paddings_;
  std::size_t first_trained_ = 0;  // no layer before it has parameters: backward ends there
};

// The matrices that one pass over up to `rows` samples needs, allocated once.
template <class T>
class Workspace {
 public:
  // Without `training` there is no room for gradients, and backward() may not be called.
  Workspace(const Network<T>& network, std::size_t rows, bool training);

  MatrixView<T> input() { return input_.view(); }  // rows × inputs; the caller fills it
  // Takes another matrix of that size for input(), and gives the former one for it.
  void exchange_input(Matrix<T>& other) { std::swap(input_, other); }
  MatrixView<T> output(std::size_t layer) { return outputs_[layer].view(); }
  MatrixView<T> d_outputs() { return d_output(outputs_.size() - 1); }  // rows × network outputs

  // The gradient with respect to the output of `layer`, or to what its activation takes if the next
  // layer brings the derivative along (DenseNeighbours). Neighbours share no storage; every other
  // layer does.
  MatrixView<T> d_output(std::size_t layer);

  // For one layer at a time and empty unless `training`, but for layers that keep theirs.
  std::span<T> scratch(std::size_t layer) {
    return kept_[layer].size() > 0 ? kept_[layer].span() : scratch_.span();
  }

 private:
  Matrix<T> input_;
  std::vector<Matrix<T>> outputs_;
  AlignedBuffer<T> d_outputs_[2];
  AlignedBuffer<T> scratch_;
  std::vector<AlignedBuffer<T>> kept_;  // by layer; empty for those that share scratch_
};

}  // namespace lockstep::nn

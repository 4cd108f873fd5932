// Weight gradients of several ranks, shared out by weights instead of by samples.
//
// Ranks that read one another's memory need not sum the gradient of all weights over their own
// samples each, a gradient a rank to be written, read and added up. Instead each packs the two
// factors of its samples where the others read them, and sums its share of the weights over the
// samples of all: in the same tree, in registers, and moves them right there, as the threads of one
// rank do. What goes from rank to rank is an input and a derivative for each sample and unit, and
// not a number for each weight.
//
// For float32 parameters. Runs on the caller's task arena; local, but for WeightShares::wait().
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/precision.hpp"

namespace lockstep::nn {

// The weights of a dense layer, inputs × outputs at `offset` of the flat buffer.
struct SharedWeights {
  // The weights of consecutive inputs.
  struct Rows {
    std::size_t begin;
    std::size_t end;
    bool own;    // this rank sums them
    bool moves;  // and moves them where they are summed, if it moves any
  };

  std::size_t offset;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t place;  // of their factors
  // Of all ranks, in ascending order; the next ones begin where one ends, or with its last row, of
  // which each sums the whole.
  std::vector<Rows> rows;
};

// Where a pass meets the ranks that it shares weights with. Called by the thread that runs the
// pass, all but find() for the layers in the same order on all ranks.
class WeightShares {
 public:
  // Factors as share_factors() has packed them on one rank.
  struct Factors {
    const float* packed;
    std::span<const std::size_t> leaf_rows;  // bounds of its leaves, in rows of its pass
  };

  virtual ~WeightShares() = default;

  // Null if those at `offset` are summed by samples, in this pass.
  virtual const SharedWeights* find(std::size_t offset) const = 0;

  // Where this rank's factors go; and that they are there.
  virtual std::span<float> packed(const SharedWeights& weights) = 0;
  virtual void post(const SharedWeights& weights) = 0;

  // Waits for all ranks to have posted theirs: of all ranks, in the order of their leaves. Valid
  // until the next call.
  virtual std::span<const Factors> wait(const SharedWeights& weights) = 0;

  // After wait(): how own rows that move do so, or null: then they do not, and where sums go.
  virtual const Update<float>* update() const = 0;
  virtual std::span<float> gradient() = 0;

  // Elements [begin, end) of the flat buffer are about to move, or have moved.
  virtual void before_moving(std::size_t begin, std::size_t end) = 0;
  virtual void after_moving(std::size_t begin, std::size_t end) = 0;

  // The bounds of this rank's leaves in rows of its pass, and of all leaves in samples of the
  // batch; room for something of each of these.
  virtual std::span<const std::size_t> own_leaf_rows() const = 0;
  virtual std::span<const std::size_t> leaf_rows() const = 0;
  virtual std::span<LeafFactors<float>> of_leaf() = 0;
};

// The inputs that weights.rows take as strips of so many inputs, each element on its own: larger
// strips may hold fewer or more in all.
std::size_t inputs_in_strips(const SharedWeights& weights, std::size_t strip_inputs);

// Floats that the packed factors of a sample take, whichever kernels pack them.
std::size_t shared_factors_size(const SharedWeights& weights);

// Packs the factors of this rank's samples for the others: panels of d_y, then strips of x, those
// of each element of weights.rows on their own.
void share_factors(MatrixView<const float> x, MatrixView<const float> d_y,
                   const SharedWeights& weights, Precision precision, WeightShares& shares);

// The gradient of this rank's rows over the samples of all ranks, from the last rows to the first;
// `flow`, if any, is told of them. The parameters there move by it, or it is written.
void sum_own_rows(const SharedWeights& weights, Precision precision, WeightShares& shares,
                  ParameterFlow* flow);

}  // namespace lockstep::nn

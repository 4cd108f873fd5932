// A layer: an immutable description of one step of a network, with its forward and backward pass.
//
// A layer owns no weights, no threads and no buffers; parameters, inputs, outputs and gradients
// come as views. Matrices have a row per sample. All calls are const, safe from any thread for
// distinct outputs, and local, but for what Pass says. They run on the threads of the caller's task
// arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "nn/buffer.hpp"

namespace lockstep::nn {

template <class T>
struct Update;  // nn/kernels/kernels.hpp

class ParameterFlow;
class BatchSum;
class WeightShares;  // nn/weight_shares.hpp

// Leaf l of a subtree of leaves holds rows [bounds[l], bounds[l + 1]) of the pass; there are 2^k +
// 1.
using SubtreeRows = std::span<const std::size_t>;

struct Pass {
  bool training = false;  // else evaluation: dropout passes everything on

  // What the random numbers of a pass depend on, beside the layer and the unit.
  std::uint64_t seed = 0;        // of the run
  std::uint64_t step = 0;        // of the update
  std::size_t first_sample = 0;  // place in the batch of row 0

  // Null: nobody else touches the flat buffers meanwhile, or all is told of later.
  ParameterFlow* flow = nullptr;

  // For layers that sum over samples forward, in training: the subtrees that this rank sums by
  // itself and that have samples, those that backward() gets gradients for.
  std::span<const SubtreeRows> subtrees = {};
  std::size_t batch_samples = 0;  // of all ranks
  BatchSum* sums = nullptr;       // null: `subtrees` is the whole tree, so its sum is the batch's

  // Where other ranks take a share of this one's weight gradients, and it of theirs; null: nowhere.
  WeightShares* shares = nullptr;

  // Addresses in cache lines that will be read after the pass. Asked for all at once they would be
  // waited for, so the last piece of backward() asks for them on its way
  // (Network::asks_for_upcoming()); but for the first sixteen, which may be on as many pages.
  std::span<const void* const> upcoming = {};
};

// Where a pass meets whoever moves the parameters while it goes on, as other ranks do. Called by
// the thread that runs the pass, between its pieces of work. Offsets are elements of the flat
// buffers.
class ParameterFlow {
 public:
  virtual ~ParameterFlow() = default;

  // Before the parameters before `end` are read; returns when they are those of this step. Up to
  // kLanes beyond are read too, and whatever is there goes to padding.
  virtual void before_reading(std::size_t end) = 0;

  // The gradients of all subtrees are final from `begin` on. in_use: this pass still reads
  // parameters there; it says so again, with `free`, when it does not. Each kind comes with
  // descending offsets. What is free may have moved when this returns; throws what moving throws.
  enum class Parameters { in_use, free };
  virtual void final_from(std::size_t begin, Parameters parameters) = 0;

  // Whether sums get further beside the pass, so that it is worth telling of them while parameters
  // are still read. If not, what is told of moves at best in final_from(), and only if it is free.
  virtual bool carries_sums_meanwhile() const = 0;
};

// Where a pass meets the other ranks for sums over all samples of the batch. All ranks make the
// same calls of total() in the same order, also those that have no samples.
class BatchSum {
 public:
  virtual ~BatchSum() = default;

  // Room for the sums over subtree i of the pass, of `elements` floats, one of the sizes that the
  // layer told of (batch_sums()). Aligned as rows are; zeros at first.
  virtual std::span<float> partial(std::size_t elements, std::size_t i) = 0;

  // Waits for all ranks. Their sum over all leaves, in the tree, valid until the next call.
  virtual std::span<const float> total(std::size_t elements) = 0;
};

// The gradient over one subtree of leaves that this rank sums by itself.
template <class T>
struct SubtreeGradient {
  SubtreeRows leaf_rows;
  std::span<T> gradient;  // flat buffer of what is trained; a sum over samples, not a mean

  // If set, this subtree is the whole tree, and backward moves the parameters by the gradient right
  // where it is computed, after their last use; `gradient` is scratch then.
  const Update<T>* update = nullptr;
};

template <class T>
class Layer {
 public:
  Layer(std::size_t inputs, std::size_t outputs) : inputs_(inputs), outputs_(outputs) {}
  virtual ~Layer() = default;

  std::size_t inputs() const { return inputs_; }    // per sample
  std::size_t outputs() const { return outputs_; }  // per sample

  // Whether forward() multiplies its inputs with parameters: under bfloat16 they come rounded then.
  virtual bool multiplies() const { return false; }

  // Whether backward() asks for pass.upcoming, where it is the last one to come: without a d_x.
  virtual bool asks_for_upcoming() const { return false; }

  // The sizes of the sums over the batch for which this layer meets the other ranks. A layer that
  // has any is called on ranks without samples too, and so is backward() of all where pass.shares
  // is set.
  virtual std::span<const std::size_t> batch_sums() const { return {}; }

  // Whether scratch is this layer's alone: what forward() leaves there is found by backward() and
  // update_statistics() of the same pass, and evaluation has it too.
  virtual bool keeps_scratch() const { return false; }

  // One line for people: "dense 784 -> 512, relu".
  virtual std::string describe() const = 0;

  // Sets this layer's parameters in the flat buffer to their initial values.
  virtual void initialize(std::uint64_t /*seed*/, std::span<T> /*parameters*/) const {}

  // y = f(x). x: rows × inputs, y: rows × outputs. `scratch` may be smaller than scratch_size(),
  // unless it is kept.
  virtual void forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                       MatrixView<T> y, std::span<T> scratch) const = 0;

  // Elements that forward() and backward() may use as they like, for passes of up to `rows`
  // samples.
  virtual std::size_t scratch_size(std::size_t /*rows*/) const { return 0; }

  // From d_y = dLoss/dy: d_x = dLoss/dx unless d_x is empty, and each subtree's slice of the
  // gradient = the sum over its leaves (or the parameters move by it, if the subtree says so). x
  // and y are those of forward; d_y is overwritten. Between two layers that have agreed upon it,
  // what passes is another derivative (DenseNeighbours).
  virtual void backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                        MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                        std::span<const SubtreeGradient<T>> subtrees,
                        std::span<T> scratch) const = 0;

  // Where pass.shares has this layer's weights, backward() only shows their factors to the other
  // ranks; after that of all layers this sums the rank's share.
  virtual void sum_shared(const Pass& /*pass*/) const {}

  // After a training pass: its statistics in the flat buffer take in those of the batch.
  virtual void update_statistics(const Pass& /*pass*/, std::span<T> /*parameters*/,
                                 std::span<T> /*scratch*/) const {}

 private:
  std::size_t inputs_;
  std::size_t outputs_;
};

}  // namespace lockstep::nn

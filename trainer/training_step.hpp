// One step of training: from the rows of a batch to moved parameters, the same bits for any number
// of ranks and threads.
//
// Each rank takes the samples of its leaves through forward, loss and backward, sums gradients over
// the subtrees that it covers, and the ranks finish the tree. The optimizer then divides by the
// samples and moves the replica. Owns its workspaces; nothing is allocated inside a step. One
// caller at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "datasets/dataset.hpp"
#include "nn/network.hpp"
#include "nn/optimizer.hpp"
#include "trainer/input.hpp"
#include "trainer/leaves.hpp"

namespace lockstep::trainer {

class TrainingStep {
 public:
  // Collective. For batches of up to `largest_batch` samples, cut into `leaves`. With `ahead` there
  // is memory to decode the next batch meanwhile (input.hpp). Views its arguments, and runs on the
  // threads of the task arena that it was made in.
  TrainingStep(const nn::Network<float>& network, const datasets::Dataset& data,
               comm::Communicator& communicator, std::size_t leaves, std::size_t largest_batch,
               std::uint64_t seed, bool ahead);

  // What a step is asked for beside moving the parameters.
  struct Wish {
    bool stop = false;           // this rank was asked to stop
    bool gradient_norm = false;  // the same on every rank; it takes another pass over the gradient,
                                 // and a rank alone, which without it moves parameters right where
                                 // their gradient is computed, must keep that
  };

  // What came of a step, the same on every rank but for the time.
  struct Outcome {
    // Euclidean norm of the mean gradient, where it was wished for or the run is to stop.
    std::optional<double> gradient_norm;
    bool stop = false;      // some rank was asked to stop
    bool diverged = false;  // a sample's loss is not finite, or the norm is not
    std::chrono::steady_clock::time_point input_ready;  // when computing could begin
  };

  // Collective. `step` counts from 1; `batch` names the rows of all ranks' samples, and `next`
  // those of the step after it, or none where that is not known. Adds each of this rank's leaves'
  // sum of losses and number of hits to its place in leaf_loss and leaf_correct.
  Outcome run(std::uint64_t step, std::span<const std::uint32_t> batch,
              std::span<const std::uint32_t> next, nn::Optimizer<float>& optimizer,
              std::span<float> parameters, std::span<double> leaf_loss,
              std::span<double> leaf_correct, Wish wish);

  // This rank's leaves.
  comm::LeafRange leaves() const { return leaves_; }
  const Input& input() const { return input_; }

 private:
  void compute(std::uint64_t step, std::size_t samples, std::span<const std::uint32_t> rows,
               nn::Optimizer<float>& optimizer, std::span<float> parameters,
               std::span<double> leaf_loss, std::span<double> leaf_correct, Wish wish,
               Outcome& outcome);
  // The part of the step that no other rank takes part in: losses and gradients of this rank's
  // leaves; with `update`, which only a rank alone may give, the parameters move by them. Returns
  // whether all losses are finite.
  bool compute_gradients(std::uint64_t step, std::span<const std::uint32_t> rows,
                         std::size_t first_sample, std::span<const float> parameters,
                         std::span<double> leaf_loss, std::span<double> leaf_correct,
                         const nn::Update<float>* update);
  std::span<const std::uint32_t> own_part(std::span<const std::uint32_t> batch) const;
  bool add_leaf_sums(std::size_t first_sample, std::span<double> leaf_loss,
                     std::span<double> leaf_correct) const;
  void cut_into_leaves();

  const nn::Network<float>& network_;
  std::uint64_t seed_;
  bool alone_;   // one rank
  bool others_;  // more than one thread
  comm::LeafRange leaves_;
  comm::TreeReduction reduction_;
  LeafBounds bounds_;
  nn::Workspace<float> workspace_;
  Input input_;
  std::vector<float> sample_loss_;
  std::vector<std::uint8_t> sample_correct_;

  // What follows from the number of samples of the batch alone: of this rank the leaves that have
  // samples and, for each subtree, the bounds of its leaves in rows of the pass.
  std::vector<std::size_t> present_leaves_;
  std::vector<std::vector<std::size_t>> subtree_rows_;
  std::vector<nn::SubtreeGradient<float>> present_subtrees_;
};

}  // namespace lockstep::trainer

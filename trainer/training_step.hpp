// One step of training: from the rows of a batch to moved parameters, the same bits for any number
// of ranks and threads.
//
// Each rank takes the samples of its leaves through forward, loss and backward, sums gradients over
// the subtrees that it covers, and the ranks finish the tree; on one node each sums its share of
// large ones over the samples of all (node_shares.hpp). The optimizer then divides by the
// samples and moves the replica. With several ranks each moves its share and gets the rest from the
// others, while its backward pass goes on and the next forward pass begins. Owns its workspaces and
// the parameters; nothing is allocated inside a step. One caller at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/parameter_exchange.hpp"
#include "datasets/dataset.hpp"
#include "nn/network.hpp"
#include "nn/optimizer.hpp"
#include "trainer/batch_sums.hpp"
#include "trainer/config.hpp"
#include "trainer/input.hpp"
#include "trainer/leaves.hpp"
#include "trainer/node_shares.hpp"
#include "trainer/replica_guard.hpp"
#include "trainer/share_gather.hpp"

namespace lockstep::trainer {

class TrainingStep {
 public:
  // Collective. For batches of up to `largest_batch` samples, cut into `leaves`. With `ahead` there
  // is memory to decode the next batch meanwhile (input.hpp). Views its arguments, and runs on the
  // threads of the task arena that it was made in.
  TrainingStep(const nn::Network<float>& network, nn::Optimizer<float>& optimizer,
               const datasets::Dataset& data, comm::Communicator& communicator, std::size_t leaves,
               std::size_t largest_batch, std::uint64_t seed, bool ahead,
               const CommConfig& comm = {});

  // What a step is asked for beside moving the parameters.
  struct Wish {
    bool stop = false;           // this rank was asked to stop
    bool gradient_norm = false;  // the same on every rank; it takes another pass over the gradient,
                                 // and who moves parameters right where their gradient is computed
                                 // must keep that
  };

  // What came of a step, the same on every rank but for the time.
  struct Outcome {
    // Euclidean norm of the mean gradient, before it is clipped, where it was wished for, is
    // clipped by or the run is to stop.
    std::optional<double> gradient_norm;
    bool stop = false;      // some rank was asked to stop
    bool diverged = false;  // a sample's loss is not finite, or the norm is not
    std::chrono::steady_clock::time_point input_ready;  // when computing could begin
  };

  // What moves parameters must outlive the thread that calls it, also during an exception.
  ~TrainingStep() { exchange_.stop(); }
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  // Between steps; when several ranks have begun one, only after finish(). Zeros at first.
  // Statistics are among them.
  std::span<const float> parameters() const { return exchange_.parameters(); }
  // To set them on every rank alike.
  std::span<float> parameters_to_set();

  // Waits until the parameters are those after the last step, on this rank. All ranks call it
  // before they call one another for anything else.
  void finish() { exchange_.finish(); }

  // Collective, between steps. Throws ReplicaError if the replicas are not the same.
  void compare_replicas(std::uint64_t step);

  // Seconds so far in which steps waited for other ranks with nothing to do.
  double seconds_waited() const;

  // What this rank does between steps, should others wait for it in vain: up to eight characters.
  void set_phase(std::string_view phase) { exchange_.set_phase(phase); }

  // Collective. `step` counts from 1; `batch` names the rows of all ranks' samples, and `next`
  // those of the step after it, or none where that is not known. Adds each of this rank's leaves'
  // sum of losses and number of hits to its place in leaf_loss and leaf_correct.
  Outcome run(std::uint64_t step, std::span<const std::uint32_t> batch,
              std::span<const std::uint32_t> next, std::span<double> leaf_loss,
              std::span<double> leaf_correct, Wish wish);

  // Collective, after finish(): on rank 0 all = every rank's share of `mine`, a buffer of what is
  // trained of which it has moved owned() alone, as a moment is; elsewhere all is empty.
  void gather_shares(std::span<const float> mine, std::span<float> all) {
    exchange_.gather_shares(mine, all);
  }

  // This rank's leaves.
  comm::LeafRange leaves() const { return leaves_; }
  const comm::ParameterExchange& exchange() const { return exchange_; }
  const std::optional<NodeShares>& shares() const { return shares_; }
  // Why the ranks of a node do not share weights out, or nothing where they do or need not.
  const std::string& why_not_by_weights() const { return why_not_by_weights_; }
  const Input& input() const { return input_; }

 private:
  struct LeafSums {
    std::span<double> loss;
    std::span<double> correct;
  };

  // What whoever moves parameters needs to know of a step.
  struct Move {
    nn::Update<float> rule;
    std::size_t samples = 0;
    bool gradient_norm = false;
  };

  void compute_alone(const nn::Pass& pass, std::size_t rows, const LeafSums& sums, Wish wish,
                     Outcome& outcome);
  void compute_with_others(nn::Pass pass, std::size_t rows, const LeafSums& sums,
                           const Move& next_move, bool stop, Outcome& outcome);
  void note(std::size_t begin, std::span<const float> sum, unsigned flags);
  void prepare_held(Outcome& outcome);
  void move(std::size_t begin, std::span<const float> sum, std::span<float> moved, unsigned flags);
  bool norm_is_told(unsigned flags) const;
  double norm_of_gathered();
  bool losses(const nn::Pass& pass, std::size_t rows, const LeafSums& sums);
  void gradients(const nn::Pass& pass, std::size_t rows, const nn::Update<float>* update);
  std::span<const std::uint32_t> own_part(std::span<const std::uint32_t> batch) const;
  bool add_leaf_sums(std::size_t first_sample, const LeafSums& sums) const;
  void cut_into_leaves();

  const nn::Network<float>& network_;
  nn::Optimizer<float>& optimizer_;
  std::uint64_t seed_;
  bool alone_;   // one rank
  bool others_;  // more than one thread
  bool overlap_;
  comm::LeafRange leaves_;
  NodeShares::Plan shared_;
  std::string why_not_by_weights_;
  comm::ParameterExchange exchange_;
  std::optional<NodeShares> shares_;     // with several ranks of one node
  std::optional<BatchSums> batch_sums_;  // with several ranks; so are these
  std::optional<ShareGather> squares_;   // of chunks of the gradient
  std::optional<ShareGather> ratios_;    // what trust ratios are made of, where there are any
  LeafBounds bounds_;
  nn::Workspace<float> workspace_;
  Input input_;
  ReplicaGuard guard_;
  bool guarded_ = false;  // whether guard_ knows what is trained
  std::vector<float> sample_loss_;
  std::vector<std::uint8_t> sample_correct_;

  Move move_;  // of the step under way

  // What follows from the number of samples of the batch alone: of this rank the leaves that have
  // samples and, for each subtree, the bounds of its leaves in rows of the pass.
  std::vector<std::size_t> present_leaves_;
  std::vector<std::vector<std::size_t>> subtree_rows_;
  std::vector<nn::SubtreeGradient<float>> present_subtrees_;
  std::vector<nn::SubtreeRows> present_rows_;  // of the same
};

}  // namespace lockstep::trainer

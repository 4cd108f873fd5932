// A training run: epochs of steps, evaluation, early stopping, and the state that a checkpoint
// keeps.
//
// Every rank holds one Training and calls it at the same places. It owns the replica (parameters,
// its share of the moments, best parameters) and the state; what it says to people and to files
// goes through the TrainingObserver, which only rank 0 needs. One caller at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "comm/communicator.hpp"
#include "datasets/dataset.hpp"
#include "datasets/sample_order.hpp"
#include "nn/network.hpp"
#include "nn/optimizer.hpp"
#include "trainer/checkpoint.hpp"
#include "trainer/config.hpp"
#include "trainer/epoch_order.hpp"
#include "trainer/evaluation.hpp"
#include "trainer/pace.hpp"
#include "trainer/training_step.hpp"

namespace lockstep::trainer {

// Where the run is, for a progress bar.
struct StepReport {
  std::uint64_t epoch = 0;          // under way, from 1
  std::uint64_t step_in_epoch = 0;  // done
  std::uint64_t steps_in_epoch = 0;
  std::uint64_t samples = 0;  // trained on in this process's share of the epoch
  double seconds = 0;         // that this took
  double mean_loss = 0;       // of this rank's samples in the epoch; NaN if it has none
};

// One line of metrics.jsonl.
struct EpochReport {
  std::uint64_t epoch = 0;    // from 1
  bool complete = true;       // false: cut short by training.steps
  std::uint64_t step = 0;     // updates done in all
  std::uint64_t samples = 0;  // trained on in this epoch
  double seconds = 0;         // training time of the whole run so far, evaluation left out
  Pace pace;
  double train_loss = 0;  // mean over the epoch's samples, each as its batch saw it
  std::optional<double> train_accuracy;
  std::optional<Evaluation> validation;
  double learning_rate = 0;  // of the last step
  double gradient_norm = 0;  // of the last step
  bool best = false;         // the best validation loss so far
};

// Told of events as they happen. Calls come from the thread that runs the training.
struct TrainingObserver {
  std::function<void(const StepReport&)> step;  // not more often than every `step_interval`
  std::function<void(const EpochReport&)> epoch;
  std::function<void(const Checkpoint&)> save;  // on rank 0 alone; shall be on disk when it returns
  double step_interval = 0;                     // seconds; 0: after every step
};

// stopped_early: for want of a better validation loss.
enum class TrainingEnd { finished, stopped_early, reached_target, stopped_by_signal };

class Training {
 public:
  // Collective. Views all arguments, which outlive it. Validates on all of `validation` or, where
  // it is null, on the share of `data` that the configuration holds out, if any. Throws ConfigError
  // where the model or early stopping does not fit the data.
  Training(const Config& config, const datasets::Dataset& data, comm::Communicator& communicator,
           const datasets::Dataset* validation = nullptr);

  // On every rank alike, instead of the initial parameters that the seed gives. Throws
  // CheckpointError if it does not fit; `origin` names it in messages. start_from() is local;
  // resume() is collective: it may have to see whether the checkpoint is accurate enough.
  void resume(const Checkpoint& checkpoint, std::string_view origin);
  void start_from(std::span<const NamedTensor> parameters, std::string_view origin);

  // Collective. Trains to the end that the configuration sets, or until `stop` says true on some
  // rank; then a checkpoint has been saved. Throws Diverged.
  TrainingEnd run(const TrainingObserver& observer, const std::function<bool()>& stop);

  // Updates of the whole run, unless something ends it early.
  std::uint64_t updates() const;

  // Whether the configuration asks for no more than has been done.
  bool done() const;

  // Whether the parameters are those of the first epoch with the validation accuracy that the
  // configuration asks for.
  bool reached_target() const { return reached_target_; }

  const nn::Network<float>& network() const { return network_; }
  const TrainingState& state() const { return state_; }
  std::size_t training_samples() const { return rows_.train.size(); }
  std::size_t validation_samples() const { return rows_.validation.size(); }
  std::size_t batch_size() const { return batch_size_; }

  // The run's result: the best parameters under early stopping, else the last.
  std::span<const float> result() const;

  // Bytes that this rank keeps: its replica with all that an exchange needs, and its share of the
  // moments.
  struct Memory {
    std::size_t exchange = 0;
    std::size_t moments = 0;
  };
  Memory memory() const;

  // How fast this process has trained.
  const PaceMeter& pace() const { return pace_; }
  const Input& input() const { return step_.input(); }
  const comm::ParameterExchange& exchange() const { return step_.exchange(); }
  const TrainingStep& step() const { return step_; }

 private:
  enum class EpochEnd { complete, cut_short, stopped };

  std::uint64_t steps_in_epoch() const;
  EpochEnd run_epoch(const TrainingObserver& observer, const std::function<bool()>& stop);
  EpochReport close_epoch(bool complete);
  bool due_to_save() const;
  bool next_step_is_told_of(std::uint64_t steps_in_epoch) const;
  void watch_for_early_stop(double validation_loss, EpochReport& report);
  Evaluation validate() const;
  bool is_enough(const Evaluation& validation) const;
  void gather_leaf_sums();
  void save(const TrainingObserver& observer);
  void gather(const nn::Moment<float>& moment, Checkpoint& checkpoint);
  std::uint64_t samples_done_in_epoch() const;
  double own_mean_loss() const;
  [[noreturn]] void diverged(std::string_view what) const;

  const Config& config_;
  const datasets::Dataset& data_;
  const datasets::Dataset& validation_data_;
  comm::Communicator& communicator_;
  datasets::Split rows_;  // of data_ and of validation_data_
  nn::Network<float> network_;
  std::size_t batch_size_;
  nn::AlignedBuffer<float> best_;
  nn::Optimizer<float> optimizer_;
  EpochOrder order_;
  TrainingStep step_;
  TrainingState state_;

  bool stopped_early_ = false;
  bool reached_target_ = false;
  PaceMeter pace_;
};

}  // namespace lockstep::trainer

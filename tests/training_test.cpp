// The loop in one process per rank: what it reports, when it saves, and that a checkpoint holds all
// that the next step needs.
#include "trainer/training.hpp"

#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include <utility>

#include "comm_main.hpp"
#include "small_dataset.hpp"
#include "trainer/exit_code.hpp"

namespace lockstep::trainer {
namespace {

using comm::test::world;

Config small_config() {
  Config config;
  config.data.train = "small";
  config.data.validation_fraction = 0.25;
  LayerConfig hidden;
  hidden.units = 12;
  hidden.activation = "tanh";
  LayerConfig drop;
  drop.kind = LayerConfig::Kind::dropout;
  drop.rate = 0.1;
  LayerConfig output;
  output.units = 3;
  config.model.layers = {hidden, drop, output};
  config.optimizer.name = "adam";
  config.optimizer.learning_rate = 0.01;
  config.training.batch_size = 10;
  config.training.epochs = 4;
  return config;
}

// What a run told of itself. Only rank 0 has an observer, as in the program.
struct Told {
  std::vector<EpochReport> epochs;
  std::vector<Checkpoint> saved;
  std::uint64_t steps = 0;

  TrainingObserver observer() {
    if (world().rank() != 0) return {};
    return {.step = [this](const StepReport&) { ++steps; },
            .epoch = [this](const EpochReport& report) { epochs.push_back(report); },
            .save = [this](const Checkpoint& checkpoint) { saved.push_back(checkpoint); }};
  }
};

bool never() {
  return false;
}

std::vector<float> values(std::span<const float> parameters) {
  return {parameters.begin(), parameters.end()};
}

TEST(Training, ReportsEveryEpochAndLearns) {
  const auto data = test::small_dataset(135);
  const Config config = small_config();
  Training training(config, data, world());
  EXPECT_EQ(training.training_samples(), 101u);
  EXPECT_EQ(training.validation_samples(), 34u);
  Told told;
  EXPECT_EQ(training.run(told.observer(), never), TrainingEnd::finished);
  EXPECT_EQ(training.state().step, 4 * 11u);
  if (world().rank() != 0) return;
  ASSERT_EQ(told.epochs.size(), 4u);
  EXPECT_EQ(told.steps, 44u);
  EXPECT_EQ(told.saved.size(), 4u);
  EXPECT_EQ(told.epochs.back().samples, 101u);
  EXPECT_LT(told.epochs.back().train_loss, told.epochs.front().train_loss);
  EXPECT_EQ(told.epochs.back().validation->samples, 34u);
}

TEST(Training, TellsOfStepsNoMoreOftenThanAsked) {
  const auto data = test::small_dataset(135);
  const Config config = small_config();
  Training training(config, data, world());
  Told told;
  TrainingObserver observer = told.observer();
  observer.step_interval = 3600;
  training.run(observer, never);
  // The first step of each epoch.
  EXPECT_EQ(told.steps, world().rank() == 0 ? 4u : 0u);
}

// In an arena of `threads`: the parameters after training, with a stop after `steps_before_stop`
// steps (0: none), from where another Training goes on with `threads_after`.
struct Trained {
  std::vector<float> parameters;
  double train_loss = 0;
  std::uint64_t batches_ahead = 0;
  double input_seconds = 0, seconds = 0;
};

Trained train_with(int threads, int steps_before_stop = 0, int threads_after = 1) {
  static const auto data = test::small_dataset(160'000);
  Config config = small_config();
  config.data.validation_fraction = 0;
  config.training.batch_size = 60'000;  // enough to decode for every rank's share to be a task
  config.training.epochs = 3;
  Trained result;
  Told told;
  const auto keep = [&](Training& training) {
    result.parameters = values(training.result());
    result.train_loss = training.state().train_loss;
    result.batches_ahead += training.input().times_ahead();
    result.input_seconds += training.input_seconds();
    result.seconds += training.seconds_trained();
  };
  tbb::task_arena(threads).execute([&] {
    Training training(config, data, world());
    int asked = 0;
    training.run(told.observer(), [&] { return ++asked == steps_before_stop; });
    keep(training);
  });
  if (steps_before_stop == 0) return result;
  tbb::task_arena(threads_after).execute([&] {
    Training training(config, data, world());
    training.resume(told.saved.back(), "checkpoint");
    training.run({}, never);
    keep(training);
  });
  return result;
}

TEST(Training, DecodingAheadChangesNoBit) {
  const Trained inline_input = train_with(1);
  EXPECT_EQ(inline_input.batches_ahead, 0u);
  EXPECT_GT(inline_input.input_seconds, 0.0);
  EXPECT_LE(inline_input.input_seconds, world().size() == 1 ? inline_input.seconds : 3600.0);
  for (const int threads : {2, 4}) {
    const Trained ahead = train_with(threads);
    EXPECT_EQ(ahead.batches_ahead, 3 * 3 - 1u);  // all but the first, over the epochs' ends too
    EXPECT_EQ(ahead.parameters, inline_input.parameters) << threads;
    EXPECT_EQ(ahead.train_loss, inline_input.train_loss) << threads;
  }
}

TEST(Training, AStopWhileTheNextBatchIsDecodedChangesNoBit) {
  if (world().size() > 1) return;  // only rank 0 has the checkpoint
  const Trained whole = train_with(1);
  for (const int steps : {1, 3, 5}) {
    for (const auto& [before, after] : {std::pair(2, 1), std::pair(1, 2), std::pair(2, 2)}) {
      const Trained cut = train_with(before, steps, after);
      EXPECT_EQ(cut.parameters, whole.parameters) << steps << ' ' << before << ' ' << after;
      EXPECT_EQ(cut.train_loss, whole.train_loss) << steps << ' ' << before << ' ' << after;
      // One step alone has nothing decoded ahead.
      EXPECT_EQ(cut.batches_ahead > 0, steps > 1 || after > 1);
    }
  }
}

TEST(Training, TrainLossIsTheMeanOverTheEpochAsItsBatchesSawIt) {
  const auto data = test::small_dataset(103);
  Config config = small_config();
  config.data.validation_fraction = 0;
  config.model.layers.erase(config.model.layers.begin() + 1);  // no dropout: loss as evaluated
  config.training.descent = "batch";
  config.training.epochs = 1;
  Training training(config, data, world());
  const Evaluation before =
      evaluate(training.network(), training.result(), data, all_rows(103), world());
  Told told;
  training.run(told.observer(), never);
  // The same samples, summed in another order.
  EXPECT_NEAR(training.state().train_loss, before.loss, 103 * 1.2e-7);
  if (world().rank() == 0) {
    EXPECT_EQ(told.epochs[0].train_accuracy, before.accuracy);
  }
}

TEST(Training, ACheckpointHoldsAllThatTheNextStepNeeds) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.early_stopping.patience = 100;
  config.checkpoint.every_steps = 7;  // in the middle of epochs, and between two
  Training whole(config, data, world());
  Told told;
  whole.run(told.observer(), never);
  const std::uint64_t saved = world().rank() == 0 ? told.saved.size() : 0;
  std::string count = std::to_string(saved);
  world().broadcast(count, 0);
  ASSERT_GE(std::stoul(count), 8u);
  // Only rank 0 has the checkpoints, and one rank is enough to see what they hold.
  if (world().size() > 1) return;
  for (const Checkpoint& checkpoint : told.saved) {
    Training resumed(config, data, world());
    resumed.resume(checkpoint, "checkpoint");
    resumed.run({}, never);
    EXPECT_EQ(values(resumed.result()), values(whole.result())) << checkpoint.state.step;
    EXPECT_EQ(resumed.state().train_loss, whole.state().train_loss) << checkpoint.state.step;
    EXPECT_EQ(resumed.state().best_validation_loss, whole.state().best_validation_loss);
  }
}

TEST(Training, EarlyStoppingKeepsTheBestParameters) {
  const auto data = test::small_dataset(60);
  Config config = small_config();
  config.training.epochs = 400;
  config.early_stopping.patience = 3;
  config.checkpoint.every_epochs = 0;
  Training training(config, data, world());
  EXPECT_EQ(training.run({}, never), TrainingEnd::stopped_early);
  EXPECT_EQ(training.state().epoch, training.state().best_epoch + 3);
  const auto rows = datasets::split(60, 0.25, config.training.seed).validation;
  EXPECT_EQ(evaluate(training.network(), training.result(), data, rows, world()).loss,
            training.state().best_validation_loss);
}

TEST(Training, ARequestOnOneRankStopsAllAfterACheckpoint) {
  const auto data = test::small_dataset(135);
  const Config config = small_config();
  Training training(config, data, world());
  Told told;
  int asked = 0;
  const bool mine = world().rank() + 1 == world().size();
  EXPECT_EQ(training.run(told.observer(), [&] { return mine && ++asked > 5; }),
            TrainingEnd::stopped_by_signal);
  EXPECT_EQ(training.state().step, 6u);
  if (world().rank() == 0) {
    ASSERT_EQ(told.saved.size(), 1u);
    EXPECT_EQ(told.saved[0].state.step, 6u);
  }
}

TEST(Training, DivergenceIsAnError) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.optimizer.name = "sgd";
  config.optimizer.learning_rate = 3e38;
  Training training(config, data, world());
  EXPECT_THROW(training.run({}, never), Diverged);
}

TEST(Training, ACheckpointOfAnotherModelIsRefused) {
  const auto data = test::small_dataset(135);
  const Config config = small_config();
  Config other = config;
  other.optimizer.name = "rmsprop";
  Training training(config, data, world());
  Told told;
  training.run(told.observer(), never);
  if (world().rank() != 0) return;
  Checkpoint checkpoint = told.saved.back();
  checkpoint.parameters[0].shape = {11, 5};
  if (world().size() > 1) return;  // making another Training is collective
  Training same(config, data, world());
  EXPECT_THROW(same.resume(checkpoint, "checkpoint"), CheckpointError);
  Training another(other, data, world());
  EXPECT_THROW(another.resume(told.saved.back(), "checkpoint"), CheckpointError);
}

}  // namespace
}  // namespace lockstep::trainer

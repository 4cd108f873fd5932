// The loop in one process per rank: what it reports, when it saves, and that a checkpoint holds all
// that the next step needs.
#include "trainer/training.hpp"

#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <chrono>
#include <thread>
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
    result.input_seconds += training.pace().input_seconds();
    result.seconds += training.pace().seconds();
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
  config.optimizer.schedule = "cosine";
  config.optimizer.warmup_steps = 9;
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

// 4 epochs of 11 updates.
TEST(Training, TheLearningRateFallsOverTheUpdatesOfTheWholeRun) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.optimizer.schedule = "linear";
  config.optimizer.end_factor = 0.2;
  config.optimizer.warmup_steps = 4;
  Told told;
  Training training(config, data, world());
  EXPECT_EQ(training.updates(), 44u);
  training.run(told.observer(), never);
  ASSERT_EQ(told.epochs.size(), world().rank() == 0 ? 4u : 0u);
  for (const EpochReport& epoch : told.epochs) {
    const double done = (static_cast<double>(epoch.step) - 5) / 40;  // before the epoch's last
    EXPECT_NEAR(epoch.learning_rate, 0.01 * (1 - 0.8 * done), 1e-15) << epoch.epoch;
  }
  config.training.steps = 30;  // and only then has it fallen as far
  Told of_fewer;
  Training fewer(config, data, world());
  EXPECT_EQ(fewer.updates(), 30u);
  fewer.run(of_fewer.observer(), never);
  if (world().rank() == 0) {
    EXPECT_NEAR(of_fewer.epochs.back().learning_rate, 0.01 * (1 - 0.8 * 25 / 26), 1e-15);
    EXPECT_LT(of_fewer.epochs.front().learning_rate, told.epochs.front().learning_rate);
    EXPECT_NE(of_fewer.epochs.front().validation->loss, told.epochs.front().validation->loss);
  }
}

TEST(Training, AWarmUpMustBeShorterThanTheRun) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.optimizer.warmup_steps = 43;
  EXPECT_NO_THROW(Training(config, data, world()));
  config.optimizer.warmup_steps = 44;
  EXPECT_THROW(Training(config, data, world()), ConfigError);
  config.training.steps = 45;
  EXPECT_NO_THROW(Training(config, data, world()));
}

Config config_with_batch_norm(const std::string& scope) {
  Config config = small_config();
  LayerConfig norm;
  norm.kind = LayerConfig::Kind::batch_norm;
  norm.scope = scope;
  config.model.layers.insert(config.model.layers.begin() + 1, norm);
  config.training.batch_size = 20;  // the last batch of an epoch is one sample
  return config;
}

TEST(Training, BatchNormLearnsAndItsStatisticsAreSaved) {
  const auto data = test::small_dataset(135);
  for (const std::string scope : {"batch", "leaf"}) {
    const Config config = config_with_batch_norm(scope);
    Training training(config, data, world());
    Told told;
    training.run(told.observer(), never);
    const nn::ParameterLayout& layout = training.network().layout();
    EXPECT_EQ(training.result().size(), layout.buffer_size());
    if (world().rank() != 0) continue;
    EXPECT_LT(told.epochs.back().train_loss, told.epochs.front().train_loss);
    EXPECT_LT(told.epochs.back().validation->loss, told.epochs.front().validation->loss);
    const Checkpoint& last = told.saved.back();
    std::vector<std::string> names, moving;
    for (const NamedTensor& tensor : last.parameters) names.push_back(tensor.name);
    for (const NamedTensor& tensor : last.moments[0].second) moving.push_back(tensor.name);
    EXPECT_EQ(names,
              (std::vector<std::string>{"0.weight", "0.bias", "1.weight", "1.bias",
                                        "1.running_mean", "1.running_var", "3.weight", "3.bias"}));
    EXPECT_EQ(moving, (std::vector<std::string>{"0.weight", "0.bias", "1.weight", "1.bias",
                                                "3.weight", "3.bias"}));
    for (const float variance : last.parameters[5].values) EXPECT_NE(variance, 1.0f);
    if (world().size() > 1) continue;
    for (const Checkpoint& checkpoint : told.saved) {
      Training resumed(config, data, world());
      resumed.resume(checkpoint, "checkpoint");
      resumed.run({}, never);
      EXPECT_EQ(values(resumed.result()), values(training.result())) << checkpoint.state.step;
    }
  }
}

// The last rank comes late to every step; the others wait for it, in the middle of the pass where a
// layer takes sums there, else at its end.
TEST(Training, TellsHowLongRanksWaitForOthers) {
  constexpr double kLate = 0.02;  // seconds
  const auto data = test::small_dataset(135);
  for (const Config& config : {small_config(), config_with_batch_norm("batch")}) {
    Training training(config, data, world());
    const bool late = world().size() > 1 && world().rank() + 1 == world().size();
    training.run({}, [&] {
      if (late) std::this_thread::sleep_for(std::chrono::duration<double>(kLate));
      return false;
    });
    const double share = 1 - 1 / static_cast<double>(world().size());
    const double expected = kLate * static_cast<double>(training.state().step) * share;
    EXPECT_GE(training.pace().wait_seconds(), 0.7 * expected);
    EXPECT_LE(training.pace().wait_seconds(), training.pace().seconds());
  }
}

TEST(Training, BatchNormNeedsMoreThanOneSample) {
  const auto message = [](const Config& config, std::size_t samples) -> std::string {
    const auto data = test::small_dataset(samples);
    try {
      Training(config, data, world());
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  Config config = config_with_batch_norm("batch");
  config.data.validation_fraction = 0;
  config.training.descent = "batch";
  EXPECT_EQ(message(config, 2), "accepted");
  EXPECT_EQ(message(config, 1),
            "model.layers[1].batch_norm: one sample has no variance, expected at least two samples "
            "in a batch, found a batch of 1");
  config = config_with_batch_norm("leaf");
  config.data.validation_fraction = 0;
  EXPECT_EQ(message(config, 16), "accepted");
  EXPECT_EQ(message(config, 15),
            "model.layers[1].batch_norm: one sample has no variance, expected at least two samples "
            "in each of the 8 leaves of a batch, which makes 16, for scope = \"leaf\", found a "
            "batch of 15");
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

TEST(Training, AFileOfItsOwnIsValidatedOnInWhole) {
  const auto data = test::small_dataset(135);
  const auto other = test::small_dataset(1100);  // three blocks of evaluation
  Config config = small_config();
  config.data.validation_fraction = 0;
  config.training.epochs = 2;
  Training training(config, data, world(), &other);
  EXPECT_EQ(training.training_samples(), 135u);
  EXPECT_EQ(training.validation_samples(), 1100u);
  Told told;
  training.run(told.observer(), never);
  const Evaluation expected =
      evaluate(training.network(), training.result(), other, all_rows(1100), world());
  // What is validated on is no part of what is learned.
  Training without(config, data, world());
  without.run({}, never);
  EXPECT_EQ(values(training.result()), values(without.result()));
  if (world().rank() != 0) return;
  ASSERT_EQ(told.epochs.size(), 2u);
  ASSERT_TRUE(told.epochs.back().validation);
  EXPECT_EQ(told.epochs.back().validation->samples, 1100u);
  EXPECT_EQ(told.epochs.back().validation->loss, expected.loss);
  EXPECT_EQ(told.epochs.back().validation->accuracy, expected.accuracy);
}

TEST(Training, AValidationFileMustFit) {
  const auto data = test::small_dataset(20);
  const auto real = test::small_dataset(20, false);
  Config config = small_config();
  config.data.validation_fraction = 0;
  EXPECT_THROW(Training(config, data, world(), &real), ConfigError);
}

// The validation accuracy after each epoch of a run without a target, on every rank.
std::vector<double> accuracies(const Config& config, const datasets::Dataset& data,
                               const datasets::Dataset& validation) {
  std::vector<double> found;
  Config one = config;
  for (one.training.epochs = 1; one.training.epochs <= config.training.epochs;
       ++one.training.epochs) {
    Training prefix(one, data, world(), &validation);
    prefix.run({}, never);
    found.push_back(*evaluate(prefix.network(), prefix.result(), validation,
                              all_rows(validation.samples()), world())
                         .accuracy);
  }
  return found;
}

TEST(Training, StopsAfterTheFirstEpochThatReachesTheTarget) {
  const auto data = test::small_dataset(135);
  const auto other = test::small_dataset(600);
  Config config = small_config();
  config.data.validation_fraction = 0;
  config.training.epochs = 8;
  const std::vector<double> found = accuracies(config, data, other);
  config.early_stopping.target_accuracy = found[4];
  const auto first = std::ranges::find_if(found, [&](double a) { return a >= found[4]; });
  const auto epochs = static_cast<std::uint64_t>(first - found.begin()) + 1;
  ASSERT_GT(epochs, 1u);
  Training training(config, data, world(), &other);
  Told told;
  EXPECT_EQ(training.run(told.observer(), never), TrainingEnd::reached_target);
  EXPECT_TRUE(training.done());
  EXPECT_TRUE(training.state().finished);
  EXPECT_EQ(training.state().epoch, epochs);
  Config prefix = config;
  prefix.early_stopping.target_accuracy = 0;
  prefix.training.epochs = epochs;
  Training last(prefix, data, world(), &other);
  EXPECT_EQ(last.run({}, never), TrainingEnd::finished);
  EXPECT_EQ(values(training.result()), values(last.result())) << "not the last parameters";
  if (world().rank() == 0) {
    ASSERT_EQ(told.epochs.size(), epochs);
    EXPECT_EQ(told.epochs.back().validation->accuracy, *first);
    EXPECT_EQ(told.saved.size(), epochs);
    EXPECT_TRUE(told.saved.back().state.finished);
    EXPECT_FALSE(told.saved[epochs - 2].state.finished);
  }
}

TEST(Training, ATargetOutOfReachChangesNothing) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  Training without(config, data, world());
  without.run({}, never);
  config.early_stopping.target_accuracy = 1.0;
  Training with(config, data, world());
  EXPECT_EQ(with.run({}, never), TrainingEnd::finished);
  EXPECT_FALSE(with.reached_target());
  EXPECT_EQ(values(with.result()), values(without.result()));
}

TEST(Training, UnderPatienceTheBestParametersAreTheResultAtTheTargetToo) {
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.early_stopping.patience = 50;
  config.early_stopping.minimum_improvement = 1e6;  // the first epoch stays the best
  config.training.epochs = 40;
  config.early_stopping.target_accuracy = 0.7;
  Training training(config, data, world());
  ASSERT_EQ(training.run({}, never), TrainingEnd::reached_target);
  ASSERT_GT(training.state().epoch, 1u);
  ASSERT_EQ(training.state().best_epoch, 1u);
  config.early_stopping = {};
  config.training.epochs = 1;
  Training first(config, data, world());
  first.run({}, never);
  EXPECT_EQ(values(training.result()), values(first.result()));
}

TEST(Training, AReachedTargetIsStillReachedAfterResume) {
  if (world().size() > 1) return;  // only rank 0 has checkpoints; contract_test resumes on more
  const auto data = test::small_dataset(135);
  Config config = small_config();
  config.training.epochs = 40;
  config.early_stopping.target_accuracy = 0.7;
  Training training(config, data, world());
  Told told;
  ASSERT_EQ(training.run(told.observer(), never), TrainingEnd::reached_target);
  ASSERT_LT(training.state().epoch, 39u);
  const Checkpoint& last = told.saved.back();
  config.training.epochs = 50;
  Training again(config, data, world());
  again.resume(last, "checkpoint");
  EXPECT_TRUE(again.done());
  EXPECT_TRUE(again.state().finished);
  Told nothing;
  EXPECT_EQ(again.run(nothing.observer(), never), TrainingEnd::reached_target);
  EXPECT_TRUE(nothing.epochs.empty());
  EXPECT_TRUE(nothing.saved.empty());
  EXPECT_EQ(values(again.result()), values(training.result()));

  config.early_stopping.target_accuracy = 1.0;
  Training further(config, data, world());
  further.resume(last, "checkpoint");
  EXPECT_FALSE(further.done());
  EXPECT_FALSE(further.state().finished);

  // In the middle of an epoch the last one's accuracy says nothing of the parameters.
  config.early_stopping.target_accuracy = 0;
  config.checkpoint.every_steps = 1;
  config.training.steps = last.state.step + 1;
  Training on(config, data, world());
  on.resume(last, "checkpoint");
  Told one_more;
  on.run(one_more.observer(), never);
  ASSERT_EQ(one_more.saved.back().state.step_in_epoch, 1u);
  config.training.steps = 0;
  config.early_stopping.target_accuracy = 0.01;
  Training middle(config, data, world());
  middle.resume(one_more.saved.back(), "checkpoint");
  EXPECT_FALSE(middle.done());
  EXPECT_EQ(middle.run({}, never), TrainingEnd::reached_target);
  EXPECT_EQ(middle.state().epoch, last.state.epoch + 1);
}

TEST(Training, ATargetNeedsClasses) {
  const auto real = test::small_dataset(40, false);
  Config config = small_config();
  config.model.layers.back().units = 1;
  config.model.loss = "mean_squared_error";
  EXPECT_NO_THROW(Training(config, real, world()));
  config.early_stopping.target_accuracy = 0.5;
  EXPECT_THROW(Training(config, real, world()), ConfigError);
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

#include "trainer/training.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "nn/kernels/kernels.hpp"
#include "trainer/exit_code.hpp"
#include "trainer/model.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {
namespace {

std::size_t batch_size_of(const TrainingConfig& config, std::size_t samples) {
  if (config.descent == "batch") return samples;
  if (config.descent == "stochastic") return 1;
  return std::min(config.batch_size, samples);
}

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

datasets::Split rows_of(const Config& config, const datasets::Dataset& data,
                        const datasets::Dataset* validation) {
  if (validation != nullptr) return {all_rows(data.samples()), all_rows(validation->samples())};
  return datasets::split(data.samples(), config.data.validation_fraction, config.training.seed);
}

// In the leaf tree's order; an empty leaf's 0 changes nothing.
double sum_over_leaves(std::span<const double> by_leaf) {
  std::vector<double> level(by_leaf.begin(), by_leaf.end());
  for (std::size_t n = level.size(); n > 1; n /= 2) {
    for (std::size_t i = 0; i < n / 2; ++i) level[i] = level[2 * i] + level[2 * i + 1];
  }
  return level[0];
}

}  // namespace

Training::Training(const Config& config, const datasets::Dataset& data,
                   comm::Communicator& communicator, const datasets::Dataset* validation)
    : config_(config),
      data_(data),
      validation_data_(validation != nullptr ? *validation : data),
      communicator_(communicator),
      rows_(rows_of(config, data, validation)),
      network_(build_network(config, data)),
      batch_size_(batch_size_of(config.training, rows_.train.size())),
      optimizer_(network_.layout(), optimizer_options(config, updates()), communicator.size() > 1),
      order_(rows_.train, {.shuffle = config.training.shuffle,
                           .seed = config.training.seed,
                           .batch_size = batch_size_}),
      // A second copy of the whole dataset's inputs would cost more than decoding it once an epoch.
      step_(network_, optimizer_, data, communicator, config.training.leaves, batch_size_,
            config.training.seed, batch_size_ < rows_.train.size(), config.comm) {
  // Nothing of the moments has been used yet.
  if (step_.shares() && step_.shares()->fills_huge_pages()) {
    optimizer_ = nn::Optimizer<float>(network_.layout(), optimizer_.options());
  }
  if (validation != nullptr) check_fits(network_, *validation, "data.validation");
  check_batch_size(config, batch_size_);
  if (config.early_stopping.target_accuracy > 0 && !validation_data_.has_classes()) {
    throw ConfigError(fmt::format(
        "early_stopping.target_accuracy: found {}, but {} holds real targets, which have no "
        "accuracy; expected 0",
        config.early_stopping.target_accuracy, validation_data_.path().string()));
  }
  state_.epoch_loss_by_leaf.resize(config.training.leaves);
  state_.epoch_correct_by_leaf.resize(config.training.leaves);
  network_.initialize(config.training.seed, step_.parameters_to_set());
}

void Training::start_from(std::span<const NamedTensor> parameters, std::string_view origin) {
  copy_into(parameters, network_.layout(), step_.parameters_to_set(), origin);
}

void Training::resume(const Checkpoint& checkpoint, std::string_view origin) {
  const nn::ParameterLayout& layout = network_.layout();
  copy_into(checkpoint.parameters, layout, step_.parameters_to_set(), origin);
  const auto moments = optimizer_.moments();
  if (checkpoint.moments.size() != moments.size()) {
    throw CheckpointError(fmt::format("{}: holds {} optimizer moments, but {} has {}", origin,
                                      checkpoint.moments.size(), config_.optimizer.name,
                                      moments.size()));
  }
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const auto& [name, tensors] = checkpoint.moments[i];
    if (name != moments[i].name) {
      throw CheckpointError(fmt::format("{}: holds the optimizer moment {} where {} has {}", origin,
                                        name, config_.optimizer.name, moments[i].name));
    }
    nn::AlignedBuffer<float> whole(layout.trained_size());
    copy_into(tensors, layout, whole.span(), origin);
    for (const comm::Shard& own : step_.exchange().owned()) {
      std::ranges::copy(whole.span().subspan(own.begin, own.size()),
                        moments[i].values.span().subspan(own.begin).begin());
    }
  }
  if (checkpoint.state.epoch_loss_by_leaf.size() != config_.training.leaves) {
    throw CheckpointError(fmt::format("{}: was written with {} leaves, but training.leaves is {}",
                                      origin, checkpoint.state.epoch_loss_by_leaf.size(),
                                      config_.training.leaves));
  }
  if (!checkpoint.best.empty()) {
    best_ = nn::AlignedBuffer<float>(layout.buffer_size());
    copy_into(checkpoint.best, layout, best_.span(), origin);
  }
  state_ = checkpoint.state;
  if (config_.early_stopping.patience > 0 && best_.size() == 0) {
    // Early stopping begins now, if at all: what was best before is not at hand.
    state_.best_validation_loss = std::numeric_limits<double>::infinity();
    state_.epochs_without_improvement = 0;
  }
  stopped_early_ = config_.early_stopping.patience > 0 &&
                   state_.epochs_without_improvement >= config_.early_stopping.patience;
  if (state_.step_in_epoch > steps_in_epoch()) {
    throw CheckpointError(fmt::format(
        "{}: is {} steps into its epoch, but an epoch of this data and batch size has {}", origin,
        state_.step_in_epoch, steps_in_epoch()));
  }
  // Evaluated again: what is enough, and of which samples, may have changed since.
  const bool between_epochs = state_.epoch > 0 && state_.step_in_epoch == 0;
  reached_target_ = config_.early_stopping.target_accuracy > 0 && between_epochs &&
                    !rows_.validation.empty() && is_enough(validate());
  if (!done()) state_.finished = false;  // the configuration now says that there is more to do
}

std::span<const float> Training::result() const {
  return best_.size() > 0 ? best_.span() : step_.parameters();
}

std::uint64_t Training::steps_in_epoch() const {
  return (rows_.train.size() + batch_size_ - 1) / batch_size_;
}

std::uint64_t Training::updates() const {
  if (config_.training.steps > 0) return config_.training.steps;
  const std::uint64_t steps = steps_in_epoch();
  return steps *
         std::min(config_.training.epochs, std::numeric_limits<std::uint64_t>::max() / steps);
}

bool Training::done() const {
  if (stopped_early_ || reached_target_) return true;
  if (config_.training.steps > 0) return state_.step >= config_.training.steps;
  return state_.epoch >= config_.training.epochs;
}

Evaluation Training::validate() const {
  return evaluate(network_, step_.parameters(), validation_data_, rows_.validation, communicator_);
}

bool Training::is_enough(const Evaluation& validation) const {
  const double target = config_.early_stopping.target_accuracy;
  return target > 0 && validation.accuracy >= target;
}

TrainingEnd Training::run(const TrainingObserver& observer, const std::function<bool()>& stop) {
  while (!done()) {
    const EpochEnd end = run_epoch(observer, stop);
    if (end == EpochEnd::stopped) {
      save(observer);
      return TrainingEnd::stopped_by_signal;
    }
    const EpochReport report = close_epoch(end == EpochEnd::complete);
    if (observer.epoch) observer.epoch(report);
    if (!done() && due_to_save()) save(observer);
  }
  if (!state_.finished) {
    state_.finished = true;
    save(observer);
  }
  if (reached_target_) return TrainingEnd::reached_target;
  return stopped_early_ ? TrainingEnd::stopped_early : TrainingEnd::finished;
}

bool Training::due_to_save() const {
  const CheckpointConfig& every = config_.checkpoint;
  const bool between_epochs = state_.step_in_epoch == 0;
  return (every.every_steps > 0 && state_.step % every.every_steps == 0) ||
         (every.every_epochs > 0 && between_epochs && state_.epoch % every.every_epochs == 0);
}

Training::EpochEnd Training::run_epoch(const TrainingObserver& observer,
                                       const std::function<bool()>& stop) {
  // The end of one step is the start of the next, unless something else comes between.
  auto start = Clock::now();
  order_.begin(state_.epoch);
  const std::uint64_t steps = steps_in_epoch();
  auto tell_at = start;
  while (state_.step_in_epoch < steps) {
    if (done()) return EpochEnd::cut_short;
    const auto batch = order_.batch(state_.step_in_epoch);
    const auto next = state_.step_in_epoch + 1 < steps ? order_.batch(state_.step_in_epoch + 1)
                                                       : order_.first_of_next_epoch();
    const bool stop_here = stop();
    const std::uint64_t every = config_.comm.compare_every;
    if (every > 0 && state_.step % every == 0) step_.compare_replicas(state_.step);
    const auto outcome = step_.run(
        state_.step + 1, batch, next, state_.epoch_loss_by_leaf, state_.epoch_correct_by_leaf,
        {.stop = stop_here, .gradient_norm = next_step_is_told_of(steps)});
    ++state_.step;
    ++state_.step_in_epoch;
    if (outcome.diverged) {
      const double norm = outcome.gradient_norm.value_or(0);
      diverged(std::isfinite(norm) ? "loss" : "gradient");
    }
    if (outcome.gradient_norm) state_.gradient_norm = *outcome.gradient_norm;
    const auto end = Clock::now();
    const double seconds = seconds_between(start, end);
    pace_.add_step(batch.size(), seconds, seconds_between(start, outcome.input_ready));
    start = end;
    state_.seconds += seconds;
    if (observer.step && end >= tell_at) {
      observer.step({state_.epoch + 1, state_.step_in_epoch, steps, pace_.epoch_samples(),
                     pace_.epoch_seconds(), own_mean_loss()});
      start = Clock::now();
      tell_at = start + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(observer.step_interval));
    }
    if (outcome.stop) return EpochEnd::stopped;
    if (state_.step_in_epoch < steps && !done() && due_to_save()) {
      save(observer);
      start = Clock::now();
    }
  }
  return EpochEnd::complete;
}

// Whether the next step may be followed by a report or a checkpoint, which tell of its gradient.
bool Training::next_step_is_told_of(std::uint64_t steps_in_epoch) const {
  const std::uint64_t step = state_.step + 1;
  const std::uint64_t every = config_.checkpoint.every_steps;
  return state_.step_in_epoch + 1 == steps_in_epoch || step == config_.training.steps ||
         (every > 0 && step % every == 0);
}

std::uint64_t Training::samples_done_in_epoch() const {
  return std::min<std::uint64_t>(state_.step_in_epoch * batch_size_, rows_.train.size());
}

void Training::diverged(std::string_view what) const {
  throw Diverged(
      fmt::format("diverged at step {} (epoch {}): not finite any more: the {}; a smaller "
                  "optimizer.learning_rate (now {}) may help",
                  state_.step, state_.epoch + 1, what, config_.optimizer.learning_rate));
}

double Training::own_mean_loss() const {
  const auto mine = step_.leaves();
  const std::size_t leaves = config_.training.leaves;
  const std::uint64_t before = mine.begin * batch_size_ / leaves;
  const std::uint64_t own = (mine.end * batch_size_ / leaves - before) * state_.step_in_epoch;
  if (own == 0) return std::nan("");
  double loss = 0;
  for (std::size_t l = mine.begin; l < mine.end; ++l) loss += state_.epoch_loss_by_leaf[l];
  return loss / static_cast<double>(std::min(own, samples_done_in_epoch()));
}

// Each rank has summed over its own leaves; now every rank knows all of them.
void Training::gather_leaf_sums() {
  const std::size_t leaves = config_.training.leaves;
  std::vector<std::size_t> counts;
  for (std::size_t r = 0; r < communicator_.size(); ++r) {
    const auto range = comm::leaves_of_rank(r, communicator_.size(), leaves);
    counts.push_back(range.end - range.begin);
  }
  for (std::vector<double>* sums : {&state_.epoch_loss_by_leaf, &state_.epoch_correct_by_leaf}) {
    const auto mine = step_.leaves();
    const std::vector<double> own(sums->begin() + static_cast<std::ptrdiff_t>(mine.begin),
                                  sums->begin() + static_cast<std::ptrdiff_t>(mine.end));
    communicator_.all_gather(own, counts, *sums);
  }
}

Training::Memory Training::memory() const {
  std::size_t owned = 0;
  for (const comm::Shard& shard : step_.exchange().owned()) owned += shard.size();
  const std::size_t boards = step_.shares() ? step_.shares()->memory_bytes() : 0;
  return {step_.exchange().memory_bytes() + boards,
          owned * optimizer_.moments().size() * sizeof(float)};
}

EpochReport Training::close_epoch(bool complete) {
  gather_leaf_sums();
  EpochReport report;
  report.epoch = state_.epoch + 1;
  report.complete = complete;
  report.step = state_.step;
  report.samples = samples_done_in_epoch();
  report.seconds = state_.seconds;
  report.pace = pace_.close_epoch(communicator_, step_.seconds_waited());
  report.learning_rate = optimizer_.learning_rate_at(state_.step);
  report.gradient_norm = state_.gradient_norm;
  const double samples = static_cast<double>(report.samples);
  report.train_loss = sum_over_leaves(state_.epoch_loss_by_leaf) / samples;
  if (data_.has_classes()) {
    report.train_accuracy = sum_over_leaves(state_.epoch_correct_by_leaf) / samples;
  }
  if (!std::isfinite(report.train_loss)) diverged("loss");
  state_.train_loss = report.train_loss;
  if (!rows_.validation.empty()) {
    step_.set_phase("validate");
    report.validation = validate();
    if (!std::isfinite(report.validation->loss)) diverged("validation loss");
  }
  pace_.open_epoch(step_.seconds_waited());
  if (complete) {
    if (report.validation) {
      watch_for_early_stop(report.validation->loss, report);
      reached_target_ = is_enough(*report.validation);
    }
    ++state_.epoch;
    state_.step_in_epoch = 0;
    std::ranges::fill(state_.epoch_loss_by_leaf, 0.0);
    std::ranges::fill(state_.epoch_correct_by_leaf, 0.0);
  }
  return report;
}

void Training::watch_for_early_stop(double validation_loss, EpochReport& report) {
  const EarlyStoppingConfig& early = config_.early_stopping;
  if (validation_loss < state_.best_validation_loss - early.minimum_improvement) {
    state_.best_validation_loss = validation_loss;
    state_.best_epoch = state_.epoch + 1;
    state_.epochs_without_improvement = 0;
    report.best = true;
    if (early.patience > 0) {
      if (best_.size() == 0) best_ = nn::AlignedBuffer<float>(step_.parameters().size());
      std::ranges::copy(step_.parameters(), best_.data());
    }
  } else {
    ++state_.epochs_without_improvement;
    stopped_early_ = early.patience > 0 && state_.epochs_without_improvement >= early.patience;
  }
}

// Collective. Each rank keeps its share of the moments; rank 0 alone, which writes them, gets all.
void Training::gather(const nn::Moment<float>& moment, Checkpoint& checkpoint) {
  const nn::ParameterLayout& layout = network_.layout();
  if (communicator_.size() == 1) {
    checkpoint.moments.emplace_back(moment.name, tensors_of(layout, moment.values.span()));
    return;
  }
  const bool writes = communicator_.rank() == 0;
  nn::AlignedBuffer<float> whole(writes ? layout.trained_size() : 0);
  step_.gather_shares(moment.values.span(), whole.span());
  if (writes) checkpoint.moments.emplace_back(moment.name, tensors_of(layout, whole.span()));
}

void Training::save(const TrainingObserver& observer) {
  // In the middle of an epoch the leaves' sums are still spread over the ranks. Those that this
  // rank does not own are what the gathering fills in, so they must not be added to again: only
  // its own leaves ever are.
  gather_leaf_sums();
  step_.compare_replicas(state_.step);
  step_.set_phase("save");
  // The last update may have been the one that went too far.
  for (const float w : step_.parameters()) {
    if (!std::isfinite(w)) diverged("parameters");
  }
  Checkpoint checkpoint;
  for (nn::Moment<float>& moment : optimizer_.moments()) gather(moment, checkpoint);
  if (!observer.save) return;
  const nn::ParameterLayout& layout = network_.layout();
  checkpoint.parameters = tensors_of(layout, step_.parameters());
  if (best_.size() > 0) checkpoint.best = tensors_of(layout, best_.span());
  checkpoint.state = state_;
  checkpoint.config = to_toml(config_);
  checkpoint.program_version = kProgramVersion;
  checkpoint.build = kBuild;
  checkpoint.instruction_set = std::string(nn::kernels<float>().instruction_set);
  checkpoint.data_digest = data_.digest();
  observer.save(checkpoint);
}

}  // namespace lockstep::trainer

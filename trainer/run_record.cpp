#include "trainer/run_record.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "trainer/checkpoint_files.hpp"

namespace lockstep::trainer {
namespace {

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

RunRecord::RunRecord(RunDirectory directory, const Config& config)
    : directory_(std::move(directory)), config_(config) {
  auto sink = std::make_shared<spdlog::sinks::basic_file_sink_st>(directory_.log_file().string());
  log_ = std::make_shared<spdlog::logger>("lockstep", std::move(sink));
  log_->set_pattern("%Y-%m-%d %H:%M:%S  %v");
  log_->flush_on(spdlog::level::info);
}

RunRecord::~RunRecord() = default;

void RunRecord::begin(const TrainingState& state) {
  directory_.write_text_atomically("config.toml", to_toml(config_));
  if (state.finished) return;
  directory_.drop_metrics_after(state.step);
  set_aside_checkpoints_after(directory_.path(), state.step);
}

void RunRecord::say(std::string_view line) {
  progress_.line(line);
  log_->info("{}", line);
}

void RunRecord::warn(std::string_view line) {
  say(fmt::format("warning: {}", line));
}

TrainingObserver RunRecord::observer() {
  std::function<void(const StepReport&)> step;
  if (progress_.draws()) step = [this](const StepReport& report) { show_step(report); };
  return {.step = std::move(step),
          .epoch = [this](const EpochReport& report) { keep_epoch(report); },
          .save = [this](const Checkpoint& checkpoint) { keep_checkpoint(checkpoint); },
          .step_interval = progress_.interval()};
}

void RunRecord::show_step(const StepReport& report) {
  const std::uint64_t steps = config_.training.steps > 0
                                  ? config_.training.steps
                                  : config_.training.epochs * report.steps_in_epoch;
  const std::uint64_t epochs = (steps + report.steps_in_epoch - 1) / report.steps_in_epoch;
  progress_.update({.epoch = report.epoch,
                    .epochs = epochs,
                    .step_in_epoch = report.step_in_epoch,
                    .steps_in_epoch = report.steps_in_epoch,
                    .step = (report.epoch - 1) * report.steps_in_epoch + report.step_in_epoch,
                    .steps = steps,
                    .samples_per_second = static_cast<double>(report.samples) / report.seconds,
                    .loss = report.mean_loss});
}

void RunRecord::keep_epoch(const EpochReport& report) {
  nlohmann::ordered_json line;
  line["epoch"] = report.epoch;
  if (!report.complete) line["complete"] = false;
  line["step"] = report.step;
  line["samples"] = report.samples;
  line["seconds"] = report.seconds;
  line["samples_per_second"] = report.pace.samples_per_second;
  line["input_seconds"] = report.pace.input_seconds;
  line["wait_seconds"] = report.pace.wait_seconds;
  line["train_loss"] = report.train_loss;
  line["train_accuracy"] = or_null(report.train_accuracy);
  EpochSummary summary{
      .epoch = report.epoch,
      .epochs = config_.training.steps > 0 ? report.epoch : config_.training.epochs,
      .train_loss = report.train_loss,
      .samples_per_second = report.pace.samples_per_second,
      .seconds = report.seconds,
      .input_share = report.pace.input_share,
      .wait_share = report.pace.wait_share,
      .best = report.best};
  if (report.validation) {
    line["validation_loss"] = report.validation->loss;
    line["validation_accuracy"] = or_null(report.validation->accuracy);
    summary.validation_loss = report.validation->loss;
    summary.validation_accuracy = report.validation->accuracy;
  }
  line["learning_rate"] = report.learning_rate;
  line["gradient_norm"] = report.gradient_norm;
  directory_.append_metrics(line);
  say(epoch_line(summary));
  // Times of a short epoch say little.
  if (report.pace.slowest_excess > 0.2 && report.pace.samples_per_second > 0 &&
      static_cast<double>(report.samples) / report.pace.samples_per_second > 1) {
    say(fmt::format("rank {} holds the others up: it computed {:.0f} % longer than most",
                    report.pace.slowest_rank, 100 * report.pace.slowest_excess));
  }
}

void RunRecord::keep_checkpoint(const Checkpoint& checkpoint) {
  const auto path = checkpoint_path(directory_.path(), checkpoint.state.step);
  write_checkpoint(path, checkpoint);
  prune_checkpoints(directory_.path(), config_.checkpoint.keep);
  log_->info("checkpoint {}", path.filename().string());
}

void RunRecord::write_summary(const nlohmann::ordered_json& summary) {
  directory_.write_text_atomically("summary.json", summary.dump(2) + "\n");
}

}  // namespace lockstep::trainer

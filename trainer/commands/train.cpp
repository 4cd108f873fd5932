// lockstep train: from a configuration to a run directory with a trained, tested network.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "comm/together.hpp"
#include "datasets/numbers.hpp"
#include "nn/kernels/kernels.hpp"
#include "trainer/background.hpp"
#include "trainer/checkpoint_files.hpp"
#include "trainer/commands/commands.hpp"
#include "trainer/commands/introduction.hpp"
#include "trainer/doctor/judge_placement.hpp"
#include "trainer/model.hpp"
#include "trainer/placement.hpp"
#include "trainer/run_record.hpp"
#include "trainer/stop_signal.hpp"
#include "trainer/training.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {
namespace {

// Keys whose change does not make a resumed run another one.
bool may_change_on_resume(const std::string& key) {
  return key == "training.epochs" || key == "training.steps" || key == "training.threads" ||
         key == "early_stopping.target_accuracy" || key.starts_with("checkpoint.") ||
         key.starts_with("comm.") || key == "data.test";
}

// Two paths of one file; false where one of them cannot be asked.
bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return std::filesystem::equivalent(a, b, ignored);
}

// One run of the train command. Rank 0 alone has a record.
class TrainRun {
 public:
  TrainRun(const TrainOptions& options, comm::Communicator& world)
      : options_(options),
        world_(world),
        config_(read_config(options.config, options.settings)),
        placements_(find_placements(config_.training.threads, world)),
        threads_(placements_[world.rank()].threads) {
    world_.set_timeout(config_.comm.timeout);
    check_ranks();
  }

  ExitCode run() {
    ExitCode code = ExitCode::done;
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads_);
    tbb::task_arena(static_cast<int>(threads_)).execute([&] { code = run_in_arena(); });
    return code;
  }

 private:
  ExitCode run_in_arena() {
    const datasets::Names names{config_.data.x, config_.data.y};
    const auto data = datasets::Dataset::read(config_.data.train, names);
    std::shared_ptr<const datasets::Dataset> validation, test;
    const auto read = [&](const std::string& path) {
      return std::make_shared<const datasets::Dataset>(datasets::Dataset::read(path, names));
    };
    if (!config_.data.validation.empty()) validation = read(config_.data.validation);
    if (!config_.data.test.empty()) {
      const bool both = validation && same_file(config_.data.test, config_.data.validation);
      test = both ? validation : read(config_.data.test);
    }
    check_agreement(data, validation.get());
    Training training = make_training(data, validation.get());
    if (test) check_fits(training.network(), *test, "data.test");
    if (!options_.resume) start_from_file(training);
    open_record();
    Background
        digest;  // which the first checkpoint asks for; several ranks have compared it by now
    if (threads_ > 1 && world_.size() == 1) digest.start([&] { data.digest(); });
    if (options_.resume && !resume(training, data)) start_from_file(training);
    if (record_) record_->begin(training.state());
    if (record_) {
      introduce(*record_, config_, training, data,
                {.ranks = world_.size(),
                 .threads = threads_,
                 .warning = placement_warning(placements_, find_launcher(std::getenv))});
    }

    if (options_.resume && training.state().finished) {
      say(training.reached_target()
              ? "done    nothing is left to do: early_stopping.target_accuracy is reached"
              : "done    nothing is left to do: training.epochs or training.steps says how far to "
                "go");
      return ExitCode::done;
    }
    if (signal_.requested())
      say(fmt::format("{} came: the run stops after a step", signal_.name()));
    const TrainingEnd end = training.run(record_ ? record_->observer() : TrainingObserver{},
                                         [&] { return signal_.requested(); });
    signal_.ignore_late_ones();
    if (end == TrainingEnd::stopped_by_signal) {
      const std::string_view name = signal_.name();
      say(fmt::format("stopped by {} after step {}; go on with --resume",
                      name.empty() ? "a signal to another rank" : name, training.state().step));
      return ExitCode::stopped;
    }
    if (end == TrainingEnd::stopped_early) {
      say(
          fmt::format("stopped early: no better validation loss for {} epochs; the parameters of "
                      "epoch {} are the result",
                      training.state().epochs_without_improvement, training.state().best_epoch));
    }
    if (end == TrainingEnd::reached_target) say_target_reached(training);
    std::optional<Evaluation> tested;
    if (test) {
      tested = trainer::evaluate(training.network(), training.result(), *test,
                                 all_rows(test->samples()), world_);
      if (!std::isfinite(tested->loss)) throw Diverged("diverged: the test loss is not finite");
    }
    if (record_) summarise(training, tested);
    return ExitCode::done;
  }

  void check_ranks() const {
    const std::size_t leaves = config_.training.leaves;
    if (world_.size() <= leaves) return;
    std::size_t enough = leaves;
    while (enough < world_.size()) enough *= 2;
    throw ConfigError(fmt::format(
        "{} ranks, but training.leaves = {}: every rank needs a leaf; start at most {} ranks, or "
        "set training.leaves = {} (which makes it another run, with other bits)",
        world_.size(), leaves, leaves, enough));
  }

  // Each rank has read its own files: a node with another copy would train another replica.
  void check_agreement(const datasets::Dataset& data, const datasets::Dataset* validation) {
    if (world_.size() == 1) return;  // and digests are waited for when they are wanted
    const std::string mine =
        fmt::format("{}\n{}\n{}\n{}\n{}", kProgramVersion, kBuild, data.digest(),
                    validation ? validation->digest() : "none", to_toml(config_));
    const auto all = world_.gather_strings(mine);
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      if (all[rank] == all[0]) continue;
      throw ConfigError(
          fmt::format("ranks 0 and {} do not agree: {}", rank, disagreement(all[0], all[rank])));
    }
  }

  // What differs in two texts that check_agreement() made.
  static std::string disagreement(const std::string& a, const std::string& b) {
    std::istringstream left(a), right(b);
    std::string line_a, line_b;
    for (const char* what : {"program's version", "program's build", "training data's content",
                             "validation data's content"}) {
      std::getline(left, line_a);
      std::getline(right, line_b);
      if (line_a != line_b) return fmt::format("the {} is {} and {}", what, line_a, line_b);
    }
    while (std::getline(left, line_a) && std::getline(right, line_b) && line_a == line_b) {
    }
    return fmt::format("the configuration has '{}' and '{}'", line_a, line_b);
  }

  void open_record() {
    comm::together(
        world_, [](const std::exception_ptr& e) { return static_cast<int>(exit_code_of(e)); },
        [&] {
          if (world_.rank() != 0) return;
          const auto path = options_.out.value_or(default_run_path(options_.config));
          record_.emplace(
              RunDirectory::create(path, options_.resume ? RunStart::resume : RunStart::fresh),
              config_);
        });
  }

  Training make_training(const datasets::Dataset& data, const datasets::Dataset* validation) {
    try {
      return Training(config_, data, world_, validation);
    } catch (const std::bad_alloc&) {
      const std::size_t parameters = build_network(config_, data).layout().count();
      throw ConfigError(fmt::format(
          "out of memory: {} parameters take {:.1f} GB, and as much again for each gradient and "
          "moment; a smaller model.layers, training.batch_size or more ranks may fit",
          datasets::with_commas(parameters), 4e-9 * static_cast<double>(parameters)));
    }
  }

  void start_from_file(Training& training) const {
    const std::string& file = config_.model.initial_parameters;
    if (!file.empty()) training.start_from(read_parameters(file), file);
  }

  // Rank 0 finds the checkpoint, every rank reads it. False where the run ended before its first.
  bool resume(Training& training, const datasets::Dataset& data) {
    std::string path;
    if (record_) path = choose_checkpoint().string();
    world_.broadcast(path, 0);
    if (path.empty()) {
      say("resume  no checkpoint was written yet: from the start");
      return false;
    }
    const Checkpoint checkpoint = read_checkpoint(path);
    check_same_epoch(checkpoint, path, data);
    training.resume(checkpoint, path);
    if (record_) tell_of_resume(training, checkpoint, path, data);
    return true;
  }

  // An epoch that is under way can only be finished as it was begun.
  void check_same_epoch(const Checkpoint& checkpoint, const std::string& path,
                        const datasets::Dataset& data) const {
    if (checkpoint.state.step_in_epoch == 0) return;
    for (const std::string& key : differences(parse_config(checkpoint.config, path), config_)) {
      if (key == "training.batch_size" || key == "training.descent" || key == "training.seed" ||
          key == "training.shuffle" || key == "data.validation_fraction") {
        throw CheckpointError(fmt::format(
            "{}: was saved in the middle of an epoch, where {} cannot change; resume from a "
            "checkpoint between epochs",
            path, key));
      }
    }
    if (checkpoint.data_digest != data.digest()) {
      throw CheckpointError(
          fmt::format("{}: was saved in the middle of an epoch over other data than {}", path,
                      config_.data.train));
    }
  }

  void tell_of_resume(const Training& training, const Checkpoint& checkpoint,
                      const std::string& path, const datasets::Dataset& data) {
    say(fmt::format("resume  {} (epoch {}, step {})", path, checkpoint.state.epoch,
                    checkpoint.state.step));
    std::vector<std::string> changed = differences(parse_config(checkpoint.config, path), config_);
    const auto has_changed = [&](const char* key) { return std::ranges::count(changed, key) > 0; };
    const bool other_length = has_changed("training.steps") ||
                              (config_.training.steps == 0 && has_changed("training.epochs"));
    if (config_.optimizer.rate_falls() && other_length) {
      record_->warn(fmt::format(
          "the run's length changed: from here on the learning rate falls as in a run of {} "
          "updates, so the result is that of neither length from the start",
          datasets::with_commas(training.updates())));
    }
    std::erase_if(changed, may_change_on_resume);
    if (!changed.empty()) {
      record_->warn(fmt::format("this is no longer the run that wrote the checkpoint: {} changed",
                                fmt::join(changed, ", ")));
    }
    if (checkpoint.data_digest != data.digest()) {
      record_->warn(
          fmt::format("{} is not the data that the checkpoint was trained on", config_.data.train));
    }
    const std::string_view instruction_set = nn::kernels<float>().instruction_set;
    if (checkpoint.instruction_set != instruction_set) {
      say(fmt::format("the checkpoint was written with {} kernels, this run uses {}: the same bits",
                      checkpoint.instruction_set, instruction_set));
    }
  }

  // Empty where none was written.
  std::filesystem::path choose_checkpoint() {
    if (options_.checkpoint) return *options_.checkpoint;
    const auto& directory = record_->directory().path();
    std::vector<std::string> damaged;
    const auto found = newest_valid_checkpoint(directory, &damaged);
    for (const std::string& one : found ? found->skipped : damaged) {
      record_->warn(fmt::format("passed over a damaged checkpoint: {}", one));
    }
    if (!found && damaged.empty()) return {};
    if (!found) {
      throw CheckpointError(
          fmt::format("{}: holds no valid checkpoint to resume from", directory.string()));
    }
    return found->path;
  }

  void say_target_reached(const Training& training) {
    const TrainingState& state = training.state();
    const bool keeps_best = config_.early_stopping.patience > 0;
    say(
        fmt::format("stopped early: epoch {} reached early_stopping.target_accuracy = {}; the "
                    "parameters of epoch {}{} are the result",
                    state.epoch, config_.early_stopping.target_accuracy,
                    keeps_best ? state.best_epoch : state.epoch,
                    keeps_best ? ", of the best validation loss," : ""));
  }

  void summarise(const Training& training, const std::optional<Evaluation>& tested) {
    const PaceMeter& pace = training.pace();
    const double speed =
        pace.seconds() > 0 ? static_cast<double>(pace.samples()) / pace.seconds() : 0.0;
    nlohmann::ordered_json summary;
    summary["ranks"] = world_.size();
    summary["threads"] = threads_;
    summary["parameters"] = training.network().layout().count();
    summary["epochs"] = training.state().epoch;
    summary["steps"] = training.state().step;
    summary["seconds"] = training.state().seconds;
    summary["samples_per_second"] = speed;
    summary["input_seconds"] = pace.input_seconds();
    summary["wait_seconds"] = pace.wait_seconds();
    summary["rank_memory_bytes"] = training.memory().exchange + training.memory().moments;
    summary["train_loss"] = nullptr;
    if (std::isfinite(training.state().train_loss)) {
      summary["train_loss"] = training.state().train_loss;
    }
    summary["test_loss"] = nullptr;
    summary["test_accuracy"] = nullptr;
    if (tested) {
      summary["test_loss"] = tested->loss;
      if (tested->accuracy) summary["test_accuracy"] = *tested->accuracy;
    }
    if (std::isfinite(training.state().best_validation_loss)) {
      summary["best_validation_loss"] = training.state().best_validation_loss;
      summary["best_epoch"] = training.state().best_epoch;
    }
    summary["parameters_sha256"] =
        parameters_sha256(training.network().layout(), training.result());
    summary["instruction_set"] = nn::kernels<float>().instruction_set;
    record_->write_summary(summary);
    if (tested) {
      say(fmt::format(
          "test    loss {:.4f}{}", tested->loss,
          tested->accuracy ? fmt::format(", accuracy {:.2f} %", 100 * *tested->accuracy) : ""));
    }
    say(fmt::format("done    {} steps in {:.1f} s, {} samples/s; parameters sha256 {}",
                    datasets::with_commas(training.state().step), training.state().seconds,
                    datasets::with_commas(static_cast<std::uint64_t>(speed)),
                    summary["parameters_sha256"].get<std::string>()));
  }

  void say(const std::string& line) {
    if (record_) record_->say(line);
  }

  StopSignal signal_;  // it may come while data is read, and is heeded after the first step
  const TrainOptions& options_;
  comm::Communicator& world_;
  Config config_;
  std::vector<RankPlacement> placements_;
  std::size_t threads_;
  std::optional<RunRecord> record_;
};

}  // namespace

ExitCode train(const TrainOptions& options, comm::Communicator& world) {
  return TrainRun(options, world).run();
}

}  // namespace lockstep::trainer

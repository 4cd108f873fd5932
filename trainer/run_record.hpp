// What a run leaves behind and what a person sees of it: lines, bar, log, metrics, checkpoints and
// summary, all on rank 0.
//
// Owns the run directory (and so its lock) for as long as it lives. One caller at a time; local.
// Throws std::system_error where a file cannot be written.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "trainer/config.hpp"
#include "trainer/progress.hpp"
#include "trainer/run_directory.hpp"
#include "trainer/training.hpp"

namespace spdlog {
class logger;
}

namespace lockstep::trainer {

class RunRecord {
 public:
  RunRecord(RunDirectory directory, const Config& config);
  ~RunRecord();

  // Writes config.toml, and sets aside what another course of the run left beyond `state`: from
  // here on the directory is this run's.
  void begin(const TrainingState& state);

  // A line for the terminal and log.txt.
  void say(std::string_view line);
  // The same, marked as a warning.
  void warn(std::string_view line);

  // Keeps metrics and checkpoints as the training goes on, and draws the bar. Views this record.
  TrainingObserver observer();

  void write_summary(const nlohmann::ordered_json& summary);

  RunDirectory& directory() { return directory_; }

 private:
  void show_step(const StepReport& report);
  void keep_epoch(const EpochReport& report);
  void keep_checkpoint(const Checkpoint& checkpoint);

  RunDirectory directory_;
  const Config& config_;
  std::shared_ptr<spdlog::logger> log_;
  Progress progress_;
};

}  // namespace lockstep::trainer

// The commands of the program, one function each, as the command line calls them.
//
// Each takes its options as a struct and returns the exit code of a run that went well; errors
// leave as exceptions (see trainer/exit_code.hpp). Commands with a communicator are collective.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "datasets/dataset.hpp"
#include "trainer/exit_code.hpp"

namespace lockstep::trainer {

struct TrainOptions {
  std::filesystem::path config;
  std::vector<std::string> settings;         // "section.key=value"
  std::optional<std::filesystem::path> out;  // run directory; none: a new one under runs/
  bool resume = false;
  std::optional<std::filesystem::path>
      checkpoint;  // to resume; none: the newest valid one of `out`
};
ExitCode train(const TrainOptions& options, comm::Communicator& world);

struct EvaluateOptions {
  std::filesystem::path checkpoint;
  std::filesystem::path data;
  datasets::Names names;    // empty: those of the checkpoint's configuration
  std::size_t threads = 0;  // 0: this rank's share of the node
};
ExitCode evaluate(const EvaluateOptions& options, comm::Communicator& world);

struct PredictOptions {
  std::filesystem::path checkpoint;
  std::filesystem::path data;
  std::filesystem::path out;
  datasets::Names names;
  std::size_t threads = 0;
};
ExitCode predict(const PredictOptions& options, comm::Communicator& world);

struct DoctorOptions {
  std::size_t threads = 0;                    // as training.threads; 0: this rank's share
  std::optional<std::filesystem::path> json;  // what is found, for programs
};
// Says how the ranks are placed, how fast they compute and talk, and what to mend. Findings are no
// failure.
ExitCode doctor(const DoctorOptions& options, comm::Communicator& world);

// `file`: a checkpoint; or a configuration, whose network is shown as it would be trained.
ExitCode inspect(const std::filesystem::path& file);

ExitCode diff(const std::filesystem::path& a, const std::filesystem::path& b);

struct ImportOptions {
  std::filesystem::path images;
  std::filesystem::path labels;
  std::filesystem::path out;
};
ExitCode import_idx(const ImportOptions& options);

ExitCode dataset_info(const std::filesystem::path& file, const datasets::Names& names);

}  // namespace lockstep::trainer

// The command line, parsed. Local; no MPI.
#pragma once

#include <string>
#include <variant>

#include "trainer/commands/commands.hpp"

namespace lockstep::trainer {

// Something to print and an exit code: help, the version, or what is wrong with the line.
struct Message {
  std::string text;
  ExitCode code = ExitCode::done;
};

struct InspectOptions {
  std::filesystem::path file;
};

struct DiffOptions {
  std::filesystem::path a;
  std::filesystem::path b;
};

struct InfoOptions {
  std::filesystem::path file;
  datasets::Names names;
};

using Command = std::variant<Message, TrainOptions, EvaluateOptions, PredictOptions, DoctorOptions,
                             InspectOptions, DiffOptions, ImportOptions, InfoOptions>;

Command parse_command_line(int argc, const char* const* argv);

}  // namespace lockstep::trainer

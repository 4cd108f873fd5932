// The program: parse the line, join the other ranks if the command is theirs too, run, and say how
// it ended. This is the only place that exits.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include "comm/session.hpp"
#include "comm/together.hpp"
#include "nn/kernels/kernels.hpp"
#include "trainer/command_line.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer {
namespace {

void complain(const std::exception_ptr& error) {
  const std::string message = message_of(error);
  if (!message.empty()) std::fprintf(stderr, "lockstep: %s\n", message.c_str());
}

int code_of(const std::exception_ptr& error) {
  return static_cast<int>(exit_code_of(error));
}

// The rank that the launcher gave this process, from its environment: for a message that every rank
// would print alike, before there is MPI.
bool is_first_of_many() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name)) return std::string_view(rank) == "0";
  }
  return true;
}

// A command of this process alone. A launcher ends all ranks as soon as one fails, so the others
// leave the first some time to say why.
ExitCode run(const Message& message) {
  if (is_first_of_many()) {
    std::fputs(message.text.c_str(), message.code == ExitCode::done ? stdout : stderr);
  } else if (message.code != ExitCode::done) {
    std::this_thread::sleep_for(std::chrono::seconds(3));
  }
  return message.code;
}
ExitCode run(const InspectOptions& options) {
  return inspect(options.file);
}
ExitCode run(const DiffOptions& options) {
  return diff(options.a, options.b);
}
ExitCode run(const ImportOptions& options) {
  return import_idx(options);
}
ExitCode run(const InfoOptions& options) {
  return dataset_info(options.file, options.names);
}

// A command of all ranks.
ExitCode run(const TrainOptions& options, comm::Communicator& world) {
  return train(options, world);
}
ExitCode run(const EvaluateOptions& options, comm::Communicator& world) {
  return evaluate(options, world);
}
ExitCode run(const PredictOptions& options, comm::Communicator& world) {
  return predict(options, world);
}
ExitCode run(const DoctorOptions& options, comm::Communicator& world) {
  return doctor(options, world);
}

// Every instruction set gives the same bits; holding one lets a test of whole runs see that.
void hold_instruction_set_of_environment() {
  constexpr const char* variable = "LOCKSTEP_INSTRUCTION_SET";
  const char* name = std::getenv(variable);
  if (name == nullptr || *name == '\0') return;
  try {
    nn::hold_instruction_set(name);
  } catch (const std::invalid_argument& error) {
    throw ConfigError(std::string(variable) + ": " + error.what());
  }
}

template <class Options>
constexpr bool is_for_all_ranks = requires(const Options& options, comm::Communicator& world) {
  run(options, world);
};

template <class Options>
int run_alone(const Options& options) {
  try {
    return static_cast<int>(run(options));
  } catch (...) {
    complain(std::current_exception());
    return code_of(std::current_exception());
  }
}

// If the command fails on one rank, it ends on all, with that rank's message and code.
template <class Options>
int run_in_session(const Options& options, comm::Session& session) {
  int code = 0;
  try {
    comm::together(session.world(), code_of, [&] {
      hold_instruction_set_of_environment();
      code = static_cast<int>(run(options, session.world()));
    });
  } catch (...) {
    complain(std::current_exception());
    code = code_of(std::current_exception());
  }
  if (!session.in_step()) session.abort(code);
  try {
    session.finalize();
  } catch (...) {
    complain(std::current_exception());
    session.abort(code != 0 ? code : code_of(std::current_exception()));
  }
  return code;
}

template <class Options>
int run_on_all_ranks(const Options& options, int argc, char** argv) {
  std::optional<comm::Session> session;
  try {
    session.emplace(argc, argv);
  } catch (...) {
    complain(std::current_exception());
    return code_of(std::current_exception());
  }
  return run_in_session(options, *session);
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  using namespace lockstep::trainer;
  const Command command = parse_command_line(argc, argv);
  return std::visit(
      [&]<class Options>(const Options& options) {
        if constexpr (is_for_all_ranks<Options>) {
          return run_on_all_ranks(options, argc, argv);
        } else {
          return run_alone(options);
        }
      },
      command);
}

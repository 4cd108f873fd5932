// What the program says to the shell when it ends, and which error means what. Local; pure.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace lockstep::trainer {

enum class ExitCode : int {
  done = 0,
  different = 1,            // compared, and not the same
  wrong_configuration = 2,  // command line or configuration
  wrong_data = 3,           // data or checkpoint unreadable or wrong, or not to be written
  communication_failed = 4,
  diverged = 5,
  internal_error = 70,  // a mistake of this program (EX_SOFTWARE of sysexits.h)
  stopped = 75,         // by a signal, after a checkpoint: start again with --resume (EX_TEMPFAIL)
};

// The loss or the gradient is no longer finite.
class Diverged : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The exit code that an exception asks for.
ExitCode exit_code_of(const std::exception_ptr& error);

// What a person should read about it; empty where another rank says it.
std::string message_of(const std::exception_ptr& error);

}  // namespace lockstep::trainer

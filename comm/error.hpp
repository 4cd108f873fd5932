// The two exceptions that say that a collective could not be carried through.
//
// Plain values; safe to copy between threads; no MPI.
#pragma once

#include <cstddef>
#include <exception>
#include <stdexcept>

namespace lockstep::comm {

// Communication failed, or another rank did not answer in time. The text names what was waited for,
// the rank and the time. The communicator on which it happened is broken from then on: every later
// call on it throws.
class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The work failed on another rank, `origin`, which holds the real exception and prints its message.
// This rank prints nothing and ends with the same exit code.
struct RemoteError : std::exception {
  RemoteError(std::size_t origin_rank, int code) noexcept : origin(origin_rank), exit_code(code) {}
  const char* what() const noexcept override { return "the work failed on another rank"; }

  std::size_t origin;
  int exit_code;
};

}  // namespace lockstep::comm

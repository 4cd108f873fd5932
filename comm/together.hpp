// Work that may fail on one rank, so that all ranks learn of it.
//
// Collective. Not thread-safe. Owns nothing.
//
//   together(world, exit_code_of, [&] { config = read_config(file); });
//
// If `work` throws on any rank, an exception leaves on every rank: on the lowest rank that failed
// (the origin) its own exception, on all others RemoteError with that rank and with the exit code
// which the origin's `exit_code_of` gave. So one rank prints, and all end alike.
//
// `work` may itself be collective. Ranks that wait for the failed one inside a collective are told
// within milliseconds and leave it with RemoteError; the communicator that they waited on is broken
// after that, and Session::in_step() turns false on all ranks.
//
// A CommError in `work` means that ranks can no longer be relied upon to meet: it leaves at once,
// the others are told as well as can be, and Session::in_step() turns false. When several ranks run
// out of time within a quarter of a second, the lowest keeps its CommError and the others get
// RemoteError.
//
// `exit_code_of` must not throw. With one rank this is a plain call of `work`.
#pragma once

#include <exception>
#include <functional>

#include "comm/communicator.hpp"
#include "comm/error.hpp"

namespace lockstep::comm {

using ExitCodeOf = int (*)(const std::exception_ptr&);

void together(Communicator& communicator, ExitCodeOf exit_code_of,
              const std::function<void()>& work);

}  // namespace lockstep::comm

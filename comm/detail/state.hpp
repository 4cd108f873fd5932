// What stands behind Session and Communicator, and the bounded waits on which all of comm is built.
//
// For the sources of comm only. Not thread-safe. Calls are local unless they say collective.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/detail/mpi.hpp"
#include "comm/detail/requests.hpp"
#include "comm/detail/status.hpp"

namespace lockstep::comm::detail {

struct CommunicatorState;

// What a rank says to all others when its work or its communication failed.
struct Alarm {
  std::int64_t exit_code = 0;
  Status status;  // where it was
};

// Shared by all communicators of a session.
struct SessionState {
  double timeout = 300.0;     // seconds
  bool in_step = true;        // see Session::in_step
  bool remote_error = false;  // whether this rank leaves because of another one's error
  bool lost = false;          // another rank said that it cannot be waited for any more
  // Held by whoever calls MPI while an exchange is under way, which more than one thread may do.
  std::mutex calls_mpi;
  std::vector<MPI_Comm> to_free;  // every communicator made, in the same order on all ranks
  // The exit code for an error, while inside together(); null outside.
  int (*exit_code_of)(const std::exception_ptr&) = nullptr;
  // Ranks tell one another about failures here, apart from all other messages, so that this works
  // also where a collective was left in the middle.
  std::unique_ptr<CommunicatorState> alarm;
  std::vector<std::uint8_t>
      alarm_taken;      // by rank: its `failed` alarm of this together was received
  Alarm alarm_message;  // of this rank, as long as it is sent
  Requests alarm_sends;
  // Where this rank is, which it tells a rank that gives up waiting, and what it can see of another
  // rank that does not answer; that one is set while there is an exchange.
  Status status;
  Status status_reply;  // as long as it is sent
  Requests status_sends;
  std::vector<Status> status_received;                 // by rank
  std::vector<std::optional<Status>> status_of_alarm;  // by rank: of those that gave up as well
  Requests status_receives;
  std::function<std::string(std::size_t rank)> look_at;
};

struct CommunicatorState {
  std::shared_ptr<SessionState> session;
  MPI_Comm comm = MPI_COMM_NULL;
  std::size_t rank = 0;
  std::size_t size = 1;
  std::size_t local_rank = 0;
  std::size_t local_size = 1;
  std::vector<std::size_t> node_of;  // by rank: equal for ranks that share a node's memory
  bool broken = false;               // a wait was given up: stray messages may still come
  Requests requests;
  AlignedFloats staging_memory;  // pages that are never used take none: 16 MiB with 1,024 ranks
  std::span<std::byte> staging;  // `size` slots of slot_bytes
};

// Messages of the control plane are cut into pieces of this many bytes for each rank.
inline constexpr std::size_t slot_bytes = std::size_t{1} << 14;

// One tag for each kind of call: ranks that are in different calls wait for each other and run out
// of time with a message, instead of taking one thing for another.
enum Tag : int {
  barrier_tag,
  broadcast_tag,
  strings_tag,
  all_gather_tag,
  any_tag,
  outcome_tag,
  failed_tag,  // alarm: work failed here; this rank will come to the exchange of outcomes
  lost_tag,    // alarm: communication failed here; this rank will not come
  status_tag,  // alarm's answer: where the rank is that has heard of it
};

enum class Heed { all_alarms, lost_only };

// Wraps an MPI communicator, which it takes over: registers it to be freed, and sets
// MPI_ERRORS_RETURN.
std::unique_ptr<CommunicatorState> make_state(std::shared_ptr<SessionState> session, MPI_Comm comm);

// Collective: a duplicate of `comm`. Bounded wait.
MPI_Comm duplicate(SessionState& session, MPI_Comm comm);

// Throws CommError if the communicator is broken.
void check_usable(const CommunicatorState& state, std::string_view what);

// Waits until all of `requests`, which run on `state`'s communicator, are complete. Throws
// CommError if that fails or takes longer than the time limit, and RemoteError on an alarm; the
// communicator is broken then. `what` names the wait: "no answer from rank 3 in all_gather …".
void wait_all(CommunicatorState& state, Requests& requests, std::string_view what,
              Heed heed = Heed::all_alarms);

// Throws RemoteError if another rank has raised an alarm that is heeded.
void look_for_alarm(SessionState& session, Heed heed);

// In the handler of an exception that ended a wait on `state`'s communicator: marks it as broken,
// tells the other ranks if communication failed here, and throws on: RemoteError if a lower rank
// says the same, so that only the lowest reports it; else the exception, a CommError with a line on
// where each rank is.
[[noreturn]] void give_up(CommunicatorState& state);

// Collective: every rank gives `mine` and gets from each rank r its counts[r] items of so many
// bytes, in rank order. Returns when all ranks have called it, also where nothing is given.
// Allocates nothing, but what requests need at first.
void exchange(CommunicatorState& state, Tag tag, std::string_view what,
              std::span<const std::byte> mine, std::span<const std::size_t> counts,
              std::span<std::byte> all, Heed heed = Heed::all_alarms, std::size_t item_bytes = 1);

// Sends an alarm to every other rank and does not wait for it.
void raise_alarm(SessionState& session, Tag tag, int exit_code);

}  // namespace lockstep::comm::detail

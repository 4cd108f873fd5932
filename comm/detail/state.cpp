#include "comm/detail/state.hpp"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "comm/detail/backoff.hpp"
#include "comm/error.hpp"

namespace lockstep::comm::detail {
namespace {

// To a rank that gives up, and to all below it, of which one may give up a moment later and will be
// the one to report; nobody waits for it to arrive.
void tell_status(SessionState& session, std::size_t rank) {
  // What is still being sent to others serves for all.
  if (!session.status_sends.outstanding() || session.status_sends.test()) {
    session.status_sends.clear();
    session.status_reply = session.status;
  }
  for (std::size_t to = 0; to <= rank; ++to) {
    if (to == session.alarm->rank) continue;
    session.status_sends.send(session.alarm->comm, &session.status_reply, sizeof(Status), to,
                              status_tag);
  }
}

// MPI sends while it is called, and this rank is about to leave: what it said shall still go out.
void let_messages_go(SessionState& session) {
  constexpr double enough = 0.1;  // seconds
  for (Backoff backoff; backoff.seconds() < enough; backoff.pause()) {
    int waiting = 0;
    check(MPI_Iprobe(MPI_ANY_SOURCE, status_tag, session.alarm->comm, &waiting, MPI_STATUS_IGNORE),
          "sending to other ranks");
  }
}

// The next alarm of this kind that has come, if any.
std::optional<RemoteError> take_alarm(SessionState& session, Tag tag) {
  int waiting = 0;
  MPI_Status status;
  check(MPI_Iprobe(MPI_ANY_SOURCE, tag, session.alarm->comm, &waiting, &status),
        "looking for other ranks' errors");
  if (waiting == 0) return std::nullopt;
  // Returns at once: the message is here.
  Alarm message;
  check(MPI_Recv(&message, sizeof message, MPI_BYTE, status.MPI_SOURCE, tag, session.alarm->comm,
                 MPI_STATUS_IGNORE),
        "reading another rank's error");
  const auto origin = static_cast<std::size_t>(status.MPI_SOURCE);
  if (tag == lost_tag) {
    session.status_of_alarm[origin] = message.status;
    tell_status(session, origin);
  }
  return RemoteError(origin, static_cast<int>(message.exit_code));
}

// Communication failed here, as it may on several ranks at once: all that wait for the same one run
// out of time together. Tells the others, waits a moment for what they say of themselves, and
// returns that, a line for each. Throws RemoteError if a lower rank says the same, so that only the
// lowest reports it.
std::string settle_loss(SessionState& session) {
  if (session.exit_code_of == nullptr || !session.alarm) return "";
  constexpr double settling_time = 0.25;  // seconds; ranks seldom run out of time further apart
  constexpr double answering_time = 1.0;  // a rank that waits answers at once
  CommunicatorState& alarm = *session.alarm;
  raise_alarm(session, lost_tag, session.exit_code_of(std::current_exception()));
  session.status_received.assign(alarm.size, {});
  session.status_receives.clear();
  for (std::size_t i = 1; i < alarm.size; ++i) {
    const std::size_t from = (alarm.rank + i) % alarm.size;
    session.status_receives.receive(alarm.comm, &session.status_received[from], sizeof(Status),
                                    from, status_tag);
  }
  bool answered = false;
  for (Backoff backoff; backoff.seconds() < (answered ? settling_time : answering_time);) {
    if (!backoff.pause()) continue;
    answered = answered || session.status_receives.test();
    const std::optional<RemoteError> error = take_alarm(session, lost_tag);
    if (!error || error->origin > alarm.rank) continue;
    let_messages_go(session);
    session.lost = true;
    session.remote_error = true;
    throw *error;
  }
  std::vector<std::string> known(alarm.size, "no answer");
  for (std::size_t i = 0; i < session.status_receives.size(); ++i) {
    const std::size_t from = (alarm.rank + 1 + i) % alarm.size;
    if (session.status_receives.completed(i)) {
      known[from] = session.status_received[from].text();
    } else if (session.status_of_alarm[from]) {
      known[from] = session.status_of_alarm[from]->text();
    } else if (session.look_at) {
      known[from] += session.look_at(from);
    }
  }
  known[alarm.rank] = session.status.text();
  return describe_ranks(known);
}

// Polls until `done`; throws what look_for_alarm does, and CommError with what `missing` says.
template <typename Done, typename Missing>
void poll(SessionState& session, std::size_t rank, std::string_view what, Heed heed, Done&& done,
          Missing&& missing) {
  Backoff backoff;
  while (!done()) {
    if (!backoff.pause()) continue;
    look_for_alarm(session, heed);
    if (backoff.seconds() > session.timeout) {
      char seconds[32];
      std::snprintf(seconds, sizeof seconds, "%.1f", backoff.seconds());
      throw CommError("no answer from " + missing() + " in " + std::string(what) + ": rank " +
                      std::to_string(rank) + " has waited " + seconds + " s");
    }
  }
}

}  // namespace

std::unique_ptr<CommunicatorState> make_state(std::shared_ptr<SessionState> session,
                                              MPI_Comm comm) {
  session->to_free.push_back(comm);
  check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "setting the error handler");
  int rank = 0;
  int size = 0;
  check(MPI_Comm_rank(comm, &rank), "asking for the rank");
  check(MPI_Comm_size(comm, &size), "asking for the number of ranks");
  auto state = std::make_unique<CommunicatorState>();
  state->session = std::move(session);
  state->comm = comm;
  state->rank = static_cast<std::size_t>(rank);
  state->size = static_cast<std::size_t>(size);
  if (size > 1) {
    state->requests.reserve(2 * state->size);
    state->staging_memory = AlignedFloats(state->size * slot_bytes / sizeof(float));
    state->staging = std::as_writable_bytes(state->staging_memory.span());
  }
  return state;
}

MPI_Comm duplicate(SessionState& session, MPI_Comm comm) {
  int rank = 0;
  check(MPI_Comm_rank(comm, &rank), "asking for the rank");
  // Not on the stack: after a wait that is given up, MPI still writes there.
  auto copy = std::make_shared<std::pair<MPI_Comm, MPI_Request>>(MPI_COMM_NULL, MPI_REQUEST_NULL);
  check(MPI_Comm_idup(comm, &copy->first, &copy->second), "duplicating a communicator");
  const auto done = [&] {
    int flag = 0;
    check(MPI_Test(&copy->second, &flag, MPI_STATUS_IGNORE), "duplicating a communicator");
    return flag != 0;
  };
  try {
    poll(session, static_cast<std::size_t>(rank), "duplicating a communicator", Heed::all_alarms,
         done, [] { return std::string("another rank"); });
  } catch (...) {
    session.in_step = false;
    keep_forever(copy);
    throw;
  }
  return copy->first;
}

void check_usable(const CommunicatorState& state, std::string_view what) {
  if (!state.broken && !state.requests.outstanding()) return;
  throw CommError(std::string(what) + ": an earlier call on this communicator was given up");
}

void look_for_alarm(SessionState& session, Heed heed) {
  if (!session.alarm || session.alarm->size == 1) return;
  for (const Tag tag : {lost_tag, failed_tag}) {
    if (tag == failed_tag && heed == Heed::lost_only) continue;
    const std::optional<RemoteError> error = take_alarm(session, tag);
    if (!error) continue;
    if (tag == failed_tag) session.alarm_taken[error->origin] = 1;
    if (tag == lost_tag) {
      session.lost = true;
      let_messages_go(session);
    }
    session.remote_error = true;
    throw *error;
  }
}

void give_up(CommunicatorState& state) {
  state.broken = true;
  state.session->in_step = false;
  try {
    throw;
  } catch (const CommError& error) {
    throw CommError(error.what() + settle_loss(*state.session));
  }
}

void wait_all(CommunicatorState& state, Requests& requests, std::string_view what, Heed heed) {
  try {
    poll(
        *state.session, state.rank, what, heed, [&] { return requests.test(); },
        [&] { return requests.missing(); });
  } catch (...) {
    give_up(state);
  }
}

void exchange(CommunicatorState& state, Tag tag, std::string_view what,
              std::span<const std::byte> mine, std::span<const std::size_t> counts,
              std::span<std::byte> all, Heed heed, std::size_t item_bytes) {
  const auto bytes_of = [&](std::size_t r) { return counts[r] * item_bytes; };
  assert(counts.size() == state.size && mine.size() == bytes_of(state.rank));
  assert(all.size() == std::accumulate(counts.begin(), counts.end(), std::size_t{0}) * item_bytes);
  check_usable(state, what);

  const auto own = counts.begin() + static_cast<std::ptrdiff_t>(state.rank);
  const std::size_t before = std::accumulate(counts.begin(), own, std::size_t{0}) * item_bytes;
  std::copy(mine.begin(), mine.end(), all.subspan(before).begin());
  if (state.size == 1) return;

  // Bytes that rank r sends in the piece that starts at `done`. The first piece is sent even if it
  // is empty, so that every rank hears from every other.
  const auto piece = [&](std::size_t r, std::size_t done) {
    return bytes_of(r) < done ? 0 : std::min(bytes_of(r) - done, slot_bytes);
  };
  const auto is_sent = [&](std::size_t r, std::size_t done) {
    return done == 0 || done < bytes_of(r);
  };

  const std::size_t longest = *std::max_element(counts.begin(), counts.end()) * item_bytes;
  Requests& requests = state.requests;
  for (std::size_t done = 0; done == 0 || done < longest; done += slot_bytes) {
    std::byte* my_slot = state.staging.data() + state.rank * slot_bytes;
    std::copy_n(mine.data() + std::min(done, mine.size()), piece(state.rank, done), my_slot);
    requests.clear();
    for (std::size_t i = 1; i < state.size; ++i) {
      const std::size_t from = (state.rank + state.size - i) % state.size;
      if (!is_sent(from, done)) continue;
      requests.receive(state.comm, state.staging.data() + from * slot_bytes, piece(from, done),
                       from, tag);
    }
    for (std::size_t i = 1; i < state.size && is_sent(state.rank, done); ++i) {
      requests.send(state.comm, my_slot, piece(state.rank, done), (state.rank + i) % state.size,
                    tag);
    }
    wait_all(state, requests, what, heed);
    std::byte* place = all.data();
    for (std::size_t r = 0; r < state.size; place += bytes_of(r), ++r) {
      if (r == state.rank) continue;
      std::copy_n(state.staging.data() + r * slot_bytes, piece(r, done),
                  place + std::min(done, bytes_of(r)));
    }
  }
}

void raise_alarm(SessionState& session, Tag tag, int exit_code) {
  CommunicatorState& alarm = *session.alarm;
  // An alarm that is still being sent says enough.
  if (session.alarm_sends.outstanding()) return;
  session.alarm_sends.clear();
  session.alarm_message = {exit_code, session.status};
  for (std::size_t i = 1; i < alarm.size; ++i) {
    session.alarm_sends.send(alarm.comm, &session.alarm_message, sizeof session.alarm_message,
                             (alarm.rank + i) % alarm.size, tag);
  }
}

}  // namespace lockstep::comm::detail

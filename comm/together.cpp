#include "comm/together.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "comm/detail/state.hpp"

namespace lockstep::comm {
namespace {

using detail::SessionState;

// How the work ended on one rank, as the ranks tell one another.
struct Outcome {
  enum Kind : std::int32_t { done, told, failed };  // told: left it with RemoteError
  std::int32_t kind = done;
  std::int32_t exit_code = 0;
  std::int32_t in_step = 1;
};

std::vector<Outcome> exchange_outcomes(SessionState& session, const Outcome& mine) {
  std::vector<Outcome> outcomes(session.alarm->size);
  const std::vector<std::size_t> counts(outcomes.size(), sizeof(Outcome));
  detail::exchange(*session.alarm, detail::outcome_tag, "together",
                   std::as_bytes(std::span(&mine, 1)), counts,
                   std::as_writable_bytes(std::span(outcomes)), detail::Heed::lost_only);
  return outcomes;
}

// Receives the alarms that nobody stumbled over, so that none is left to disturb later calls.
void take_alarms(SessionState& session, const std::vector<Outcome>& outcomes) {
  detail::CommunicatorState& alarm = *session.alarm;
  alarm.requests.clear();
  for (std::size_t r = 0; r < outcomes.size(); ++r) {
    if (r == alarm.rank || outcomes[r].kind != Outcome::failed || session.alarm_taken[r]) continue;
    alarm.requests.receive(alarm.comm, alarm.staging.data() + r * detail::slot_bytes,
                           sizeof(detail::Alarm), r, detail::failed_tag);
  }
  // They were sent before the outcomes that have arrived: this does not wait.
  detail::wait_all(alarm, alarm.requests, "together", detail::Heed::lost_only);
  detail::wait_all(alarm, session.alarm_sends, "together", detail::Heed::lost_only);
  std::fill(session.alarm_taken.begin(), session.alarm_taken.end(), std::uint8_t{0});
}

// Lets waits that fail tell the others which exit code that means.
class ExitCodeScope {
 public:
  ExitCodeScope(SessionState& session, ExitCodeOf exit_code_of)
      : session_(session), outer_(std::exchange(session.exit_code_of, exit_code_of)) {}
  ~ExitCodeScope() { session_.exit_code_of = outer_; }
  ExitCodeScope(const ExitCodeScope&) = delete;
  ExitCodeScope& operator=(const ExitCodeScope&) = delete;

 private:
  SessionState& session_;
  ExitCodeOf outer_;  // of the call of together() around this one
};

// Does nothing if the wait that failed has told the others already.
void leave_lost(SessionState& session, ExitCodeOf exit_code_of) {
  session.in_step = false;
  detail::raise_alarm(session, detail::lost_tag, exit_code_of(std::current_exception()));
}

}  // namespace

void together(Communicator& communicator, ExitCodeOf exit_code_of,
              const std::function<void()>& work) {
  if (communicator.size() == 1) return work();
  SessionState& session = *communicator.state().session;
  session.remote_error = false;
  const ExitCodeScope scope(session, exit_code_of);

  Outcome mine;
  std::exception_ptr error;
  try {
    work();
  } catch (const RemoteError& remote) {
    error = std::current_exception();
    mine = {Outcome::told, remote.exit_code};
  } catch (const CommError&) {
    // This rank's messages can no longer be relied upon, so nobody shall wait for them.
    leave_lost(session, exit_code_of);
    throw;
  } catch (...) {
    error = std::current_exception();
    mine = {Outcome::failed, exit_code_of(error)};
    detail::raise_alarm(session, detail::failed_tag, mine.exit_code);
  }
  // After a lost rank there is no coming to terms any more.
  if (mine.kind == Outcome::told && session.lost) std::rethrow_exception(error);

  mine.in_step = session.in_step ? 1 : 0;
  std::vector<Outcome> outcomes;
  try {
    outcomes = exchange_outcomes(session, mine);
    take_alarms(session, outcomes);
  } catch (const CommError&) {
    leave_lost(session, exit_code_of);
    if (error) std::rethrow_exception(error);  // what came first tells more
    throw;
  } catch (const RemoteError&) {
    if (mine.kind == Outcome::failed) std::rethrow_exception(error);
    throw;
  }
  session.in_step = std::all_of(outcomes.begin(), outcomes.end(),
                                [](const Outcome& outcome) { return outcome.in_step != 0; });

  const auto worst = std::max_element(
      outcomes.begin(), outcomes.end(),
      [](const Outcome& a, const Outcome& b) { return a.kind < b.kind; });  // the first of equals
  if (worst->kind == Outcome::done) return;
  const auto origin = static_cast<std::size_t>(worst - outcomes.begin());
  if (origin == session.alarm->rank) std::rethrow_exception(error);
  session.remote_error = true;
  throw RemoteError(origin, worst->exit_code);
}

}  // namespace lockstep::comm

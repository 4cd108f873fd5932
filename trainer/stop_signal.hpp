// A request from outside to stop: SIGTERM, SIGINT (Ctrl-C) or SIGUSR1.
//
// While a StopSignal lives, the first such signal sets a flag, and the run saves a checkpoint and
// ends in its own time: after the step that it is in, or after its first one. A second SIGINT ends
// the process at once, as it would without this class. The handlers that were there before come
// back when it is destroyed.
//
// One at a time per process (asserted). requested() and name() may be called from any thread.
// Local: a signal reaches one process; ranks have to agree about it themselves.
//
// Under mpirun: it passes SIGUSR1 on to the ranks and waits for them, but a SIGTERM or SIGINT that
// it gets itself gives the ranks one SIGTERM and then a SIGKILL after odls_base_sigkill_timeout
// seconds (1 unless set). Batch systems should therefore send SIGUSR1 ahead of the end.
#pragma once

#include <array>
#include <csignal>

namespace lockstep::trainer {

class StopSignal {
 public:
  StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  ~StopSignal();

  bool requested() const;

  // "SIGTERM", "SIGINT" or "SIGUSR1": the last that came; empty text if none did.
  const char* name() const;

  // Has SIGTERM and SIGUSR1 ignored when this is destroyed. Signals sent to all ranks at once do
  // not come at once: a rank that has stopped because of another's may get its own on its way out,
  // and would die of it, although all went well.
  void ignore_late_ones();

 private:
  std::array<struct sigaction, 3> before_{};
};

}  // namespace lockstep::trainer

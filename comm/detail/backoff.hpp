// The pauses of a loop that polls for another rank.
//
// At first none at all, for the lowest latency while ranks run side by side; soon the core is
// offered to whoever else wants it, since the rank that is waited for may need this very core;
// after a long while the loop mostly sleeps. Not thread-safe; local.
#pragma once

#include <cstddef>

namespace lockstep::comm::detail {

class Backoff {
 public:
  Backoff();

  // Call between two polls. True about once a millisecond: time to look at seconds() and whatever
  // else is not worth a look at every poll.
  bool pause();

  // Since construction, as of the last time that pause() was true.
  double seconds() const { return seconds_; }

 private:
  std::size_t polls_ = 0;
  double start_ = 0.0;
  double seconds_ = 0.0;
};

}  // namespace lockstep::comm::detail

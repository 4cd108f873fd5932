// How fast a run trains, and what holds its steps up: their samples, or other ranks.
//
// Each rank counts its own steps; close_epoch() brings the ranks' figures together. One caller at a
// time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/communicator.hpp"

namespace lockstep::trainer {

// Of this process's share of an epoch, evaluation left out.
struct Pace {
  double samples_per_second = 0;
  double input_seconds = 0;  // in which steps waited for samples: the longest of all ranks' sums
  double input_share = 0;    // the same as a share of the time
  double wait_seconds = 0;  // of this rank's time, what the ranks' mean was not at work: almost all
                            // of it they waited for others with nothing to do
  double wait_share = 0;    // the same as a share of the time
  // Of several ranks, the one that computed longest, and by which share longer than the median.
  std::size_t slowest_rank = 0;
  double slowest_excess = 0;
};

class PaceMeter {
 public:
  // A step is over: its samples on all ranks, how long it took here, and how long of that it waited
  // for its samples.
  void add_step(std::size_t samples, double seconds, double input_seconds);

  // Of the epoch under way.
  std::uint64_t epoch_samples() const { return epoch_samples_; }
  double epoch_seconds() const { return epoch_seconds_; }

  // Collective. Ends the epoch under way; open_epoch() follows. `waited`: seconds in which this
  // rank has ever waited for others.
  Pace close_epoch(comm::Communicator& communicator, double waited);

  // The next epoch begins: what was waited for since the last one ended is no part of it.
  void open_epoch(double waited);

  // Of all steps; the last two of the epochs that were closed.
  std::uint64_t samples() const { return samples_; }
  double seconds() const { return seconds_; }
  double input_seconds() const { return input_seconds_; }
  double wait_seconds() const { return wait_seconds_; }

 private:
  std::uint64_t samples_ = 0;
  double seconds_ = 0;
  double input_seconds_ = 0;
  double wait_seconds_ = 0;

  std::uint64_t epoch_samples_ = 0;
  double epoch_seconds_ = 0;
  double epoch_input_seconds_ = 0;
  double waited_before_ = 0;
};

}  // namespace lockstep::trainer

// In which order the steps of an epoch take the training samples.
//
// The order is a function of (seed, epoch). While an epoch goes on, another thread of the task
// arena computes the order of the next; without one it is computed when that epoch begins. Views
// the rows. Nothing is allocated but by the constructor. One caller at a time; local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/background.hpp"

namespace lockstep::trainer {

class EpochOrder {
 public:
  struct Options {
    bool shuffle = true;  // false: every epoch in the order of `rows`
    std::uint64_t seed = 0;
    std::size_t batch_size = 1;
  };

  EpochOrder(std::span<const std::uint32_t> rows, const Options& options);

  // `epoch` counts from 0; any may follow any, the next one is the quickest.
  void begin(std::uint64_t epoch);

  // The samples of a step of the epoch that began last, `step` from 0; of the last step maybe fewer
  // than batch_size.
  std::span<const std::uint32_t> batch(std::uint64_t step) const;

  // The samples of the next epoch's first step, if its order is computed ahead, else none.
  std::span<const std::uint32_t> first_of_next_epoch();

 private:
  void compute(std::uint64_t epoch, std::span<std::uint32_t> order) const;

  std::span<const std::uint32_t> rows_;
  Options options_;
  std::vector<std::uint32_t> order_, next_;  // both empty without shuffling
  std::uint64_t next_epoch_ = 0;             // what next_ is computed for, if ahead_
  bool ahead_ = false;
  Background background_;  // last: it ends before what it writes to
};

}  // namespace lockstep::trainer

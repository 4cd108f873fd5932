#include "trainer/pace.hpp"

#include <algorithm>
#include <vector>

namespace lockstep::trainer {

void PaceMeter::add_step(std::size_t samples, double seconds, double input_seconds) {
  samples_ += samples;
  seconds_ += seconds;
  epoch_samples_ += samples;
  epoch_seconds_ += seconds;
  epoch_input_seconds_ += input_seconds;
}

// A rank that waited for others had computed less than they.
Pace PaceMeter::close_epoch(comm::Communicator& communicator, double waited) {
  const std::vector<std::size_t> counts(communicator.size(), 2);
  std::vector<double> all(2 * communicator.size());
  const double computed = epoch_seconds_ - (waited - waited_before_);
  communicator.all_gather(std::vector<double>{epoch_input_seconds_, computed}, counts, all);
  Pace pace;
  std::vector<double> times;
  double mean = 0;
  for (std::size_t r = 0; r < communicator.size(); ++r) {
    pace.input_seconds = std::max(pace.input_seconds, all[2 * r]);
    times.push_back(all[2 * r + 1]);
    mean += times.back() / static_cast<double>(communicator.size());
  }
  const auto slowest = std::ranges::max_element(times);
  pace.slowest_rank = static_cast<std::size_t>(slowest - times.begin());
  const double longest = *slowest;
  // Of an even number the lower one: of two ranks the other one.
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>((times.size() - 1) / 2);
  std::ranges::nth_element(times, middle);
  if (*middle > 0) pace.slowest_excess = longest / *middle - 1;
  if (epoch_seconds_ > 0) {
    pace.samples_per_second = static_cast<double>(epoch_samples_) / epoch_seconds_;
    pace.input_share = pace.input_seconds / epoch_seconds_;
    pace.wait_seconds = std::max(0.0, epoch_seconds_ - mean);
    pace.wait_share = pace.wait_seconds / epoch_seconds_;
  }
  input_seconds_ += pace.input_seconds;
  wait_seconds_ += pace.wait_seconds;
  return pace;
}

void PaceMeter::open_epoch(double waited) {
  epoch_samples_ = 0;
  epoch_seconds_ = 0;
  epoch_input_seconds_ = 0;
  waited_before_ = waited;
}

}  // namespace lockstep::trainer

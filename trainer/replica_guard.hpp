// Finds replicas that are no longer the same, and parameters that changed by themselves.
//
// Lockstep's promise is that all replicas hold the same bits; a memory that fails, or a mistake of
// the program, would break it without a word. Two checks: the ranks compare hashes of all buckets,
// and of the statistics behind them, from time to time; and each rank remembers a check sum of
// every chunk of its replica, and looks, before the exchange changes it again, whether it still is
// what it was. (A change in the share that the rank moves would go to all replicas alike, and no
// comparison of replicas could ever see it; a change elsewhere would have computed a wrong gradient
// for all before the owner's values overwrite it.)
//
// Hashes are XXH3 (Y. Collet, xxHash), which is no protection against intent. One caller at a time,
// but for changes of distinct chunks. A rank alone has no replica to compare, and does neither.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/parameter_exchange.hpp"
#include "comm/parameter_watch.hpp"

namespace lockstep::trainer {

// Replicas differ, or one changed by itself. The text names step, rank and bucket (exit code 4).
class ReplicaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ReplicaGuard final : public comm::ParameterWatch {
 public:
  // Views both.
  ReplicaGuard(const comm::ParameterExchange& exchange, comm::Communicator& communicator);

  // Changes that follow belong to update number `step`. Local, as are the next three.
  void begin(std::uint64_t step) { step_ = step; }

  // Throws ReplicaError.
  void before_change(std::size_t begin, std::span<const float> parameters) override;
  void after_change(std::size_t begin, std::span<const float> parameters) override;

  // Remembers all that is trained, which was set by somebody else.
  void remember(std::span<const float> parameters);

  // Collective, between steps. Throws ReplicaError on all ranks alike.
  void compare(std::uint64_t step, std::span<const float> parameters) const;

 private:
  std::string bucket_name(std::size_t begin) const;

  comm::Communicator& communicator_;
  std::vector<comm::Shard> buckets_;
  std::uint64_t step_ = 0;
  std::vector<std::uint64_t> chunks_;  // check sum of each
};

}  // namespace lockstep::trainer

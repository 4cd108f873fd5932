// Finds replicas that are no longer the same, and parameters that changed by themselves.
//
// Lockstep's promise is that all replicas hold the same bits; a memory that fails, or a mistake of
// the program, would break it without a word. Two checks: the ranks compare hashes of all buckets,
// and of the statistics behind them, from time to time; and a rank that moves its share remembers a
// check sum of every chunk, and looks, before it moves it again, whether it still is what it was.
// (A change elsewhere in a replica lasts one step: the owner's values overwrite it. A change in the
// owner's share would go to all replicas alike, and no comparison of replicas could ever see it.)
//
// Hashes are XXH3 (Y. Collet, xxHash), which is no protection against intent. One caller at a time,
// but for moves of distinct chunks. A rank alone has no replica to compare, and does neither.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/parameter_exchange.hpp"

namespace lockstep::trainer {

// Replicas differ, or a share changed. The text names step, rank and bucket (exit code 4).
class ReplicaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ReplicaGuard {
 public:
  // Views both.
  ReplicaGuard(const comm::ParameterExchange& exchange, comm::Communicator& communicator);

  // Around the move of the parameters from `begin` on, a chunk at most, in update number `step`.
  // Local. The first throws ReplicaError.
  void before_move(std::uint64_t step, std::size_t begin, std::span<const float> parameters) const;
  void after_move(std::size_t begin, std::span<const float> parameters);

  // Remembers all of this rank's share, which was set by somebody else. Local.
  void remember(std::span<const float> parameters);

  // Collective, between steps. Throws ReplicaError on all ranks alike.
  void compare(std::uint64_t step, std::span<const float> parameters) const;

 private:
  std::string bucket_name(std::size_t begin) const;

  comm::Communicator& communicator_;
  std::vector<comm::Shard> buckets_;
  std::vector<comm::Shard> owned_;
  std::vector<std::uint64_t> chunks_;  // check sum of each, as far as this rank moves it
};

}  // namespace lockstep::trainer

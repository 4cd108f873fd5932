// Finds replicas that are no longer the same, and parameters that changed by themselves.
//
// Lockstep's promise is that all replicas hold the same bits; a memory that fails, or a mistake of
// the program, would break it without a word. Two checks: the ranks compare hashes of all buckets,
// and of the statistics behind them, from time to time; and in every step the owner of a chunk
// tells all others the check sum of what it has made of it, and each rank looks, before its copy
// changes again, whether that is what stands there. So a chunk is read once for it, and a change on
// the way from the owner's cache is found as well as one in memory. (A change in the share that the
// rank moves would go to all replicas alike, and no comparison of replicas could ever see it; a
// change elsewhere would have computed a wrong gradient for all before the owner's values overwrite
// it.)
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
  void after_move(std::size_t begin, std::span<const float> moved) override;
  std::span<const std::uint64_t> words() const override { return moved_; }
  void hear(std::span<const std::uint64_t> words) override;

  // Between steps: what is trained was set by somebody else.
  void remember(std::span<const float> parameters);

  // Collective, between steps. Throws ReplicaError on all ranks alike.
  void compare(std::uint64_t step, std::span<const float> parameters) const;

 private:
  std::string bucket_name(std::size_t begin) const;

  comm::Communicator& communicator_;
  std::vector<comm::Shard> buckets_;
  std::uint64_t step_ = 0;
  std::vector<comm::Shard> share_;     // for which this rank speaks
  std::vector<std::uint64_t> moved_;   // check sums of its chunks, as this rank has made them last
  std::vector<std::uint64_t> wanted_;  // of all chunks, after the step before
};

}  // namespace lockstep::trainer

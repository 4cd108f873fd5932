// The sums over a batch of all ranks in the middle of a pass, for the layers that take any
// (nn::BatchSum over comm::LeafSum).
//
// One exchange for each size of sums; layers of a size share it, since they come one after the
// other. Owns them; a step allocates nothing here. One caller at a time. The constructor and
// total() are collective.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/leaf_sum.hpp"
#include "nn/network.hpp"

namespace lockstep::trainer {

class BatchSums final : public nn::BatchSum {
 public:
  BatchSums(const nn::Network<float>& network, comm::Communicator& communicator,
            std::size_t leaves);

  // The batches that follow are cut like this: 1 for each leaf that has samples. Views it.
  void set_batch(std::span<const std::uint8_t> leaf_present);

  // Subtree i is the i-th that has samples.
  std::span<float> partial(std::size_t elements, std::size_t i) override;
  std::span<const float> total(std::size_t elements) override;

  // Seconds so far in which total() waited for other ranks with nothing to do.
  double seconds_waited() const;

 private:
  struct Exchange {
    std::size_t elements;
    std::unique_ptr<comm::LeafSum> sum;
  };

  comm::LeafSum& of_size(std::size_t elements);

  std::vector<Exchange> exchanges_;
  std::span<const std::uint8_t> leaf_present_;
  std::vector<std::size_t> present_subtrees_;  // their places among this rank's
};

}  // namespace lockstep::trainer

// Sums a few floats over all leaves of a batch on all ranks, in the fixed tree (leaf_tree.hpp), in
// the middle of a pass: what the mean over a batch is made of, say.
//
// Every rank puts its sums over subtrees()[i] into partial(i) and gets the sum at the root. It
// takes the way of a small bucket of ParameterExchange, and an exchange of gradients that is under
// way goes on meanwhile. Owns its memory and a communicator of its own; sum() does not allocate.
// One caller at a time. The constructor and sum() are collective. Errors: those of
// ParameterExchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/parameter_exchange.hpp"

namespace lockstep::comm {

class LeafSum {
 public:
  LeafSum(Communicator& communicator, std::size_t leaves, std::size_t elements);
  LeafSum(const LeafSum&) = delete;
  LeafSum& operator=(const LeafSum&) = delete;

  std::span<const Subtree> subtrees() const { return exchange_.subtrees(); }
  std::span<float> partial(std::size_t i) { return exchange_.partial(i); }

  // The sum over all leaves, the same bits on all ranks, valid until the next call; zeros if none
  // is present. leaf_present as for ParameterExchange::begin().
  std::span<const float> sum(std::span<const std::uint8_t> leaf_present);

  // Seconds so far in which sum() waited for other ranks with nothing to do.
  double seconds_waited() const { return exchange_.seconds_waited(); }

 private:
  ParameterExchange exchange_;
};

}  // namespace lockstep::comm

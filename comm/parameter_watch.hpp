// Who is told of every change that a ParameterExchange makes to this rank's parameters, whether
// they are moved here or come from another rank.
//
// Each element of the exchange is told of once a step, before it changes and after: with what
// stands there then. Ranges are whole chunks (shards.hpp) but at the end of all, and disjoint, so
// what was told after the last change of a chunk can be compared with what is told before the next.
// Ranges of one chunk are in the cache at that time. Called by whoever drives the exchange, one
// call at a time; what before_change() throws ends the exchange.
#pragma once

#include <cstddef>
#include <span>

namespace lockstep::comm {

class ParameterWatch {
 public:
  virtual void before_change(std::size_t begin, std::span<const float> parameters) = 0;
  virtual void after_change(std::size_t begin, std::span<const float> parameters) = 0;

 protected:
  ~ParameterWatch() = default;
};

}  // namespace lockstep::comm

// Who is told of every change that a ParameterExchange makes to this rank's parameters, whether
// they are moved here or come from another rank.
//
// Each element of the exchange is told of before it changes, with what stands there then, and once
// a step after it has. Ranges are whole chunks (shards.hpp) but at the end of all, so what was told
// after the last change of a chunk can be compared with what is told before the next. (Twice before
// where a rank moves parameters that are still read, and puts the moved ones there later.) Ranges
// of one chunk are in the cache at that time. Called by whoever drives the exchange, one call at a
// time; what before_change() throws ends the exchange.
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

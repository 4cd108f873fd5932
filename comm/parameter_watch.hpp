// Who watches over a replica that a ParameterExchange changes: it sees what stands in this rank's
// parameters before they change, and what this rank makes of those that it moves, and its words go
// round among the ranks with the flags of each step. So owners can tell all others what the moved
// parameters are, and each rank can look whether that is what it has.
//
// Ranges are whole chunks (shards.hpp) but at the end of all. What is moved is in the cache at that
// time, and a range of one chunk is read by what changes it next. Called by whoever drives the
// exchange, and for what the caller moves by itself by the caller; what before_change() throws ends
// the exchange. The first two are called from several threads, for distinct chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lockstep::comm {

class ParameterWatch {
 public:
  // Once a step and element, after hear(): what stands there from the last step, and will be
  // overwritten. Twice where a rank moves parameters that are still read, and puts the moved ones
  // there later.
  virtual void before_change(std::size_t begin, std::span<const float> parameters) = 0;

  // Once a step and element of ParameterExchange::share_of() this rank: what all ranks will have.
  virtual void after_move(std::size_t begin, std::span<const float> moved) = 0;

  // A word for each chunk, read when a step begins: what this rank has to tell of its share since
  // the step before, and zeros elsewhere.
  virtual std::span<const std::uint64_t> words() const = 0;

  // The words of all ranks in the step that has begun, of each chunk its owner's; before anything
  // changes in it.
  virtual void hear(std::span<const std::uint64_t> words) = 0;

 protected:
  ~ParameterWatch() = default;
};

}  // namespace lockstep::comm

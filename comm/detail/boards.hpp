// What the ranks of a group show one another in a step: each has a board, which it writes and the
// others read, and for each of its places a counter of the last step in which that was ready.
//
// A counter that shows a step shows what was written before it. Who writes a place again knows by
// other means that all have read it. Owns its memory; local but for make(); no MPI else.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "comm/detail/node_memory.hpp"
#include "comm/detail/segment.hpp"

namespace lockstep::comm::detail {

class Boards {
 public:
  // Collective; returns on all ranks alike why there are none, or nothing.
  std::string make(Communicator& communicator, const Hierarchy& hierarchy, std::size_t floats,
                   std::size_t places);

  // Of a member of this rank's group; at a multiple of 64 bytes, zeros at first. Another member's
  // is for reading.
  float* board(std::size_t member) const;
  std::size_t floats() const { return floats_; }

  // This rank has written a place in `step`.
  void post(std::size_t place, std::uint64_t step) const;
  bool is_posted(std::size_t member, std::size_t place, std::uint64_t step) const;

 private:
  std::atomic<std::uint64_t>& counter(std::size_t member, std::size_t place) const;

  NodeMemory memory_;
  std::size_t own_ = 0;
  std::size_t floats_ = 0;
  std::size_t counter_bytes_ = 0;
};

}  // namespace lockstep::comm::detail

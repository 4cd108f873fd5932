// Memory of which every rank of a group has a segment: it writes its own and reads the others'.
//
// A group of one has private memory. Else the segments are POSIX shared memory, whose names are
// gone as soon as all have mapped it, so that nothing is left behind however the run ends. Owns its
// mappings; move-only; moved-from is null; a mapping that this process drops lives on in the
// others. Zeros at first, at a multiple of 4 KiB.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/detail/hierarchy.hpp"

namespace lockstep::comm::detail {

class NodeMemory {
 public:
  NodeMemory() = default;
  // Private memory alone; local. Throws std::bad_alloc.
  explicit NodeMemory(std::size_t bytes);
  ~NodeMemory();
  NodeMemory(NodeMemory&& other) noexcept;
  NodeMemory& operator=(NodeMemory&& other) noexcept;
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  // Collective over `communicator`. Every rank asks for the same number of bytes. Returns on all
  // ranks alike why it could not be had, or nothing: then segment(m) is that of member m.
  std::string share(Communicator& communicator, const Hierarchy& hierarchy, std::size_t bytes);

  // Another member's is for reading.
  std::byte* segment(std::size_t member) const { return segments_[member]; }

 private:
  std::string map_own(int descriptor);
  std::string map_other(const std::string& name, std::size_t member);

  std::size_t bytes_ = 0;
  std::size_t own_ = 0;               // this rank's place in segments_
  std::vector<std::byte*> segments_;  // by member; null: not mapped
};

}  // namespace lockstep::comm::detail

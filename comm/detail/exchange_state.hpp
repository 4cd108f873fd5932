// What the buckets of one ParameterExchange share: who takes part, what belongs to the step under
// way, and the memory that messages need.
//
// For the sources of comm only. Plain data; whoever drives the exchange has it to itself, but for
// what the rank's own thread tells of its gradients and own sums.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/detail/hierarchy.hpp"
#include "comm/detail/segment.hpp"
#include "comm/detail/state.hpp"
#include "comm/leaf_tree.hpp"
#include "comm/parameter_exchange.hpp"
#include "comm/parameter_watch.hpp"
#include "comm/shards.hpp"
#include "comm/tree_sum.hpp"

namespace lockstep::comm::detail {

// Where sums of other groups are received, and added up with ours. A bucket holds one while its
// sums are on their way, so no more buckets than there are slots are on their way at once.
struct Slot {
  AlignedFloats memory;
  bool taken = false;
};

// As ParameterExchange::Move and Note, but for the flags.
using MoveParameters =
    std::function<void(std::size_t begin, std::span<const float> sum, float* moved)>;
using NoteSum = std::function<void(std::size_t begin, std::span<const float> sum)>;

struct ExchangeState {
  Hierarchy hierarchy;
  std::size_t leaves = 0;
  std::vector<Segment> segments;                         // by member of this rank's group
  std::vector<std::vector<Subtree>> subtrees_of_member;  // of this rank's group
  std::vector<std::vector<Subtree>> subtrees_of_group;
  CommunicatorState* communicator = nullptr;  // null: all ranks are of one group
  TreeSum tree;
  std::vector<Slot> slots;
  bool round_messages = false;  // sums go between groups as bfloat16
  bool always_apart = false;  // BucketExchange::can_move_apart(), also before it has been worth it
  ParameterWatch* watch = nullptr;

  // Of the step under way.
  std::uint64_t step = 0;
  std::vector<std::uint8_t> leaf_present;
  MoveParameters move;
  // Of a step that holds its sums: told of each chunk's, and whether they may be used.
  bool holds = false;
  NoteSum note;
  bool released = false;
  // No gradient before this element is final yet, and no parameter before that one may move.
  // Written by the rank's own thread.
  std::atomic<std::size_t> sums_final_from{0};
  std::atomic<std::size_t> movable_from{0};
  bool flags_known = false;
  // Written by the rank's own thread before a bucket with own sums is final.
  ParameterExchange::OwnSums own_sums = ParameterExchange::OwnSums::none;

  explicit ExchangeState(std::size_t leaf_count) : leaves(leaf_count), tree(leaf_count) {}

  const Segment& own_segment() const { return segments[hierarchy.member]; }
  const std::vector<Subtree>& own_group_subtrees() const {
    return subtrees_of_group[hierarchy.group];
  }
  bool present(Subtree subtree) const { return is_present(subtree, leaf_present); }
};

// Messages of one exchange: flags have the tags below, bucket b then two.
inline constexpr int flag_tags = 64;
inline constexpr int gather_tag = flag_tags - 1;
inline int sums_tag(std::size_t bucket) {
  return flag_tags + 2 * static_cast<int>(bucket);
}
inline int parameters_tag(std::size_t bucket) {
  return sums_tag(bucket) + 1;
}

}  // namespace lockstep::comm::detail

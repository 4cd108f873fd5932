// Which elements of a bucket are whose, on the way that bucket_exchange.hpp describes.
//
// Plain functions of their arguments; thread-safe; local; no MPI.
#pragma once

#include <cstddef>

#include "comm/detail/hierarchy.hpp"
#include "comm/shards.hpp"

namespace lockstep::comm::detail {

struct BucketPlan {
  std::size_t index = 0;  // in the order of backward
  Shard bucket{};
  bool replicated = false;  // every rank finishes the tree over all of it
  bool recursive = false;   // in rounds; the number of groups is a power of two
};

// A round of a recursive exchange: `ways` groups meet, four but in the last round of an odd power
// of two. Their numbers differ in the digit of base `ways` that begins at bit `shift`.
struct Round {
  std::size_t shift = 0;
  std::size_t ways = 4;

  std::size_t digit_of(std::size_t group) const { return (group >> shift) & (ways - 1); }
  // The i-th of the others that `group` meets, i from 1 to ways - 1.
  std::size_t other(std::size_t group, std::size_t i) const {
    const std::size_t digit = digit_of(group);
    return group - (digit << shift) + ((digit + i) % ways << shift);
  }
};

// The one after the last has one way.
Round round_of(const Hierarchy& place, std::size_t round);

// Rounds of a recursive exchange; none otherwise.
std::size_t rounds_of(const BucketPlan& plan, const Hierarchy& place);

// What a member sums over its group.
Shard slice_of(const BucketPlan& plan, const Hierarchy& place);

// What the rank holds of its slice after so many rounds of a recursive exchange.
Shard kept_of(const BucketPlan& plan, const Hierarchy& place, std::size_t rounds);

// The elements whose tree the rank finishes and whose parameters it moves.
Shard shard_of_rank(const BucketPlan& plan, const Hierarchy& place);

// Those for which it speaks: its share where all ranks move all. Those of all ranks are disjoint,
// and the bucket.
Shard share_of_rank(const BucketPlan& plan, const Hierarchy& place);

}  // namespace lockstep::comm::detail

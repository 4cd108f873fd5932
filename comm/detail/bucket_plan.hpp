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
  bool pairwise = false;    // halving or doubling; the number of groups is a power of two
};

// The lower or the upper half of a range, cut at a whole chunk.
Shard half_of(Shard range, bool upper);

// Rounds of a pairwise exchange; none otherwise.
std::size_t rounds_of(const BucketPlan& plan, const Hierarchy& place);

// Whether the rank at `place` keeps the upper half in a round of halving.
bool keeps_upper(const Hierarchy& place, std::size_t round);

// What a member sums over its group.
Shard slice_of(const BucketPlan& plan, const Hierarchy& place);

// What the rank holds of its slice after so many rounds of a pairwise exchange.
Shard kept_of(const BucketPlan& plan, const Hierarchy& place, std::size_t rounds);

// The elements whose tree the rank finishes and whose parameters it moves.
Shard shard_of_rank(const BucketPlan& plan, const Hierarchy& place);

}  // namespace lockstep::comm::detail

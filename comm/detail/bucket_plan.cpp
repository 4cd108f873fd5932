#include "comm/detail/bucket_plan.hpp"

#include <bit>

namespace lockstep::comm::detail {

Shard half_of(Shard range, bool upper) {
  const Shard lower = shard_of(0, 2, range);
  return upper ? Shard{lower.end, range.end} : lower;
}

std::size_t rounds_of(const BucketPlan& plan, const Hierarchy& place) {
  return plan.pairwise ? static_cast<std::size_t>(std::countr_zero(place.groups)) : 0;
}

Shard slice_of(const BucketPlan& plan, const Hierarchy& place) {
  return plan.replicated ? plan.bucket : shard_of(place.member, place.members, plan.bucket);
}

bool keeps_upper(const Hierarchy& place, std::size_t round) {
  return ((place.group >> round) & 1) != 0;
}

Shard kept_of(const BucketPlan& plan, const Hierarchy& place, std::size_t rounds) {
  Shard range = slice_of(plan, place);
  if (plan.replicated) return range;
  for (std::size_t r = 0; r < rounds; ++r) range = half_of(range, keeps_upper(place, r));
  return range;
}

Shard shard_of_rank(const BucketPlan& plan, const Hierarchy& place) {
  const Shard slice = slice_of(plan, place);
  if (plan.pairwise) return kept_of(plan, place, rounds_of(plan, place));
  return plan.replicated ? slice : shard_of(place.group, place.groups, slice);
}

}  // namespace lockstep::comm::detail

#include "comm/detail/bucket_plan.hpp"

#include <algorithm>
#include <bit>

namespace lockstep::comm::detail {

Round round_of(const Hierarchy& place, std::size_t round) {
  const auto bits = static_cast<std::size_t>(std::countr_zero(place.groups));
  const std::size_t shift = std::min(2 * round, bits);
  return {shift, std::min<std::size_t>(4, place.groups >> shift)};
}

std::size_t rounds_of(const BucketPlan& plan, const Hierarchy& place) {
  if (!plan.recursive) return 0;
  return (static_cast<std::size_t>(std::countr_zero(place.groups)) + 1) / 2;
}

Shard slice_of(const BucketPlan& plan, const Hierarchy& place) {
  return plan.replicated ? plan.bucket : shard_of(place.member, place.members, plan.bucket);
}

Shard kept_of(const BucketPlan& plan, const Hierarchy& place, std::size_t rounds) {
  Shard range = slice_of(plan, place);
  if (plan.replicated) return range;
  for (std::size_t r = 0; r < rounds; ++r) {
    const Round round = round_of(place, r);
    range = shard_of(round.digit_of(place.group), round.ways, range);
  }
  return range;
}

Shard shard_of_rank(const BucketPlan& plan, const Hierarchy& place) {
  const Shard slice = slice_of(plan, place);
  if (plan.recursive) return kept_of(plan, place, rounds_of(plan, place));
  return plan.replicated ? slice : shard_of(place.group, place.groups, slice);
}

Shard share_of_rank(const BucketPlan& plan, const Hierarchy& place) {
  if (!plan.replicated) return shard_of_rank(plan, place);
  return shard_of(place.rank_of(place.group, place.member), place.members * place.groups,
                  plan.bucket);
}

}  // namespace lockstep::comm::detail

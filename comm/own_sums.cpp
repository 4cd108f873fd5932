// The part of ParameterExchange where ranks that share memory make sums by themselves.
#include <algorithm>
#include <cassert>

#include "comm/detail/parameter_exchange_state.hpp"
#include "comm/parameter_exchange.hpp"

namespace lockstep::comm {

bool ParameterExchange::can_sum_by_elements() const {
  const detail::Hierarchy& h = state_->shared.hierarchy;
  return h.groups == 1 && h.members > 1;
}

std::vector<ParameterExchange::Part> ParameterExchange::parts() const {
  const detail::Hierarchy& h = state_->shared.hierarchy;
  assert(h.groups == 1);
  std::vector<Part> parts;
  for (auto bucket = state_->buckets.rbegin(); bucket != state_->buckets.rend(); ++bucket) {
    const detail::BucketPlan& plan = bucket->plan();
    if (plan.replicated) {
      parts.push_back({plan.bucket, 0, true});
      continue;
    }
    for (std::size_t m = 0; m < h.members; ++m) {
      const Shard shard = shard_of(m, h.members, plan.bucket);
      if (shard.size() > 0) parts.push_back({shard, h.rank_of(0, m), false});
    }
  }
  return parts;
}

std::string ParameterExchange::make_boards(std::size_t floats, std::size_t places) {
  assert(can_sum_by_elements());
  return state_->boards.make(*state_->communicator, state_->shared.hierarchy, floats, places);
}

std::span<float> ParameterExchange::board() {
  return {state_->boards.board(state_->shared.hierarchy.member), state_->boards.floats()};
}

std::span<const float> ParameterExchange::board_of(std::size_t rank) const {
  return {state_->boards.board(rank % state_->shared.hierarchy.members), state_->boards.floats()};
}

void ParameterExchange::set_own_sums(std::span<const OwnSum> own_sums) {
  for (detail::BucketExchange& bucket : state_->buckets) bucket.set_own_sums(own_sums);
}

void ParameterExchange::post(std::size_t place) {
  state_->boards.post(place, state_->shared.step);
}

void ParameterExchange::wait_for_posts(std::size_t place) {
  State& s = *state_;
  s.place = place;
  s.wait_until([&s] {
    if (!s.flags->done()) return false;
    for (std::size_t m = 0; m < s.shared.hierarchy.members; ++m) {
      if (!s.boards.is_posted(m, *s.place, s.shared.step)) return false;
    }
    return true;
  });
  s.place.reset();
}

// Read by whoever drives when the first bucket with own sums is final.
void ParameterExchange::own_sums_are(OwnSums own_sums) {
  state_->shared.own_sums = own_sums;
}

Shard ParameterExchange::before_moving(Shard piece) {
  return state_->bucket_with(piece.begin).before_moving(piece);
}

Shard ParameterExchange::after_moving(Shard piece) {
  return state_->bucket_with(piece.begin).after_moving(piece);
}

detail::BucketExchange& ParameterExchange::State::bucket_with(std::size_t element) {
  const auto found = std::ranges::find_if(buckets, [element](const detail::BucketExchange& bucket) {
    return bucket.plan().bucket.begin <= element && element < bucket.plan().bucket.end;
  });
  assert(found != buckets.end());
  return *found;
}

}  // namespace lockstep::comm

#include "comm/detail/bucket_exchange.hpp"

#include <algorithm>
#include <array>
#include <cassert>

#include "comm/detail/prefetch.hpp"
#include "comm/detail/rounded.hpp"

namespace lockstep::comm::detail {

BucketExchange::BucketExchange(ExchangeState& state, const BucketPlan& plan)
    : state_(state),
      plan_(plan),
      rounds_(rounds_of(plan, state.hierarchy)),
      slice_(slice_of(plan, state.hierarchy)),
      shard_(shard_of_rank(plan, state.hierarchy)),
      share_(share_of_rank(plan, state.hierarchy)) {
  const Hierarchy& h = state.hierarchy;
  if (h.groups == 1) return;
  std::size_t messages = 6;  // of a round
  if (!plan.recursive) {
    for (const auto& subtrees : state.subtrees_of_group) {
      messages += subtrees.size() + state.own_group_subtrees().size() + 2;
    }
  }
  requests_.reserve(messages);
}

void BucketExchange::begin() {
  assert(done());
  stage_ = Stage::filling;
  held_up_ = false;
  own_moves_ = {shard_.end, shard_.end, shard_.end};
}

bool BucketExchange::advance() {
  bool further = false;
  while (!done() && step_forward()) further = true;
  return further;
}

bool BucketExchange::step_forward() {
  switch (stage_) {
    case Stage::filling:
      if (state_.sums_final_from.load(std::memory_order_acquire) > plan_.bucket.begin) return false;
      state_.own_segment().summed(plan_.index).store(state_.step, std::memory_order_release);
      stage_ = Stage::gathering;
      return true;
    case Stage::gathering:
      return gather();
    case Stage::reducing:
      return reduce();
    case Stage::summing:
      return start_summing();
    case Stage::holding:
      if (!state_.released) return false;
      move_held();
      return true;
    case Stage::spreading:
      return spread();
    case Stage::copying:
      return copy();
    case Stage::landing:
    case Stage::done:
      return false;
  }
  return false;
}

// ---- within the group -------------------------------------------------------------------------

bool BucketExchange::gather() {
  for (const Segment& segment : state_.segments) {
    if (segment.summed(plan_.index).load(std::memory_order_acquire) < state_.step) return false;
  }
  if (state_.hierarchy.groups == 1) {
    stage_ = Stage::summing;
    return true;
  }
  if (!take_slot()) return false;
  if (state_.hierarchy.members > 1) sum_over_group();
  start_reducing();
  stage_ = Stage::reducing;
  return true;
}

// What TreeSum reads: the members' partial sums, as if they started at the bucket's first element.
void BucketExchange::set_tree_inputs() {
  for (std::size_t m = 0; m < state_.segments.size(); ++m) {
    const auto& subtrees = state_.subtrees_of_member[m];
    for (std::size_t i = 0; i < subtrees.size(); ++i) {
      state_.tree.set(subtrees[i],
                      state_.present(subtrees[i]) ? state_.segments[m].partial(i) : nullptr);
    }
  }
}

void BucketExchange::sum_over_group() {
  set_tree_inputs();
  const auto& subtrees = state_.own_group_subtrees();
  for (std::size_t i = 0; i < subtrees.size(); ++i) {
    if (!state_.present(subtrees[i])) continue;
    state_.tree.write(subtrees[i], slice_.begin, slice_.size(), sums(i));
  }
}

bool BucketExchange::copy() {
  for (const Segment& segment : state_.segments) {
    if (segment.moved(plan_.index).load(std::memory_order_acquire) < state_.step) return false;
  }
  const Hierarchy& h = state_.hierarchy;
  for (std::size_t m = 0; m < h.members && !plan_.replicated; ++m) {
    if (m == h.member) continue;
    take_over(state_.segments[m].parameters(), shard_of(m, h.members, plan_.bucket));
  }
  stage_ = Stage::done;
  return true;
}

// Chunk by chunk: who watches finds it in the cache.
void BucketExchange::take_over(const float* from, Shard range) {
  float* parameters = state_.own_segment().parameters();
  for_each_chunk(range, [&](std::size_t begin, std::size_t count) {
    prefetch_chunk(parameters + begin + chunk);
    prefetch_chunk(from + begin + chunk);
    before_change({begin, begin + count});
    copy_to(parameters + begin, from + begin, count);
  });
}

void BucketExchange::before_change(Shard range) const {
  if (state_.watch == nullptr || range.size() == 0) return;
  const float* parameters = state_.own_segment().parameters();
  state_.watch->before_change(range.begin, {parameters + range.begin, range.size()});
}

// ---- the parameters -----------------------------------------------------------------------------

// Null if no leaf is present.
const float* BucketExchange::whole_sum(std::size_t begin, std::size_t count, float* out) {
  if (plan_.recursive) {
    if (!state_.present({0, state_.leaves})) return nullptr;
    return plan_.replicated ? sums(0) + (begin - slice_.begin) : held(begin);
  }
  const std::size_t offset = state_.hierarchy.groups == 1 ? begin : begin - shard_.begin;
  return state_.tree.at({0, state_.leaves}, offset, count, out);
}

void BucketExchange::set_own_sums(std::span<const OwnSum> own_sums) {
  stretches_.clear();
  std::size_t at = shard_.begin;
  for (const OwnSum& own : own_sums) {
    const Shard here{std::max(own.elements.begin, at), std::min(own.elements.end, shard_.end)};
    if (here.begin >= here.end) continue;
    if (at < here.begin) stretches_.push_back({{at, here.begin}, false, false});
    stretches_.push_back({here, true, own.moves});
    at = here.end;
  }
  if (!stretches_.empty() && at < shard_.end)
    stretches_.push_back({{at, shard_.end}, false, false});
}

// Pieces meet anywhere, also in the middle of a chunk. What the chunk has below a piece moves soon,
// so all of it is looked at before the upper one moves …
Shard BucketExchange::before_moving(Shard piece) {
  const std::size_t end = own_moves_.looked_at_from;
  const std::size_t chunk_begin = std::max(shard_.begin, piece.begin / chunk * chunk);
  const std::size_t begin = std::min(end, chunk_begin);
  own_moves_.looked_at_from = begin;
  return {begin, end};
}

// … and all of it is told of when the lower one has moved. Where no piece follows, or none went
// before, the exchange moves the rest of a chunk, and tells of it.
Shard BucketExchange::after_moving(Shard piece) {
  const bool goes_on = piece.end == own_moves_.moved_from;
  const std::size_t end = goes_on ? own_moves_.told_from : piece.end / chunk * chunk;
  const std::size_t begin = std::min(end, chunks_in(piece.begin) * chunk);
  own_moves_.moved_from = piece.begin;
  own_moves_.told_from = begin;
  const std::size_t first = std::max(begin, share_.begin);
  return {first, std::max(first, std::min(end, share_.end))};
}

// The sum of a chunk of which the rank has made some of the sums itself.
const float* BucketExchange::sum_of_stretches(std::size_t begin, std::size_t count, float* out) {
  for (const Stretch& stretch : stretches_) {
    const std::size_t from = std::max(begin, stretch.elements.begin);
    const std::size_t end = std::min(begin + count, stretch.elements.end);
    if (from >= end) continue;
    float* to = out + (from - begin);
    const float* own = state_.own_segment().partial(0) + from;
    if (stretch.own && end - from == count) return own;
    const float* sum = stretch.own ? own : whole_sum(from, end - from, to);
    if (sum == nullptr) {
      std::fill_n(to, end - from, 0.0F);
    } else if (sum != to) {
      std::copy_n(sum, end - from, to);
    }
  }
  return out;
}

// Of a chunk that the rank itself may have moved, in part or whole.
void BucketExchange::move_the_rest(std::size_t begin, std::size_t count, float* buffer) {
  const std::size_t end = begin + count;
  if (begin < own_moves_.looked_at_from) before_change({begin, end});
  std::size_t from = begin;
  const auto move_before = [&](std::size_t until) {
    if (from >= until) return;
    state_.move(from, {sum_of_stretches(from, until - from, buffer), until - from}, moved());
  };
  for (const Stretch& stretch : stretches_) {
    if (!stretch.moves || stretch.elements.end <= begin || stretch.elements.begin >= end) continue;
    const bool all_of_it = stretch.elements.begin <= begin && stretch.elements.end >= end;
    if (all_of_it) return;  // and whoever moved it has told of it
    move_before(stretch.elements.begin);
    from = stretch.elements.end;
  }
  move_before(end);
  if (state_.watch == nullptr || !speaks_for(begin)) return;
  state_.watch->after_move(begin, {moved() + begin, count});
}

bool BucketExchange::start_summing() {
  if (!state_.flags_known) return false;
  const bool still_read = !may_move();
  held_up_ = held_up_ || still_read;
  moves_apart_ = still_read && can_move_apart() && (worth_moving_apart_ || state_.always_apart);
  if (still_read && !moves_apart_) return false;
  sum();
  return true;
}

void BucketExchange::sum() {
  const Hierarchy& h = state_.hierarchy;
  if (h.groups == 1) {
    set_tree_inputs();
  } else if (!plan_.recursive) {
    const auto& own = state_.own_group_subtrees();
    for (std::size_t s = 0; s < own.size(); ++s) {
      const float* values = sums(s) + (shard_.begin - slice_.begin);
      state_.tree.set(own[s], state_.present(own[s]) ? values : nullptr);
    }
    std::size_t place = 0;
    for (std::size_t i = 1; i < h.groups; ++i) {
      for (const Subtree& subtree : state_.subtrees_of_group[(h.group + h.groups - i) % h.groups]) {
        float* values = received(place++);
        if (rounds_sums() && state_.present(subtree)) expand_in_place(values, shard_.size());
        state_.tree.set(subtree, state_.present(subtree) ? values : nullptr);
      }
    }
  }
  alignas(64) std::array<float, chunk> buffer;
  for_each_chunk(shard_, [&](std::size_t begin, std::size_t count) {
    prefetch_chunk(state_.own_segment().parameters() + begin + chunk);
    if (has_moved_some()) return move_the_rest(begin, count, buffer.data());
    // Where there are no stretches, the rank's own thread may be about to write what is read here.
    const bool own = !stretches_.empty() && state_.own_sums != ParameterExchange::OwnSums::none;
    const float* sum = own ? sum_of_stretches(begin, count, buffer.data())
                           : whole_sum(begin, count, buffer.data());
    if (sum == nullptr) sum = std::fill_n(buffer.data(), count, 0.0F) - count;
    if (!state_.holds) {
      // It may stand where the parameters move to.
      if (moves_apart_ && sum != buffer.data())
        sum = std::copy_n(sum, count, buffer.data()) - count;
      move(begin, {sum, count});
      return;
    }
    if (sum != held(begin)) std::copy_n(sum, count, held(begin));
    state_.note(begin, {held(begin), count});
  });
  release_slot();
  if (state_.holds) {
    stage_ = Stage::holding;
  } else {
    start_spreading();
  }
}

// Other members read this rank's partial sums, but none its shard of them.
float* BucketExchange::held(std::size_t begin) {
  if (!plan_.replicated) return state_.own_segment().partial(0) + begin;
  if (held_whole_.size() == 0) held_whole_ = AlignedFloats(plan_.bucket.size());
  return held_whole_.data() + (begin - plan_.bucket.begin);
}

void BucketExchange::visit_held(const NoteSum& visit) {
  assert(stage_ == Stage::holding);
  for_each_chunk(shard_, [&](std::size_t begin, std::size_t count) {
    visit(begin, {held(begin), count});
  });
}

void BucketExchange::move_held() {
  visit_held([this](std::size_t begin, std::span<const float> sum) { move(begin, sum); });
  start_spreading();
}

void BucketExchange::move(std::size_t begin, std::span<const float> sum) {
  before_change({begin, begin + sum.size()});
  state_.move(begin, sum, moved());
  if (state_.watch == nullptr || !speaks_for(begin)) return;
  state_.watch->after_move(begin, {moved() + begin, sum.size()});
}

bool BucketExchange::land() {
  if (stage_ != Stage::landing) return false;
  take_over(moved(), slice_);
  finish_copying();
  return true;
}

// Tells the group that this member's slice has moved; a group of one has nothing left to do.
void BucketExchange::finish_copying() {
  state_.own_segment().moved(plan_.index).store(state_.step, std::memory_order_release);
  stage_ = Stage::copying;
}

// ---- for messages -------------------------------------------------------------------------------

std::string BucketExchange::stage_name() const {
  switch (stage_) {
    case Stage::filling:
      return "this rank's own backward pass";
    case Stage::gathering:
      return "waiting for the gradients of this node";
    case Stage::reducing:
      return "reduce-scatter";
    case Stage::summing:
      return "waiting for flags";
    case Stage::holding:
      return "waiting for the norms";
    case Stage::spreading:
      return "all-gather";
    case Stage::landing:
      return "waiting for this rank's own backward pass";
    case Stage::copying:
      return "waiting for the parameters of this node";
    case Stage::done:
      return "done";
  }
  return "";
}

std::string BucketExchange::missing() const {
  if (stage_ == Stage::reducing || stage_ == Stage::spreading) return requests_.missing();
  if (stage_ != Stage::gathering && stage_ != Stage::copying) return "";
  const Hierarchy& h = state_.hierarchy;
  std::vector<std::size_t> ranks;
  for (std::size_t m = 0; m < h.members; ++m) {
    const Segment& segment = state_.segments[m];
    const auto& counter =
        stage_ == Stage::gathering ? segment.summed(plan_.index) : segment.moved(plan_.index);
    if (counter.load(std::memory_order_acquire) < state_.step)
      ranks.push_back(h.rank_of(h.group, m));
  }
  return name_ranks(ranks);
}

}  // namespace lockstep::comm::detail

#include "comm/detail/bucket_exchange.hpp"

#include <algorithm>
#include <array>
#include <cassert>

#include "comm/detail/rounded.hpp"

namespace lockstep::comm::detail {
namespace {

std::size_t whole_chunks(std::size_t floats) {
  return (floats + chunk - 1) / chunk * chunk;
}

template <typename Call>
void for_each_chunk(Shard range, const Call& call) {
  for (std::size_t begin = range.begin; begin < range.end; begin += chunk) {
    call(begin, std::min(chunk, range.end - begin));
  }
}

}  // namespace

BucketExchange::BucketExchange(ExchangeState& state, const BucketPlan& plan)
    : state_(state),
      plan_(plan),
      rounds_(rounds_of(plan, state.hierarchy)),
      slice_(slice_of(plan, state.hierarchy)),
      shard_(shard_of_rank(plan, state.hierarchy)) {
  const Hierarchy& h = state.hierarchy;
  if (h.groups == 1) return;
  std::size_t messages = 2;
  if (!plan.pairwise) {
    for (const auto& subtrees : state.subtrees_of_group) {
      messages += subtrees.size() + state.own_group_subtrees().size() + 2;
    }
  }
  requests_.reserve(messages);
}

void BucketExchange::begin() {
  assert(done());
  stage_ = Stage::filling;
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
      if (!state_.flags_known || !may_move()) return false;
      sum();
      return true;
    case Stage::holding:
      if (!state_.released) return false;
      move_held();
      return true;
    case Stage::spreading:
      return spread();
    case Stage::copying:
      return copy();
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
    for_each_chunk(slice_, [&](std::size_t begin, std::size_t count) {
      float* out = sums(i) + (begin - slice_.begin);
      const float* sum = state_.tree.at(subtrees[i], begin, count, out);
      if (sum != out) std::copy_n(sum, count, out);
    });
  }
}

bool BucketExchange::copy() {
  for (const Segment& segment : state_.segments) {
    if (segment.moved(plan_.index).load(std::memory_order_acquire) < state_.step) return false;
  }
  const Hierarchy& h = state_.hierarchy;
  for (std::size_t m = 0; m < h.members && !plan_.replicated; ++m) {
    if (m == h.member) continue;
    const Shard slice = shard_of(m, h.members, plan_.bucket);
    std::copy_n(state_.segments[m].parameters() + slice.begin, slice.size(),
                state_.own_segment().parameters() + slice.begin);
  }
  stage_ = Stage::done;
  return true;
}

// ---- sums between groups ------------------------------------------------------------------------

// Slot memory: with several members first the group's own sums of the slice, one for each subtree; then
// what is received.
float* BucketExchange::sums(std::size_t i) const {
  if (state_.hierarchy.members == 1) return state_.own_segment().partial(i) + slice_.begin;
  return slot_->memory.data() + i * whole_chunks(slice_.size());
}

float* BucketExchange::received(std::size_t i) const {
  const std::size_t own = state_.hierarchy.members == 1
                              ? 0
                              : state_.own_group_subtrees().size() * whole_chunks(slice_.size());
  return slot_->memory.data() + own + i * whole_chunks(shard_.size());
}

std::size_t BucketExchange::slot_size() const {
  const Hierarchy& h = state_.hierarchy;
  if (h.groups == 1) return 0;
  std::size_t floats =
      h.members == 1 ? 0 : state_.own_group_subtrees().size() * whole_chunks(slice_.size());
  if (plan_.pairwise) return floats + whole_chunks(slice_.size());
  for (std::size_t g = 0; g < h.groups; ++g) {
    if (g != h.group) floats += state_.subtrees_of_group[g].size() * whole_chunks(shard_.size());
  }
  return floats;
}

bool BucketExchange::take_slot() {
  for (Slot& slot : state_.slots) {
    if (slot.taken) continue;
    slot.taken = true;
    slot_ = &slot;
    return true;
  }
  return false;
}

void BucketExchange::release_slot() {
  if (slot_ == nullptr) return;
  slot_->taken = false;
  slot_ = nullptr;
}

std::size_t BucketExchange::peer(std::size_t group) const {
  return state_.hierarchy.rank_of(group, state_.hierarchy.member);
}

std::size_t BucketExchange::partner(std::size_t round) const {
  return state_.hierarchy.group ^ (std::size_t{1} << round);
}

Shard BucketExchange::kept(std::size_t rounds) const {
  return kept_of(plan_, state_.hierarchy, rounds);
}

// What is summed up in `group` after so many rounds: the leaves of the groups that it then has met.
Subtree BucketExchange::subtree_after(std::size_t rounds, std::size_t group) const {
  const Subtree own = state_.subtrees_of_group[group].front();
  const std::size_t first_group = group >> rounds << rounds;
  return {state_.subtrees_of_group[first_group].front().first, own.size << rounds};
}

void BucketExchange::start_reducing() {
  requests_.clear();
  round_ = 0;
  if (plan_.pairwise) {
    start_halving_round();
    return;
  }
  receive_pieces();
  send_pieces();
}

// A sum that is sent is not looked at any more, so it may be rounded where it stands.
void BucketExchange::send_sums(float* values, std::size_t count, std::size_t to) {
  if (rounds_sums()) round_in_place(values, count);
  requests_.send(state_.communicator->comm, values, count * bytes_of_sum(), to,
                 sums_tag(plan_.index));
}

void BucketExchange::receive_sums(float* values, std::size_t count, std::size_t from) {
  requests_.receive(state_.communicator->comm, values, count * bytes_of_sum(), from,
                    sums_tag(plan_.index));
}

// Sums that no sample went into are neither sent nor waited for.
void BucketExchange::start_halving_round() {
  const std::size_t other = partner(round_);
  const Shard held = kept(round_);
  const Shard keep = kept(round_ + 1);
  const Shard give =
      plan_.replicated ? held : half_of(held, !keeps_upper(state_.hierarchy, round_));
  if (keep.size() > 0 && state_.present(subtree_after(round_, other))) {
    receive_sums(received(0), keep.size(), peer(other));
  }
  if (give.size() > 0 && state_.present(subtree_after(round_, state_.hierarchy.group))) {
    send_sums(sums(0) + (give.begin - slice_.begin), give.size(), peer(other));
  }
}

void BucketExchange::add_round() {
  const Shard keep = kept(round_ + 1);
  float* own = sums(0) + (keep.begin - slice_.begin);
  if (!state_.present(subtree_after(round_, partner(round_)))) return;
  if (rounds_sums()) expand_in_place(received(0), keep.size());
  if (state_.present(subtree_after(round_, state_.hierarchy.group))) {
    add_to(own, received(0), keep.size());
  } else {
    std::copy_n(received(0), keep.size(), own);
  }
}

void BucketExchange::receive_pieces() {
  const Hierarchy& h = state_.hierarchy;
  std::size_t place = 0;
  for (std::size_t i = 1; i < h.groups; ++i) {
    const std::size_t from = (h.group + h.groups - i) % h.groups;
    for (const Subtree& subtree : state_.subtrees_of_group[from]) {
      float* piece = received(place++);
      if (shard_.size() == 0 || !state_.present(subtree)) continue;
      receive_sums(piece, shard_.size(), peer(from));
    }
  }
}

void BucketExchange::send_pieces() {
  const Hierarchy& h = state_.hierarchy;
  const auto& subtrees = state_.own_group_subtrees();
  for (std::size_t i = 1; i < h.groups; ++i) {
    const std::size_t to = (h.group + i) % h.groups;
    const Shard piece = plan_.replicated ? slice_ : shard_of(to, h.groups, slice_);
    for (std::size_t s = 0; s < subtrees.size(); ++s) {
      if (piece.size() == 0 || !state_.present(subtrees[s])) continue;
      send_sums(sums(s) + (piece.begin - slice_.begin), piece.size(), peer(to));
    }
  }
}

bool BucketExchange::reduce() {
  if (!requests_.test()) return false;
  if (plan_.pairwise) {
    add_round();
    if (++round_ < rounds_) {
      requests_.clear();
      start_halving_round();
      return true;
    }
  }
  if (plan_.pairwise && !plan_.replicated) keep_sum();
  stage_ = Stage::summing;
  return true;
}

// The slot is for the next bucket, should this one have to wait until its parameters may move.
void BucketExchange::keep_sum() {
  const float* sum = sums(0) + (shard_.begin - slice_.begin);
  if (sum != held(shard_.begin)) std::copy_n(sum, shard_.size(), held(shard_.begin));
  release_slot();
}

// ---- the parameters -----------------------------------------------------------------------------

// Null if no leaf is present.
const float* BucketExchange::whole_sum(std::size_t begin, std::size_t count, float* out) {
  if (plan_.pairwise) {
    if (!state_.present({0, state_.leaves})) return nullptr;
    return plan_.replicated ? sums(0) + (begin - slice_.begin) : held(begin);
  }
  const std::size_t offset = state_.hierarchy.groups == 1 ? begin : begin - shard_.begin;
  return state_.tree.at({0, state_.leaves}, offset, count, out);
}

void BucketExchange::sum() {
  const Hierarchy& h = state_.hierarchy;
  if (h.groups == 1) {
    set_tree_inputs();
  } else if (!plan_.pairwise) {
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
    const float* sum = whole_sum(begin, count, buffer.data());
    if (sum == nullptr) sum = std::fill_n(buffer.data(), count, 0.0F) - count;
    if (!state_.holds) {
      state_.move(begin, {sum, count});
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

void BucketExchange::move_held() {
  for_each_chunk(shard_, [&](std::size_t begin, std::size_t count) {
    state_.move(begin, {held(begin), count});
  });
  start_spreading();
}

void BucketExchange::start_spreading() {
  requests_.clear();
  if (plan_.replicated || state_.hierarchy.groups == 1) {
    finish_copying();
    return;
  }
  stage_ = Stage::spreading;
  if (plan_.pairwise) {
    start_spreading_round();
    return;
  }
  const Hierarchy& h = state_.hierarchy;
  float* parameters = state_.own_segment().parameters();
  MPI_Comm comm = state_.communicator->comm;
  const int tag = parameters_tag(plan_.index);
  for (std::size_t i = 1; i < h.groups; ++i) {
    const std::size_t from = (h.group + h.groups - i) % h.groups;
    const Shard shard = shard_of(from, h.groups, slice_);
    if (shard.size() == 0) continue;
    requests_.receive(comm, parameters + shard.begin, shard.size() * sizeof(float), peer(from),
                      tag);
  }
  for (std::size_t i = 1; i < h.groups && shard_.size() > 0; ++i) {
    requests_.send(comm, parameters + shard_.begin, shard_.size() * sizeof(float),
                   peer((h.group + i) % h.groups), tag);
  }
}

// The rounds of halving backwards: what the partner has moved is what this rank gave away.
void BucketExchange::start_spreading_round() {
  const std::size_t round = round_ - 1;
  const Shard held = kept(round_);
  const Shard missing = half_of(kept(round), !keeps_upper(state_.hierarchy, round));
  float* parameters = state_.own_segment().parameters();
  MPI_Comm comm = state_.communicator->comm;
  const int tag = parameters_tag(plan_.index);
  const std::size_t other = peer(partner(round));
  if (missing.size() > 0) {
    requests_.receive(comm, parameters + missing.begin, missing.size() * sizeof(float), other, tag);
  }
  if (held.size() > 0) {
    requests_.send(comm, parameters + held.begin, held.size() * sizeof(float), other, tag);
  }
}

bool BucketExchange::spread() {
  if (!requests_.test()) return false;
  if (plan_.pairwise && --round_ > 0) {
    requests_.clear();
    start_spreading_round();
    return true;
  }
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
      return "waiting for the gradient's norm";
    case Stage::spreading:
      return "all-gather";
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

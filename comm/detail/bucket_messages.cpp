// The part of BucketExchange that speaks with other groups.
#include <algorithm>

#include "comm/detail/bucket_exchange.hpp"
#include "comm/detail/rounded.hpp"

namespace lockstep::comm::detail {
namespace {

std::size_t whole_chunks(std::size_t floats) {
  return chunks_in(floats) * chunk;
}

}  // namespace

// Slot memory: with several members first the group's own sums of the slice, one for each subtree;
// then what is received.
float* BucketExchange::sums(std::size_t i) const {
  if (state_.hierarchy.members == 1) return state_.own_segment().partial(i) + slice_.begin;
  return slot_->memory.data() + i * whole_chunks(slice_.size());
}

float* BucketExchange::received(std::size_t i) const {
  const std::size_t own = state_.hierarchy.members == 1
                              ? 0
                              : state_.own_group_subtrees().size() * whole_chunks(slice_.size());
  const Shard piece = plan_.recursive ? kept(round_ + 1) : shard_;
  return slot_->memory.data() + own + i * whole_chunks(piece.size());
}

std::size_t BucketExchange::slot_size() const {
  const Hierarchy& h = state_.hierarchy;
  if (h.groups == 1) return 0;
  std::size_t floats =
      h.members == 1 ? 0 : state_.own_group_subtrees().size() * whole_chunks(slice_.size());
  if (plan_.recursive) return floats + (round_of(h, 0).ways - 1) * whole_chunks(kept(1).size());
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

Shard BucketExchange::kept(std::size_t rounds) const {
  return kept_of(plan_, state_.hierarchy, rounds);
}

// What is summed up in `group` after so many rounds: the leaves of the groups that it then has met.
Subtree BucketExchange::subtree_after(std::size_t rounds, std::size_t group) const {
  const Subtree own = state_.subtrees_of_group[group].front();
  const std::size_t bits = round_of(state_.hierarchy, rounds).shift;
  const std::size_t first_group = group >> bits << bits;
  return {state_.subtrees_of_group[first_group].front().first, own.size << bits};
}

void BucketExchange::start_reducing() {
  requests_.clear();
  round_ = 0;
  if (plan_.recursive) {
    start_reducing_round();
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
void BucketExchange::start_reducing_round() {
  const Round round = round_of(state_.hierarchy, round_);
  const std::size_t group = state_.hierarchy.group;
  const Shard held = kept(round_);
  const Shard keep = kept(round_ + 1);
  const bool present = state_.present(subtree_after(round_, group));
  for (std::size_t i = 1; i < round.ways; ++i) {
    const std::size_t other = round.other(group, i);
    if (keep.size() > 0 && state_.present(subtree_after(round_, other))) {
      receive_sums(received(i - 1), keep.size(), peer(other));
    }
    const Shard give = plan_.replicated ? held : shard_of(round.digit_of(other), round.ways, held);
    if (give.size() > 0 && present) {
      send_sums(sums(0) + (give.begin - slice_.begin), give.size(), peer(other));
    }
  }
}

// The tree over what the groups of a round hold, where this rank's own sum stands.
void BucketExchange::add_round() {
  const Round round = round_of(state_.hierarchy, round_);
  const std::size_t group = state_.hierarchy.group;
  const Shard keep = kept(round_ + 1);
  float* own = sums(0) + (keep.begin - slice_.begin);
  const auto set = [&](std::size_t of_group, const float* values) {
    const Subtree subtree = subtree_after(round_, of_group);
    state_.tree.set(subtree, state_.present(subtree) ? values : nullptr);
  };
  set(group, own);
  for (std::size_t i = 1; i < round.ways; ++i) {
    const std::size_t other = round.other(group, i);
    float* piece = received(i - 1);
    if (rounds_sums() && state_.present(subtree_after(round_, other))) {
      expand_in_place(piece, keep.size());
    }
    set(other, piece);
  }
  const Subtree node = subtree_after(round_ + 1, group);
  if (state_.present(node)) state_.tree.write(node, 0, keep.size(), own);
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
  if (plan_.recursive) {
    add_round();
    if (++round_ < rounds_) {
      requests_.clear();
      start_reducing_round();
      return true;
    }
  }
  if (plan_.recursive && !plan_.replicated) keep_sum();
  stage_ = Stage::summing;
  return true;
}

// The slot is for the next bucket, should this one have to wait until its parameters may move.
void BucketExchange::keep_sum() {
  const float* sum = sums(0) + (shard_.begin - slice_.begin);
  if (sum != held(shard_.begin)) std::copy_n(sum, shard_.size(), held(shard_.begin));
  release_slot();
}

void BucketExchange::start_spreading() {
  requests_.clear();
  if (plan_.replicated || state_.hierarchy.groups == 1) {
    finish_copying();
    return;
  }
  stage_ = Stage::spreading;
  if (plan_.recursive) {
    start_spreading_round();
    return;
  }
  const Hierarchy& h = state_.hierarchy;
  for (std::size_t i = 1; i < h.groups; ++i) {
    const std::size_t from = (h.group + h.groups - i) % h.groups;
    receive_parameters(shard_of(from, h.groups, slice_), from);
  }
  for (std::size_t i = 1; i < h.groups; ++i) {
    send_parameters(shard_, (h.group + i) % h.groups);
  }
}

// Once it is started, MPI may write there at any time.
void BucketExchange::receive_parameters(Shard range, std::size_t from) {
  if (range.size() == 0) return;
  if (!moves_apart_) before_change(range);
  requests_.receive(state_.communicator->comm, moved() + range.begin, range.size() * sizeof(float),
                    peer(from), parameters_tag(plan_.index));
}

void BucketExchange::send_parameters(Shard range, std::size_t to) {
  if (range.size() == 0) return;
  requests_.send(state_.communicator->comm, moved() + range.begin, range.size() * sizeof(float),
                 peer(to), parameters_tag(plan_.index));
}

// The rounds backwards: what the others of a round have moved is what this rank gave away.
void BucketExchange::start_spreading_round() {
  const Round round = round_of(state_.hierarchy, round_ - 1);
  const Shard whole = kept(round_ - 1);
  for (std::size_t i = 1; i < round.ways; ++i) {
    const std::size_t other = round.other(state_.hierarchy.group, i);
    receive_parameters(shard_of(round.digit_of(other), round.ways, whole), other);
    send_parameters(kept(round_), other);
  }
}

bool BucketExchange::spread() {
  if (!requests_.test()) return false;
  if (plan_.recursive && --round_ > 0) {
    requests_.clear();
    start_spreading_round();
    return true;
  }
  if (moves_apart_) {
    stage_ = Stage::landing;
    return true;
  }
  finish_copying();
  return true;
}

}  // namespace lockstep::comm::detail

#include "comm/parameter_exchange.hpp"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "comm/detail/parameter_exchange_state.hpp"

namespace lockstep::comm {

using detail::BucketExchange;
using detail::BucketPlan;
using detail::ExchangeState;
using detail::Hierarchy;

ParameterExchange::ParameterExchange(Communicator& communicator, std::size_t leaves,
                                     std::size_t elements)
    : ParameterExchange(communicator, leaves, elements, Options{}) {}

ParameterExchange::ParameterExchange(Communicator& communicator, std::size_t leaves,
                                     std::size_t elements, const Options& options)
    : state_(std::make_unique<State>(communicator, leaves, elements, options)) {}

void ParameterExchange::stop() {
  state_->stop_thread();
}

// Messages that are under way keep their memory, but not the thread. Who leaves in the middle of a
// step is not in step any more, whatever the reason.
ParameterExchange::~ParameterExchange() {
  if (!state_) return;
  state_->stop_thread();
  if (state_->communicator && !state_->all_done()) {
    state_->shared.communicator->session->in_step = false;
  }
  if (state_->watched) state_->shared.communicator->session->look_at = nullptr;
  if (state_->outstanding()) detail::keep_forever(std::shared_ptr<State>(std::move(state_)));
}

ParameterExchange::ParameterExchange(ParameterExchange&& other) noexcept = default;

ParameterExchange& ParameterExchange::operator=(ParameterExchange&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

std::span<float> ParameterExchange::parameters() {
  return {state_->shared.own_segment().parameters(), state_->elements + state_->extra};
}

std::span<const float> ParameterExchange::parameters() const {
  return {state_->shared.own_segment().parameters(), state_->elements + state_->extra};
}

std::span<const Subtree> ParameterExchange::subtrees() const {
  return state_->shared.subtrees_of_member[state_->shared.hierarchy.member];
}

std::span<float> ParameterExchange::partial(std::size_t i) {
  assert(i < subtrees().size());
  return {state_->shared.own_segment().partial(i), state_->elements};
}

std::vector<Shard> ParameterExchange::owned() const {
  std::vector<Shard> ranges;
  for (auto bucket = state_->buckets.rbegin(); bucket != state_->buckets.rend(); ++bucket) {
    if (bucket->shard().size() > 0) ranges.push_back(bucket->shard());
  }
  return ranges;
}

std::vector<Shard> ParameterExchange::share_of(std::size_t rank) const {
  const ExchangeState& shared = state_->shared;
  const Hierarchy seen_by_it =
      detail::hierarchy_of_groups(shared.hierarchy.members, state_->ranks, rank);
  std::vector<Shard> ranges;
  for (auto bucket = state_->buckets.rbegin(); bucket != state_->buckets.rend(); ++bucket) {
    const Shard shard = detail::share_of_rank(bucket->plan(), seen_by_it);
    if (shard.size() > 0) ranges.push_back(shard);
  }
  return ranges;
}

void ParameterExchange::set_move(Move move, Note note) {
  state_->shared.move = [move = std::move(move), state = state_.get()](
                            std::size_t begin, std::span<const float> sum, float* moved) {
    move(begin, sum, {moved, state->elements}, static_cast<unsigned>(state->flags->raised()));
  };
  if (!note) return;
  state_->shared.note = [note = std::move(note), state = state_.get()](std::size_t begin,
                                                                       std::span<const float> sum) {
    note(begin, sum, static_cast<unsigned>(state->flags->raised()));
  };
}

void ParameterExchange::set_watch(ParameterWatch& watch) {
  state_->shared.watch = &watch;
}

void ParameterExchange::wait_for_sums() {
  state_->wait_until([&] {
    return state_->flags->done() &&
           std::ranges::all_of(state_->buckets, &BucketExchange::is_summed);
  });
}

void ParameterExchange::visit_sums(const Visit& visit) {
  const std::lock_guard held(state_->lock);
  for (BucketExchange& bucket : state_->buckets) bucket.visit_held(visit);
}

void ParameterExchange::release() {
  const std::lock_guard held(state_->lock);
  state_->shared.released = true;
}

void ParameterExchange::begin(std::span<const std::uint8_t> leaf_present, unsigned raise,
                              Sums sums) {
  State& s = *state_;
  if (leaf_present.size() != s.shared.leaves) {
    throw std::invalid_argument("leaf_present has " + std::to_string(leaf_present.size()) +
                                " flags for " + std::to_string(s.shared.leaves) + " leaves");
  }
  if (sums == Sums::hold && !s.shared.note) {
    throw std::invalid_argument("a step that holds its sums has nobody to note them");
  }
  if (s.communicator) detail::check_usable(*s.shared.communicator, "gradient exchange");
  {
    const std::lock_guard held(s.lock);
    if (!s.all_done()) throw std::invalid_argument("the exchange of the last step is not finished");
    ++s.shared.step;
    s.shared.sums_final_from = s.elements;
    s.shared.movable_from = s.elements;
    std::ranges::copy(leaf_present, s.shared.leaf_present.begin());
    s.shared.holds = sums == Sums::hold;
    s.shared.released = false;
    s.shared.own_sums = OwnSums::none;
    s.first_open = 0;
    s.flags->begin(raise);
    for (BucketExchange& bucket : s.buckets) bucket.begin();
  }
  s.begun.store(s.shared.step);
  if (s.thread.joinable()) s.begun.notify_one();
}

void ParameterExchange::sums_final_from(std::size_t begin) {
  std::atomic<std::size_t>& known = state_->shared.sums_final_from;
  if (begin < known.load(std::memory_order_relaxed)) known.store(begin, std::memory_order_release);
}

void ParameterExchange::final_from(std::size_t begin) {
  state_->shared.movable_from.store(begin, std::memory_order_release);
  sums_final_from(begin);
}

// Done from the start: one advance.
void ParameterExchange::progress() {
  state_->wait_until([] { return true; });
}

bool ParameterExchange::has_thread() const {
  return state_->thread.joinable();
}

bool ParameterExchange::wants_progress() const {
  return state_->ranks > 1 && state_->buckets.size() > 1 && !has_thread();
}

unsigned ParameterExchange::raised() {
  state_->wait_until([&] { return state_->flags->done(); });
  return static_cast<unsigned>(state_->flags->raised());
}

void ParameterExchange::wait_for(std::size_t end) {
  state_->wait_until([&] { return state_->moved_before(end); });
}

void ParameterExchange::finish() {
  state_->wait_until([&] { return state_->all_done(); });
}

// One rank after the other, a piece of at most a slot at a time: rank 0's disk is slower than that.
void ParameterExchange::gather_shares(std::span<const float> mine, std::span<float> all) {
  State& s = *state_;
  assert(mine.size() == s.elements && (s.rank != 0 || all.size() == s.elements));
  for (std::size_t r = 0; r < s.ranks; ++r) {
    for (const Shard& shard : share_of(r)) {
      for (std::size_t begin = shard.begin; begin < shard.end; begin += State::most_transferred) {
        const std::size_t count = std::min(State::most_transferred, shard.end - begin);
        if (r == 0 && s.rank == 0) {
          std::copy_n(mine.begin() + begin, count, all.begin() + begin);
        } else if (s.rank == 0) {
          s.transfer(r, {}, all.subspan(begin, count));
        } else if (s.rank == r) {
          s.transfer(0, mine.subspan(begin, count), {});
        }
      }
    }
  }
}

void ParameterExchange::set_phase(std::string_view phase) {
  const std::uint64_t word = detail::word_of(phase);
  state_->shared.own_segment().phase().store(word, std::memory_order_relaxed);
  if (state_->communicator) state_->shared.communicator->session->status.phase = word;
}

std::vector<Shard> ParameterExchange::buckets() const {
  std::vector<Shard> all;
  for (const BucketExchange& bucket : state_->buckets) all.push_back(bucket.plan().bucket);
  return all;
}

std::size_t ParameterExchange::memory_bytes() const {
  std::size_t bytes = state_->segment_bytes;
  for (const detail::Slot& slot : state_->shared.slots) bytes += slot.memory.size() * sizeof(float);
  return bytes;
}

double ParameterExchange::seconds_waited() const {
  return state_->seconds_waited;
}

std::uint64_t ParameterExchange::step() const {
  return state_->shared.step;
}

std::string ParameterExchange::why_not_shared() const {
  return state_->why_not_shared;
}

std::string ParameterExchange::describe() const {
  const State& s = *state_;
  const Hierarchy& h = s.shared.hierarchy;
  if (s.ranks == 1) return "one rank: nothing is exchanged";
  std::string text =
      std::to_string(s.buckets.size()) + (s.buckets.size() == 1 ? " bucket" : " buckets");
  if (h.members > 1) text += ", " + std::to_string(h.members) + " ranks a node through its memory";
  if (h.groups > 1) {
    const bool recursive = !s.buckets.empty() && s.buckets.front().plan().recursive;
    text += ", messages between " + std::to_string(h.groups) +
            (h.members > 1 ? " nodes" : " ranks") +
            (recursive ? " in rounds of up to four" : " from each to each");
  }
  return text;
}

}  // namespace lockstep::comm

#include "comm/detail/flag_exchange.hpp"

#include <bit>
#include <cassert>

namespace lockstep::comm::detail {

FlagExchange::FlagExchange(ExchangeState& state)
    : state_(state), rounds_(static_cast<std::size_t>(std::bit_width(state.hierarchy.groups - 1))) {
  assert(rounds_ < static_cast<std::size_t>(flag_tags));
  requests_.reserve(2);
}

void FlagExchange::begin(std::uint64_t flags) {
  assert(done());
  const Segment& own = state_.own_segment();
  own.flags(state_.step).store(flags, std::memory_order_relaxed);
  own.begun().store(state_.step, std::memory_order_release);
  raised_ = flags;
  stage_ = Stage::gathering;
}

bool FlagExchange::advance() {
  bool further = false;
  while (!done() && (stage_ == Stage::gathering ? gather() : exchange())) further = true;
  return further;
}

bool FlagExchange::gather() {
  for (const Segment& segment : state_.segments) {
    if (segment.begun().load(std::memory_order_acquire) < state_.step) return false;
  }
  for (const Segment& segment : state_.segments) {
    raised_ |= segment.flags(state_.step).load(std::memory_order_relaxed);
  }
  round_ = 0;
  stage_ = rounds_ == 0 ? Stage::done : Stage::exchanging;
  if (!done()) start_round();
  return true;
}

void FlagExchange::start_round() {
  const Hierarchy& h = state_.hierarchy;
  const std::size_t distance = std::size_t{1} << round_;
  const std::size_t to = h.rank_of((h.group + distance) % h.groups, h.member);
  const std::size_t from = h.rank_of((h.group + h.groups - distance) % h.groups, h.member);
  const int tag = static_cast<int>(round_);
  MPI_Comm comm = state_.communicator->comm;
  sent_ = raised_;
  requests_.clear();
  requests_.receive(comm, &received_, sizeof received_, from, tag);
  requests_.send(comm, &sent_, sizeof sent_, to, tag);
}

bool FlagExchange::exchange() {
  if (!requests_.test()) return false;
  raised_ |= received_;
  if (++round_ < rounds_) {
    start_round();
  } else {
    stage_ = Stage::done;
  }
  return true;
}

std::string FlagExchange::missing() const {
  if (stage_ == Stage::exchanging) return requests_.missing();
  const Hierarchy& h = state_.hierarchy;
  std::vector<std::size_t> ranks;
  for (std::size_t m = 0; m < h.members; ++m) {
    if (state_.segments[m].begun().load(std::memory_order_acquire) < state_.step) {
      ranks.push_back(h.rank_of(h.group, m));
    }
  }
  return name_ranks(ranks);
}

}  // namespace lockstep::comm::detail

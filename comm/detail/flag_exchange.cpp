#include "comm/detail/flag_exchange.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <functional>
#include <span>

namespace lockstep::comm::detail {
namespace {

void or_to(std::span<std::uint64_t> words, const std::uint64_t* others) {
  std::ranges::transform(words, std::span(others, words.size()), words.begin(), std::bit_or());
}

}  // namespace

FlagExchange::FlagExchange(ExchangeState& state)
    : state_(state), rounds_(static_cast<std::size_t>(std::bit_width(state.hierarchy.groups - 1))) {
  assert(rounds_ < static_cast<std::size_t>(flag_tags));
  requests_.reserve(2);
}

void FlagExchange::begin(std::uint64_t flags) {
  assert(done());
  if (state_.watch == nullptr) {
    words_.resize(1);
  } else {
    const auto words = state_.watch->words();
    words_.resize(1 + words.size());
    std::ranges::copy(words, words_.begin() + 1);
  }
  words_.front() = flags;
  const Segment& own = state_.own_segment();
  std::ranges::copy(words_, own.words(state_.step));
  own.begun().store(state_.step, std::memory_order_release);
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
    or_to(words_, segment.words(state_.step));
  }
  round_ = 0;
  if (rounds_ == 0) {
    finish();
  } else {
    stage_ = Stage::exchanging;
    received_.resize(words_.size());
    start_round();
  }
  return true;
}

void FlagExchange::start_round() {
  const Hierarchy& h = state_.hierarchy;
  const std::size_t distance = std::size_t{1} << round_;
  const std::size_t to = h.rank_of((h.group + distance) % h.groups, h.member);
  const std::size_t from = h.rank_of((h.group + h.groups - distance) % h.groups, h.member);
  const int tag = static_cast<int>(round_);
  MPI_Comm comm = state_.communicator->comm;
  const std::size_t bytes = words_.size() * sizeof(std::uint64_t);
  requests_.clear();
  requests_.receive(comm, received_.data(), bytes, from, tag);
  requests_.send(comm, words_.data(), bytes, to, tag);
}

bool FlagExchange::exchange() {
  if (!requests_.test()) return false;
  or_to(words_, received_.data());
  if (++round_ < rounds_) {
    start_round();
  } else {
    finish();
  }
  return true;
}

void FlagExchange::finish() {
  if (state_.watch != nullptr) state_.watch->hear(std::span(words_).subspan(1));
  stage_ = Stage::done;
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

#include "comm/communicator.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "comm/detail/state.hpp"

namespace lockstep::comm {

using detail::CommunicatorState;

Communicator::Communicator(std::unique_ptr<CommunicatorState> state) : state_(std::move(state)) {}

Communicator::~Communicator() {
  if (state_ && state_->requests.outstanding()) {
    detail::keep_forever(std::shared_ptr<CommunicatorState>(std::move(state_)));
  }
}

Communicator::Communicator(Communicator&& other) noexcept = default;

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

std::size_t Communicator::rank() const {
  return state_->rank;
}
std::size_t Communicator::size() const {
  return state_->size;
}
std::size_t Communicator::local_rank() const {
  return state_->local_rank;
}
std::size_t Communicator::local_size() const {
  return state_->local_size;
}

void Communicator::set_timeout(double seconds) {
  if (!(seconds > 0.0)) throw std::invalid_argument("a time limit must be above 0 s");
  state_->session->timeout = seconds;
}

double Communicator::timeout() const {
  return state_->session->timeout;
}

Communicator Communicator::duplicate() {
  detail::check_usable(*state_, "duplicate");
  auto copy =
      detail::make_state(state_->session, detail::duplicate(*state_->session, state_->comm));
  copy->local_rank = state_->local_rank;
  copy->local_size = state_->local_size;
  copy->node_of = state_->node_of;
  return Communicator(std::move(copy));
}

void Communicator::barrier() {
  const std::vector<std::size_t> counts(size(), 0);
  detail::exchange(*state_, detail::barrier_tag, "barrier", {}, counts, {});
}

// Binomial tree: numbered from the root, rank r receives from r without its lowest bit and sends to
// r + 1, r + 2, r + 4, … below that bit. Pieces of a long message follow one another down the tree.
void Communicator::broadcast(std::span<std::byte> data, std::size_t root) {
  if (root >= size()) throw std::invalid_argument("broadcast: the root is no rank");
  detail::check_usable(*state_, "broadcast");
  if (size() == 1) return;
  const std::size_t position = (rank() + size() - root) % size();
  const std::size_t lowest_bit = position & (~position + 1);
  const auto rank_at = [&](std::size_t p) { return (p + root) % size(); };
  detail::Requests& requests = state_->requests;

  for (std::size_t done = 0; done < data.size(); done += state_->staging.size()) {
    const auto piece = data.subspan(done, std::min(state_->staging.size(), data.size() - done));
    if (position == 0) {
      std::copy(piece.begin(), piece.end(), state_->staging.begin());
    } else {
      requests.clear();
      requests.receive(state_->comm, state_->staging.data(), piece.size(),
                       rank_at(position - lowest_bit), detail::broadcast_tag);
      detail::wait_all(*state_, requests, "broadcast");
      std::copy_n(state_->staging.begin(), piece.size(), piece.begin());
    }
    requests.clear();
    const std::size_t end = position == 0 ? std::bit_ceil(size()) : lowest_bit;
    for (std::size_t bit = end / 2; bit > 0; bit /= 2) {
      if (position + bit >= size()) continue;
      requests.send(state_->comm, state_->staging.data(), piece.size(), rank_at(position + bit),
                    detail::broadcast_tag);
    }
    detail::wait_all(*state_, requests, "broadcast");
  }
}

void Communicator::broadcast(std::string& text, std::size_t root) {
  std::uint64_t length = text.size();
  broadcast(std::as_writable_bytes(std::span(&length, 1)), root);
  text.resize(length);
  broadcast(std::as_writable_bytes(std::span(text)), root);
}

std::vector<std::string> Communicator::gather_strings(std::string_view mine) {
  constexpr std::string_view what = "gather_strings";
  const std::size_t length = mine.size();
  std::vector<std::size_t> lengths(size());
  const std::vector<std::size_t> counts(size(), sizeof length);
  detail::exchange(*state_, detail::strings_tag, what, std::as_bytes(std::span(&length, 1)), counts,
                   std::as_writable_bytes(std::span(lengths)));

  std::string all(std::accumulate(lengths.begin(), lengths.end(), std::size_t{0}), '\0');
  detail::exchange(*state_, detail::strings_tag, what, std::as_bytes(std::span(mine)), lengths,
                   std::as_writable_bytes(std::span(all)));

  std::vector<std::string> strings;
  std::size_t begin = 0;
  for (const std::size_t count : lengths) {
    strings.push_back(all.substr(begin, count));
    begin += count;
  }
  return strings;
}

void Communicator::all_gather(std::span<const double> mine, std::span<const std::size_t> counts,
                              std::span<double> all) {
  if (counts.size() != size() || mine.size() != counts[rank()] ||
      all.size() != std::accumulate(counts.begin(), counts.end(), std::size_t{0})) {
    throw std::invalid_argument("all_gather: the counts do not fit the data");
  }
  detail::exchange(*state_, detail::all_gather_tag, "all_gather", std::as_bytes(mine), counts,
                   std::as_writable_bytes(all), detail::Heed::all_alarms, sizeof(double));
}

bool Communicator::any(bool mine) {
  const std::array<std::byte, 1> flag{std::byte{mine}};
  std::vector<std::byte> flags(size());
  const std::vector<std::size_t> counts(size(), 1);
  detail::exchange(*state_, detail::any_tag, "any", flag, counts, flags);
  return std::any_of(flags.begin(), flags.end(), [](std::byte f) { return f != std::byte{0}; });
}

}  // namespace lockstep::comm

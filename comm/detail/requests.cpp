#include "comm/detail/requests.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <utility>

#include "comm/error.hpp"

namespace lockstep::comm::detail {

void check(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  throw CommError(std::string(what) + ": " +
                  std::string(text.data(), static_cast<std::size_t>(length)));
}

int to_int(std::size_t value) {
  if (value > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw CommError(std::to_string(value) + " does not fit into MPI's int");
  }
  return static_cast<int>(value);
}

void Requests::reserve(std::size_t capacity) {
  requests_.reserve(capacity);
  statuses_.reserve(capacity);
  messages_.reserve(capacity);
}

void Requests::send(MPI_Comm comm, const void* data, std::size_t bytes, std::size_t to, int tag) {
  assert(bytes <= longest_message);
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Isend(data, to_int(bytes), MPI_BYTE, to_int(to), tag, comm, &request);
  if (code != MPI_SUCCESS) check(code, "sending to rank " + std::to_string(to));
  started(request, {to, bytes, false});
}

void Requests::receive(MPI_Comm comm, void* data, std::size_t bytes, std::size_t from, int tag) {
  assert(bytes <= longest_message);
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Irecv(data, to_int(bytes), MPI_BYTE, to_int(from), tag, comm, &request);
  if (code != MPI_SUCCESS) check(code, "receiving from rank " + std::to_string(from));
  started(request, {from, bytes, true});
}

void Requests::started(MPI_Request request, Message message) {
  requests_.push_back(request);
  messages_.push_back(message);
  statuses_.emplace_back();
  outstanding_ = true;
}

bool Requests::test() {
  int done = 0;
  const int code = MPI_Testall(to_int(requests_.size()), requests_.data(), &done, statuses_.data());
  if (code != MPI_SUCCESS) {
    for (std::size_t i = 0; code == MPI_ERR_IN_STATUS && i < messages_.size(); ++i) {
      if (statuses_[i].MPI_ERROR == MPI_ERR_PENDING) continue;
      check(statuses_[i].MPI_ERROR, "a message with rank " + std::to_string(messages_[i].peer));
    }
    check(code, "waiting for messages");
  }
  if (done == 0) return false;
  outstanding_ = false;
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    if (!messages_[i].is_receive) continue;
    int bytes = 0;
    check(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes), "the length of a message");
    if (static_cast<std::size_t>(bytes) != messages_[i].bytes) {
      throw CommError("rank " + std::to_string(messages_[i].peer) + " sent " +
                      std::to_string(bytes) + " bytes where " + std::to_string(messages_[i].bytes) +
                      " were expected: the ranks are not in the same call");
    }
  }
  return true;
}

void Requests::clear() {
  assert(!outstanding_);
  requests_.clear();
  statuses_.clear();
  messages_.clear();
}

bool Requests::completed(std::size_t i) const {
  int done = 0;
  MPI_Status status;
  return requests_[i] == MPI_REQUEST_NULL ||
         MPI_Request_get_status(requests_[i], &done, &status) != MPI_SUCCESS || done != 0;
}

std::string Requests::missing() const {
  std::vector<std::size_t> ranks;
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    if (!completed(i)) ranks.push_back(messages_[i].peer);
  }
  return name_ranks(std::move(ranks));
}

std::string name_ranks(std::vector<std::size_t> ranks) {
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  constexpr std::size_t most = 8;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < std::min(ranks.size(), most); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  }
  if (ranks.size() > most) text += " and " + std::to_string(ranks.size() - most) + " more";
  return text;
}

void keep_forever(std::shared_ptr<void> object) {
  // Reachable and never destroyed, not even at exit.
  static auto& kept = *new std::vector<std::shared_ptr<void>>;
  kept.push_back(std::move(object));
}

}  // namespace lockstep::comm::detail

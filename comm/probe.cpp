#include "comm/probe.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "comm/detail/state.hpp"

namespace lockstep::comm {
namespace {

using detail::Requests;

constexpr int ball_tag = 0;  // the communicator is a duplicate, with no other messages
constexpr std::string_view what = "timing messages";

// The first byte of a message from a to b.
constexpr std::byte last{0};
constexpr std::byte more{1};

// Two ranks that play a message to and fro. Owns the buffers, which outlive a wait that is given
// up.
class PingPong {
 public:
  PingPong(Communicator& communicator, const ProbeOptions& options)
      : state_(std::make_unique<State>(communicator.duplicate())), seconds_(options.seconds) {
    const std::size_t longest = std::max(options.small_bytes, options.large_bytes);
    state_->out.resize(longest);
    state_->in.resize(longest);
    state_->sends.reserve(1);
    state_->receives.reserve(1);
  }
  PingPong(const PingPong&) = delete;
  PingPong& operator=(const PingPong&) = delete;
  ~PingPong() {
    if (state_->sends.outstanding() || state_->receives.outstanding()) {
      detail::keep_forever(std::shared_ptr<State>(std::move(state_)));
    }
  }

  // The median of the seconds that `bytes` take one way. rank a of the pair.
  double serve(std::size_t to, std::size_t bytes) {
    for (int warming_up = 0; warming_up < 2; ++warming_up) round_trip(to, bytes, more);
    std::vector<double> times;
    const double start = MPI_Wtime();
    for (bool again = true; again;) {
      const double before = MPI_Wtime();
      again = times.size() < 2 || before - start < seconds_;
      round_trip(to, bytes, again ? more : last);
      times.push_back((MPI_Wtime() - before) / 2);
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  }

  // The other side of it.
  void return_all(std::size_t to, std::size_t bytes) {
    do {
      receive(to, bytes);
      wait(state_->receives);
      send(to, bytes);
      wait(state_->sends);
    } while (state_->in.front() != last);
  }

 private:
  struct State {
    explicit State(Communicator duplicate) : communicator(std::move(duplicate)) {}

    Communicator communicator;
    std::vector<std::byte> out;
    std::vector<std::byte> in;
    Requests sends;
    Requests receives;
  };

  void round_trip(std::size_t to, std::size_t bytes, std::byte mark) {
    state_->out.front() = mark;
    receive(to, bytes);
    send(to, bytes);
    wait(state_->receives);
    wait(state_->sends);
  }

  void send(std::size_t to, std::size_t bytes) {
    state_->sends.clear();
    state_->sends.send(state_->communicator.state().comm, state_->out.data(), bytes, to, ball_tag);
  }
  void receive(std::size_t from, std::size_t bytes) {
    state_->receives.clear();
    state_->receives.receive(state_->communicator.state().comm, state_->in.data(), bytes, from,
                             ball_tag);
  }
  void wait(Requests& requests) { detail::wait_all(state_->communicator.state(), requests, what); }

  std::unique_ptr<State> state_;
  double seconds_;
};

void check_options(const Communicator& communicator, std::span<const RankPair> pairs,
                   const ProbeOptions& options) {
  const auto is_wrong = [&](const RankPair& pair) {
    return pair.a == pair.b || std::max(pair.a, pair.b) >= communicator.size();
  };
  if (std::ranges::any_of(pairs, is_wrong)) {
    throw std::invalid_argument("time_pairs: a pair is not two ranks");
  }
  if (options.small_bytes == 0 || options.large_bytes == 0 ||
      std::max(options.small_bytes, options.large_bytes) > detail::longest_message) {
    throw std::invalid_argument("time_pairs: messages have 1 byte to 1 GiB");
  }
}

}  // namespace

std::string mpi_library() {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  detail::check(MPI_Get_library_version(text.data(), &length), "asking for MPI's version");
  text.resize(static_cast<std::size_t>(length));
  // Open MPI goes on with its build after a comma, MPICH on further lines.
  text.resize(std::min(text.find_first_of(",\n"), text.size()));
  std::ranges::replace(text, '\t', ' ');
  while (!text.empty() && (text.back() == '\0' || text.back() == ' ')) text.pop_back();
  int major = 0;
  int minor = 0;
  detail::check(MPI_Get_version(&major, &minor), "asking for MPI's version");
  return text + " (MPI " + std::to_string(major) + "." + std::to_string(minor) + ")";
}

std::vector<PairTiming> time_pairs(Communicator& communicator, std::span<const RankPair> pairs,
                                   const ProbeOptions& options,
                                   const std::function<void(std::size_t)>& before_pair) {
  check_options(communicator, pairs, options);
  std::vector<PairTiming> timings(pairs.size());
  if (pairs.empty()) return timings;
  PingPong ping_pong(communicator, options);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (before_pair) before_pair(i);
    const auto [a, b] = pairs[i];
    if (communicator.rank() == a) {
      timings[i].latency = ping_pong.serve(b, options.small_bytes);
      timings[i].bandwidth =
          static_cast<double>(options.large_bytes) / ping_pong.serve(b, options.large_bytes);
    } else if (communicator.rank() == b) {
      ping_pong.return_all(a, options.small_bytes);
      ping_pong.return_all(a, options.large_bytes);
    }
    // Nobody begins the next pair before this one is done.
    communicator.broadcast(std::as_writable_bytes(std::span(&timings[i], 1)), a);
  }
  return timings;
}

}  // namespace lockstep::comm

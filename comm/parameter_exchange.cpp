#include "comm/parameter_exchange.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "comm/detail/backoff.hpp"
#include "comm/detail/bucket_exchange.hpp"
#include "comm/detail/exchange_state.hpp"
#include "comm/detail/flag_exchange.hpp"
#include "comm/detail/node_memory.hpp"
#include "comm/error.hpp"

namespace lockstep::comm {

using detail::BucketExchange;
using detail::BucketPlan;
using detail::ExchangeState;
using detail::Hierarchy;
using detail::SegmentLayout;

namespace {

constexpr std::size_t kMostSlots = 4;
// How long the exchange's thread sleeps when nothing has come while the rank computes: short beside the
// time that a bucket takes, long beside that of a look.
constexpr std::chrono::microseconds kNap{50};

constexpr std::size_t kGatheredAtOnce = std::size_t{1} << 20;  // floats

std::size_t most_subtrees(const std::vector<std::vector<Subtree>>& all) {
  std::size_t most = 0;
  for (const auto& subtrees : all) most = std::max(most, subtrees.size());
  return most;
}

}  // namespace

struct ParameterExchange::State {
  State(Communicator& parent, std::size_t leaves, std::size_t element_count,
        const Options& options);
  ~State() { stop_thread(); }

  void stop_thread();

  void arrange(Communicator& parent, const Options& options);
  void set_hierarchy(const Hierarchy& hierarchy);
  void plan_buckets(const Options& options);
  bool advance();
  void drive_in_background();
  template <typename Done>
  void wait_until(const Done& done);
  void transfer(std::size_t peer, std::span<const float> out, std::span<float> in);
  [[noreturn]] void run_out_of_time(double seconds) const;
  bool moved_before(std::size_t end) const;
  bool all_done() const { return flags->done() && first_open == buckets.size(); }
  bool outstanding() const;

  std::size_t rank;
  std::size_t ranks;
  std::size_t elements;
  std::string why_not_shared;
  ExchangeState shared;
  detail::NodeMemory memory;
  std::optional<Communicator> communicator;  // none with one rank
  std::optional<detail::FlagExchange> flags;
  std::vector<BucketExchange> buckets;
  std::size_t first_open = 0;  // no bucket before it is under way
  detail::AlignedFloats staging;
  detail::Requests gathering;

  // Whoever drives the exchange holds the lock, and with it the right to call MPI.
  std::mutex lock;
  std::exception_ptr error;               // of the thread, for the caller
  std::atomic<std::uint64_t> begun{0};    // steps; the thread sleeps until there is another one
  std::atomic<bool> caller_waits{false};  // and drives, so the thread need not
  std::atomic<bool> stopping{false};
  std::thread thread;
};

ParameterExchange::State::State(Communicator& parent, std::size_t leaves, std::size_t element_count,
                                const Options& options)
    : rank(parent.rank()), ranks(parent.size()), elements(element_count), shared(leaves) {
  if (ranks > leaves) {
    throw std::invalid_argument(std::to_string(ranks) + " ranks are more than the " +
                                std::to_string(leaves) +
                                " leaves of a batch: start fewer ranks or set more leaves");
  }
  if (ranks > 1) {
    communicator = parent.duplicate();
    shared.communicator = &communicator->state();
  }
  arrange(parent, options);
  plan_buckets(options);
  shared.leaf_present.resize(leaves);
  if (ranks > 1 && buckets.size() > 1 && options.thread) {
    thread = std::thread([this] { drive_in_background(); });
  }
}

void ParameterExchange::State::stop_thread() {
  if (!thread.joinable()) return;
  stopping = true;
  begun.fetch_add(1);
  begun.notify_one();
  thread.join();
}

// Who shares memory with whom, and the memory.
void ParameterExchange::State::arrange(Communicator& parent, const Options& options) {
  const auto& node_of = parent.state().node_of;
  const Hierarchy alone = detail::hierarchy_of_groups(1, ranks, rank);
  if (options.group_ranks > 0) {
    set_hierarchy(detail::hierarchy_of_groups(options.group_ranks, ranks, rank));
  } else {
    set_hierarchy(options.shared_memory ? detail::hierarchy_of(node_of, rank) : alone);
    if (options.shared_memory && shared.hierarchy.members == 1 && parent.local_size() > 1) {
      why_not_shared = "the nodes have different numbers of ranks";
    }
  }
  const auto layout = [&] {
    return SegmentLayout{buckets_of(elements, options.buckets).size(), elements,
                         most_subtrees(shared.subtrees_of_member)};
  };
  if (shared.hierarchy.members > 1) {
    why_not_shared = memory.share(*communicator, shared.hierarchy, layout().bytes());
    if (!why_not_shared.empty()) set_hierarchy(alone);
  }
  if (shared.hierarchy.members == 1) memory = detail::NodeMemory(layout().bytes());
  for (std::size_t m = 0; m < shared.hierarchy.members; ++m) {
    shared.segments.emplace_back(layout(), memory.segment(m));
  }
}

void ParameterExchange::State::set_hierarchy(const Hierarchy& hierarchy) {
  shared.hierarchy = hierarchy;
  shared.subtrees_of_member.clear();
  shared.subtrees_of_group.clear();
  for (std::size_t m = 0; m < hierarchy.members; ++m) {
    const std::size_t r = hierarchy.rank_of(hierarchy.group, m);
    shared.subtrees_of_member.push_back(maximal_subtrees(leaves_of_rank(r, ranks, shared.leaves)));
  }
  for (std::size_t g = 0; g < hierarchy.groups; ++g) {
    shared.subtrees_of_group.push_back(
        maximal_subtrees(detail::leaves_of_group(hierarchy, g, shared.leaves)));
  }
}

void ParameterExchange::State::plan_buckets(const Options& options) {
  const std::size_t groups = shared.hierarchy.groups;
  const bool power_of_two = std::has_single_bit(groups);
  if (options.way == Way::pairwise && !power_of_two) {
    throw std::invalid_argument("pairwise exchange wants a power of two of nodes");
  }
  const auto cut = buckets_of(elements, options.buckets);
  flags.emplace(shared);
  buckets.reserve(cut.size());
  std::size_t slot_size = 0;
  for (std::size_t b = 0; b < cut.size(); ++b) {
    const bool replicated = ranks > 1 && cut[b].size() * sizeof(float) <= options.replicated_bytes;
    const bool pairwise = groups > 1 && power_of_two && options.way != Way::direct;
    buckets.emplace_back(shared, BucketPlan{b, cut[b], replicated, pairwise});
    slot_size = std::max(slot_size, buckets.back().slot_size());
  }
  first_open = buckets.size();
  if (groups == 1) return;
  for (std::size_t i = 0; i < std::min(kMostSlots, buckets.size()); ++i) {
    shared.slots.push_back({detail::AlignedFloats(slot_size), false});
  }
}

// Buckets take slots in the order of backward, the same on all ranks: so the one that another rank waits
// for is never held up by later ones.
bool ParameterExchange::State::advance() {
  bool further = flags->advance();
  shared.flags_known = flags->done();
  for (std::size_t b = first_open; b < buckets.size(); ++b) {
    further = buckets[b].advance() || further;
    if (buckets[b].waits_for_gradients()) break;
  }
  while (first_open < buckets.size() && buckets[first_open].done()) ++first_open;
  return further;
}

void ParameterExchange::State::drive_in_background() {
  std::uint64_t seen = 0;
  while (!stopping) {
    begun.wait(seen);
    seen = begun;
    for (bool idle = false; !idle && !stopping;) {
      bool further = false;
      if (!caller_waits && lock.try_lock()) {
        const std::lock_guard held(lock, std::adopt_lock);
        try {
          further = error == nullptr && advance();
        } catch (...) {
          error = std::current_exception();
        }
        idle = error != nullptr || all_done();
      }
      if (!further && !idle) std::this_thread::sleep_for(kNap);
    }
  }
}

bool ParameterExchange::State::moved_before(std::size_t end) const {
  for (std::size_t b = first_open; b < buckets.size(); ++b) {
    if (!buckets[b].done() && buckets[b].plan().bucket.begin < end) return false;
  }
  return true;
}

bool ParameterExchange::State::outstanding() const {
  return (flags && flags->outstanding()) || gathering.outstanding() ||
         std::any_of(buckets.begin(), buckets.end(),
                     [](const BucketExchange& bucket) { return bucket.outstanding(); });
}

// The time limit counts from when something last came.
template <typename Done>
void ParameterExchange::State::wait_until(const Done& done) {
  caller_waits = true;
  const std::lock_guard held(lock);
  try {
    if (error) std::rethrow_exception(error);
    detail::Backoff backoff;
    for (bool further = advance(); !done(); further = advance()) {
      assert(ranks > 1 && "a rank alone waits for nobody: final_from() is missing");
      if (further) {
        backoff = {};
      } else if (backoff.pause()) {
        detail::look_for_alarm(*shared.communicator->session, detail::Heed::all_alarms);
        if (backoff.seconds() > communicator->timeout()) run_out_of_time(backoff.seconds());
      }
    }
  } catch (...) {
    stopping = true;
    error = std::current_exception();
    detail::give_up(*shared.communicator);
  }
  caller_waits = false;
}

// Sends or receives, through memory of this object.
void ParameterExchange::State::transfer(std::size_t peer, std::span<const float> out,
                                        std::span<float> in) {
  if (staging.size() == 0) staging = detail::AlignedFloats(kGatheredAtOnce);
  detail::check_usable(*shared.communicator, "gathering moments");
  MPI_Comm comm = shared.communicator->comm;
  gathering.clear();
  if (in.empty()) {
    std::ranges::copy(out, staging.data());
    gathering.send(comm, staging.data(), out.size_bytes(), peer, detail::gather_tag);
  } else {
    gathering.receive(comm, staging.data(), in.size_bytes(), peer, detail::gather_tag);
  }
  detail::wait_all(*shared.communicator, gathering, "gathering moments");
  std::copy_n(staging.data(), in.size(), in.begin());
}

void ParameterExchange::State::run_out_of_time(double seconds) const {
  std::string what = "flags";
  std::string missing = flags->missing();
  if (flags->done() && first_open < buckets.size()) {
    const BucketExchange& bucket = buckets[first_open];
    what = "bucket " + std::to_string(first_open + 1) + " of " + std::to_string(buckets.size()) +
           ", " + bucket.stage_name();
    missing = bucket.missing();
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", seconds);
  throw CommError("no answer from " + missing + " in the gradient exchange of step " +
                  std::to_string(shared.step) + " (" + what + "): rank " + std::to_string(rank) +
                  " has waited " + text + " s");
}

ParameterExchange::ParameterExchange(Communicator& communicator, std::size_t leaves,
                                     std::size_t elements)
    : ParameterExchange(communicator, leaves, elements, Options{}) {}

ParameterExchange::ParameterExchange(Communicator& communicator, std::size_t leaves,
                                     std::size_t elements, const Options& options)
    : state_(std::make_unique<State>(communicator, leaves, elements, options)) {}

// Messages that are under way keep their memory, but not the thread.
ParameterExchange::~ParameterExchange() {
  if (!state_) return;
  state_->stop_thread();
  if (state_->outstanding()) detail::keep_forever(std::shared_ptr<State>(std::move(state_)));
}

ParameterExchange::ParameterExchange(ParameterExchange&& other) noexcept = default;

ParameterExchange& ParameterExchange::operator=(ParameterExchange&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

std::span<float> ParameterExchange::parameters() {
  return {state_->shared.own_segment().parameters(), state_->elements};
}

std::span<const float> ParameterExchange::parameters() const {
  return {state_->shared.own_segment().parameters(), state_->elements};
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
    const BucketPlan& plan = bucket->plan();
    const Shard shard = plan.replicated ? shard_of(rank, state_->ranks, plan.bucket)
                                        : detail::shard_of_rank(plan, seen_by_it);
    if (shard.size() > 0) ranges.push_back(shard);
  }
  return ranges;
}

void ParameterExchange::set_move(Move move) {
  ExchangeState* shared = &state_->shared;
  const detail::FlagExchange* flags = &*state_->flags;
  shared->move = [move = std::move(move), flags](std::size_t begin, std::span<const float> sum) {
    move(begin, sum, static_cast<unsigned>(flags->raised()));
  };
}

void ParameterExchange::begin(std::span<const std::uint8_t> leaf_present, unsigned raise) {
  State& s = *state_;
  if (leaf_present.size() != s.shared.leaves) {
    throw std::invalid_argument("leaf_present has " + std::to_string(leaf_present.size()) +
                                " flags for " + std::to_string(s.shared.leaves) + " leaves");
  }
  if (s.communicator) detail::check_usable(*s.shared.communicator, "gradient exchange");
  {
    const std::lock_guard held(s.lock);
    assert(s.all_done());
    ++s.shared.step;
    s.shared.final_from = s.elements;
    std::ranges::copy(leaf_present, s.shared.leaf_present.begin());
    s.first_open = 0;
    s.flags->begin(raise);
    for (BucketExchange& bucket : s.buckets) bucket.begin();
  }
  s.begun.store(s.shared.step);
  if (s.thread.joinable()) s.begun.notify_one();
}

void ParameterExchange::final_from(std::size_t begin) {
  state_->shared.final_from.store(begin, std::memory_order_release);
}

// Done from the start: one advance.
void ParameterExchange::progress() {
  state_->wait_until([] { return true; });
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
      for (std::size_t begin = shard.begin; begin < shard.end; begin += kGatheredAtOnce) {
        const std::size_t count = std::min(kGatheredAtOnce, shard.end - begin);
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
    const bool pairwise = !s.buckets.empty() && s.buckets.front().plan().pairwise;
    text += ", messages between " + std::to_string(h.groups) +
            (h.members > 1 ? " nodes" : " ranks") +
            (pairwise ? " pair by pair" : " from each to each");
  }
  return text;
}

}  // namespace lockstep::comm

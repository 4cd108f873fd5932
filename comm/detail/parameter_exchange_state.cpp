#include "comm/detail/parameter_exchange_state.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include "comm/error.hpp"

namespace lockstep::comm {

using detail::BucketExchange;
using detail::BucketPlan;
using detail::Hierarchy;
using detail::SegmentLayout;

namespace {

constexpr std::size_t kMostSlots = 4;
// How long the exchange's thread sleeps when nothing has come while the rank computes: at first
// about as long as a round of messages takes, then longer. Waking up takes the core from a kernel,
// whose caches and registers it disturbs: every 50 microseconds that cost a sixth of all computing.
constexpr std::chrono::microseconds kShortestNap{50};
constexpr std::chrono::microseconds kLongestNap{1000};

std::size_t most_subtrees(const std::vector<std::vector<Subtree>>& all) {
  std::size_t most = 0;
  for (const auto& subtrees : all) most = std::max(most, subtrees.size());
  return most;
}

}  // namespace

ParameterExchange::State::State(Communicator& parent, std::size_t leaves, std::size_t element_count,
                                const Options& options)
    : rank(parent.rank()),
      ranks(parent.size()),
      elements(element_count),
      extra(options.extra),
      shared(leaves),
      lock(parent.state().session->calls_mpi) {
  if (ranks > leaves) {
    throw std::invalid_argument(std::to_string(ranks) + " ranks are more than the " +
                                std::to_string(leaves) +
                                " leaves of a batch: start fewer ranks or set more leaves");
  }
  if (ranks > 1) {
    communicator = parent.duplicate();
    shared.communicator = &communicator->state();
  }
  shared.round_messages = options.round_messages;
  shared.always_apart = options.always_apart;
  arrange(parent, options);
  plan_buckets(options);
  shared.leaf_present.resize(leaves);
  const bool wanted = options.thread == Thread::always ||
                      (options.thread == Thread::between_nodes && shared.hierarchy.groups > 1);
  if (ranks > 1 && buckets.size() > 1 && wanted) {
    thread = std::thread([this] { drive_in_background(); });
  }
  // Last: the session must not ask an object whose construction failed.
  watched = communicator && options.watched;
  if (watched) {
    shared.communicator->session->look_at = [this](std::size_t other) { return look_at(other); };
  }
}

void ParameterExchange::State::stop_thread() {
  if (!thread.joinable()) return;
  stopping = true;
  begun.fetch_add(1);
  begun.notify_one();
  thread.join();
}

void ParameterExchange::State::arrange(Communicator& parent, const Options& options) {
  const auto& node_of = parent.state().node_of;
  const Hierarchy alone = detail::hierarchy_of_groups(1, ranks, rank);
  if (options.group_ranks > 0) {
    set_hierarchy(detail::hierarchy_of_groups(options.group_ranks, ranks, rank));
  } else {
    set_hierarchy(options.shared_memory ? detail::hierarchy_of(node_of, rank) : alone);
    const bool some_share_a_node =
        std::ranges::adjacent_find(node_of) != node_of.end();  // the same on all ranks
    if (options.shared_memory && shared.hierarchy.members == 1 && some_share_a_node) {
      why_not_shared = "the nodes have different numbers of ranks";
    }
  }
  const auto layout = [&] {
    return SegmentLayout{.buckets = buckets_of(elements, options.buckets, options.cuts).size(),
                         .elements = elements + extra,
                         .partials = most_subtrees(shared.subtrees_of_member),
                         .words = 1 + chunks_in(elements)};
  };
  if (shared.hierarchy.members > 1) {
    why_not_shared = memory.share(*communicator, shared.hierarchy, layout().bytes());
    if (!why_not_shared.empty()) set_hierarchy(alone);
  }
  segment_bytes = layout().bytes();
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
  if (options.way == Way::recursive && !power_of_two) {
    throw std::invalid_argument("recursive exchange wants a power of two of nodes");
  }
  const auto cut = buckets_of(elements, options.buckets, options.cuts);
  flags.emplace(shared);
  buckets.reserve(cut.size());
  std::size_t slot_size = 0;
  for (std::size_t b = 0; b < cut.size(); ++b) {
    const bool replicated = ranks > 1 && cut[b].size() * sizeof(float) <= options.replicated_bytes;
    const bool recursive = groups > 1 && power_of_two && options.way != Way::direct;
    buckets.emplace_back(shared, BucketPlan{b, cut[b], replicated, recursive});
    slot_size = std::max(slot_size, buckets.back().slot_size());
  }
  first_open = buckets.size();
  if (groups == 1) return;
  for (std::size_t i = 0; i < std::min(kMostSlots, buckets.size()); ++i) {
    shared.slots.push_back({detail::AlignedFloats(slot_size), false});
  }
}

// Buckets take slots in the order of backward, the same on all ranks: so the one that another rank
// waits for is never held up by later ones.
bool ParameterExchange::State::advance() {
  bool further = flags->advance();
  shared.flags_known = flags->done();
  for (std::size_t b = first_open; b < buckets.size(); ++b) {
    further = buckets[b].advance() || further;
    if (buckets[b].waits_for_gradients()) break;
  }
  further = further || land_one();
  while (first_open < buckets.size() && buckets[first_open].done()) ++first_open;
  if (!further) note_idle_links();
  return further;
}

void ParameterExchange::State::note_idle_links() {
  const auto on_its_way = [](const BucketExchange& bucket) { return bucket.on_its_way(); };
  if (std::any_of(buckets.begin() + first_open, buckets.end(), on_its_way)) return;
  for (BucketExchange& bucket : buckets) bucket.note_idle_links();
}

// When backward is done a rank waits for what its last gradients become, and has time for copies;
// before, they would hold up computing. From the parameters that the next forward pass wants first.
bool ParameterExchange::State::land_one() {
  if (shared.movable_from.load(std::memory_order_acquire) > 0) return false;
  for (std::size_t b = buckets.size(); b-- > first_open;) {
    if (buckets[b].land()) return true;
  }
  return false;
}

void ParameterExchange::State::drive_in_background() {
  std::uint64_t seen = 0;
  while (!stopping) {
    begun.wait(seen);
    seen = begun;
    std::chrono::microseconds nap = kShortestNap;
    for (bool idle = false; !idle && !stopping;) {
      bool further = false;
      if (!caller_waits) {
        const std::lock_guard held(lock);
        try {
          further = error == nullptr && advance();
        } catch (...) {
          error = std::current_exception();
        }
        idle = error != nullptr || all_done();
      }
      if (further) {
        nap = kShortestNap;
      } else if (!idle) {
        std::this_thread::sleep_for(nap);
        nap = std::min(2 * nap, kLongestNap);
      }
    }
  }
}

bool ParameterExchange::State::moved_before(std::size_t end) const {
  for (std::size_t b = first_open; b < buckets.size(); ++b) {
    if (!buckets[b].done() && buckets[b].plan().bucket.begin < end) return false;
  }
  return true;
}

// For the message, should this or another rank give up.
void ParameterExchange::State::note_status() {
  if (!watched) return;
  detail::Status& status = shared.communicator->session->status;
  status.step = shared.step;
  status.bucket = first_open < buckets.size() ? first_open + 1 : 0;
  status.buckets = buckets.size();
}

// What the memory of a rank of this node says of it, also when it is stopped.
std::string ParameterExchange::State::look_at(std::size_t other) const {
  const Hierarchy& h = shared.hierarchy;
  if (h.members == 1 || other / h.members != h.group) return "";
  const detail::Segment& segment = shared.segments[other % h.members];
  detail::Status status;
  status.phase = segment.phase();
  status.step = segment.begun();
  std::size_t given = 0;
  while (given < buckets.size() && segment.summed(given) >= status.step) ++given;
  return "; its memory says: " + status.text() + ", gradients of " + std::to_string(given) +
         " of " + std::to_string(buckets.size()) + " buckets given";
}

bool ParameterExchange::State::outstanding() const {
  return (flags && flags->outstanding()) || gathering.outstanding() ||
         std::any_of(buckets.begin(), buckets.end(),
                     [](const BucketExchange& bucket) { return bucket.outstanding(); });
}

// The lock is let go between looks, for the threads of other exchanges.
void ParameterExchange::State::wait_until(const std::function<bool()>& done) {
  caller_waits = true;
  detail::Backoff backoff;
  bool idle = false;  // what is done here for others is no waiting
  double idle_since = 0;
  for (bool look = false;; look = backoff.pause()) {
    const std::lock_guard held(lock);
    try {
      if (error) std::rethrow_exception(error);
      const double now = idle ? MPI_Wtime() : 0;
      const bool further = advance();
      const bool finished = done();
      if (further) backoff = {};
      if (idle && (further || finished)) {
        seconds_waited += now - idle_since;
        idle = false;
      }
      if (finished) break;
      assert(ranks > 1 && "a rank alone waits for nobody: final_from() is missing");
      if (!further && !idle) {
        for (BucketExchange& bucket : buckets) bucket.note_wait();
        idle = true;
        idle_since = MPI_Wtime();
      }
      if (!look) continue;
      note_status();
      detail::look_for_alarm(*shared.communicator->session, detail::Heed::all_alarms);
      if (backoff.seconds() > communicator->timeout()) run_out_of_time(backoff.seconds());
    } catch (...) {
      error = std::current_exception();
      if (!communicator) throw;  // what moves parameters has failed, and nobody else waits
      note_status();
      detail::give_up(*shared.communicator);
    }
  }
  caller_waits = false;
}

void ParameterExchange::State::transfer(std::size_t peer, std::span<const float> out,
                                        std::span<float> in) {
  if (staging.size() == 0) staging = detail::AlignedFloats(most_transferred);
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

std::string ParameterExchange::State::ranks_without_post() const {
  const Hierarchy& h = shared.hierarchy;
  std::vector<std::size_t> missing;
  for (std::size_t m = 0; m < h.members; ++m) {
    if (!boards.is_posted(m, *place, shared.step)) missing.push_back(h.rank_of(h.group, m));
  }
  return detail::name_ranks(missing);
}

void ParameterExchange::State::run_out_of_time(double seconds) const {
  std::string what = "flags";
  std::string missing = flags->missing();
  if (flags->done() && place) {
    what = "waiting for the factors of gradients";
    missing = ranks_without_post();
  } else if (flags->done() && first_open < buckets.size()) {
    const BucketExchange& bucket = buckets[first_open];
    what = "bucket " + std::to_string(first_open + 1) + " of " + std::to_string(buckets.size()) +
           ", " + bucket.stage_name();
    missing = bucket.missing();
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", seconds);
  throw CommError("rank " + std::to_string(rank) + " has waited " + text + " s for " + missing +
                  " in the gradient exchange of step " + std::to_string(shared.step) + " (" + what +
                  ")");
}

}  // namespace lockstep::comm

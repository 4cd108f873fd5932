// What the doctor finds wrong, as plain values. Pure; thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

enum class FindingKind {
  squeezed,        // a rank's threads have fewer processors than they are
  overlapping,     // ranks are bound to the same few processors, while others of the host are free
  oversubscribed,  // a host's processors are fewer than its ranks' threads
  over_quota,      // the control group gives less time than the threads want
  bound,           // the ranks of a host are kept off most of its cores
  idle_cores,      // they may use them, and have too few threads
  uneven_threads,  // ranks have different numbers of threads
  mixed_instructions,  // ranks compute with different instruction sets
  scattered,           // the ranks of a host are not neighbours in rank order
  disturbed,           // other processes, or the hypervisor, take processor time
  slow_together,       // threads are slow when all work at once, though each has a processor
  straggler,           // a rank computes much slower than the fastest
  slow_inside,         // messages within a host are slow
  slow_between,        // messages between hosts are slow
};

// As they are written to JSON.
inline constexpr std::array<std::string_view, 14> kFindingNames = {
    "squeezed",      "overlapping",    "oversubscribed",     "over_quota",  "bound",
    "idle_cores",    "uneven_threads", "mixed_instructions", "scattered",   "disturbed",
    "slow_together", "straggler",      "slow_inside",        "slow_between"};

constexpr std::string_view name_of(FindingKind kind) {
  return kFindingNames[static_cast<std::size_t>(kind)];
}

// One sentence each, without a full stop; all ranks and hosts that have it share one finding.
struct Finding {
  FindingKind kind;
  std::string what;    // is wrong
  std::string cost;    // of it
  std::string remedy;  // a command line or setting that mends it
};

// {0, 1, 2, 5} as "0-2,5", as the system's own lists of processors are written; ascending. With
// `most`, what is beyond that many ranges becomes "...".
std::string list_text(std::span<const std::size_t> numbers, std::size_t most = SIZE_MAX);

// "rank 3" or "ranks 0-2,5".
std::string ranks_text(std::span<const std::size_t> ranks);

// "1 thread", "4 threads"; many: its plural, where that is not with an s.
std::string count_text(std::size_t count, std::string_view one, std::string_view many = {});

}  // namespace lockstep::trainer

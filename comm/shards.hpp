// How a flat range of floats is shared out among ranks: one contiguous shard each.
//
// Plain functions of their arguments; thread-safe; local; no MPI.
#pragma once

#include <cstddef>

namespace lockstep::comm {

// Elements begin..end-1.
struct Shard {
  std::size_t begin;
  std::size_t end;
  std::size_t size() const { return end - begin; }
  bool operator==(const Shard&) const = default;
};

// A shard starts at a multiple of this many floats, which is 64 bytes: no two shards share a cache
// line or one vector of 16 lanes.
inline constexpr std::size_t shard_alignment = 16;

// The shard of `rank` among `ranks`: disjoint, in rank order, covering [0, elements), of sizes that
// differ by less than 2*shard_alignment; some are empty when elements are few.
Shard shard_of(std::size_t rank, std::size_t ranks, std::size_t elements);

}  // namespace lockstep::comm

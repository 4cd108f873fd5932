// How a flat range of floats is cut: into buckets, which are communicated as one message, and each
// bucket into shards, one for each rank, which finishes the sum there and keeps the optimizer's
// moments for it.
//
// Every cut but the end of the whole is a multiple of `chunk` floats. Plain functions of their
// arguments; thread-safe; local; no MPI.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace lockstep::comm {

// Elements begin..end-1.
struct Shard {
  std::size_t begin;
  std::size_t end;
  std::size_t size() const { return end - begin; }
  bool operator==(const Shard&) const = default;
};

// Floats that are summed at a time, and no two ranks share: 4 KiB, a page of memory, so that the
// moments of the shards of other ranks take none.
inline constexpr std::size_t chunk = 1024;

// Whole chunks that so many floats take, the last of which may be shorter.
constexpr std::size_t chunks_in(std::size_t floats) {
  return floats / chunk + (floats % chunk != 0);
}

// Calls with the first element and the number of elements of each chunk of a range, which starts at
// a multiple of `chunk`.
template <typename Call>
void for_each_chunk(Shard range, const Call& call) {
  for (std::size_t begin = range.begin; begin < range.end; begin += chunk) {
    call(begin, std::min(chunk, range.end - begin));
  }
}

// The shard of `rank` among `ranks` of `whole`, which starts at a multiple of `chunk`: disjoint, in
// rank order, covering it, of sizes that differ by less than 2 chunks; some are empty when chunks
// are few.
Shard shard_of(std::size_t rank, std::size_t ranks, Shard whole);

struct BucketSizes {
  // Bytes; rounded up to whole chunks, at most `largest`. The first bucket is the one that backward
  // fills first: a small one, so that the ranks begin to talk early.
  std::size_t first = std::size_t{1} << 20;
  std::size_t others = std::size_t{1} << 20;
  static constexpr std::size_t largest = std::size_t{1} << 30;
};

// [0, elements) in the order in which backward fills it: from the end to the beginning. No bucket
// goes on beyond the chunk that holds an element of `cuts`, in ascending order.
std::vector<Shard> buckets_of(std::size_t elements, const BucketSizes& sizes,
                              std::span<const std::size_t> cuts = {});

}  // namespace lockstep::comm

#include "comm/shards.hpp"

#include <algorithm>
#include <cassert>
#include <stdexcept>

namespace lockstep::comm {
namespace {

std::size_t bucket_chunks(std::size_t bytes) {
  if (bytes == 0 || bytes > BucketSizes::largest) {
    throw std::invalid_argument("a bucket must have 1 to 2^30 bytes");
  }
  return chunks_in((bytes + sizeof(float) - 1) / sizeof(float));
}

}  // namespace

Shard shard_of(std::size_t rank, std::size_t ranks, Shard whole) {
  assert(rank < ranks && whole.begin % chunk == 0);
  const std::size_t chunks = chunks_in(whole.size());
  const auto boundary = [&](std::size_t r) {
    return std::min(whole.end, whole.begin + r * chunks / ranks * chunk);
  };
  return {boundary(rank), boundary(rank + 1)};
}

std::vector<Shard> buckets_of(std::size_t elements, const BucketSizes& sizes,
                              std::span<const std::size_t> cuts) {
  const std::size_t first = bucket_chunks(sizes.first);
  const std::size_t others = bucket_chunks(sizes.others);
  std::vector<Shard> buckets;
  std::size_t end = elements;
  while (end > 0) {
    while (!cuts.empty() && cuts.back() / chunk * chunk >= end) cuts = cuts.first(cuts.size() - 1);
    const std::size_t begin_of_all = cuts.empty() ? 0 : cuts.back() / chunk;
    const std::size_t chunks = chunks_in(end);
    const std::size_t size = std::min(chunks - begin_of_all, buckets.empty() ? first : others);
    const std::size_t begin = (chunks - size) * chunk;
    buckets.push_back({begin, end});
    end = begin;
  }
  return buckets;
}

}  // namespace lockstep::comm

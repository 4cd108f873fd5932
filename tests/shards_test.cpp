#include "comm/shards.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>

namespace lockstep::comm {
namespace {

TEST(Shards, DisjointCoveringAlignedAndEven) {
  for (std::size_t elements = 0; elements < 700; ++elements) {
    for (const std::size_t ranks : std::initializer_list<std::size_t>{1, 2, 3, 5, 8, 17}) {
      std::size_t next = 0;
      std::size_t smallest = elements;
      std::size_t largest = 0;
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        const Shard shard = shard_of(rank, ranks, elements);
        EXPECT_EQ(shard.begin, next);
        EXPECT_LE(shard.begin, shard.end);
        EXPECT_TRUE(shard.begin % shard_alignment == 0 || shard.begin == elements);
        smallest = std::min(smallest, shard.size());
        largest = std::max(largest, shard.size());
        next = shard.end;
      }
      EXPECT_EQ(next, elements);
      EXPECT_LT(largest - smallest, 2 * shard_alignment);
    }
  }
}

}  // namespace
}  // namespace lockstep::comm

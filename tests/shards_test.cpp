#include "comm/shards.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <stdexcept>

namespace lockstep::comm {
namespace {

TEST(Shards, DisjointCoveringAlignedAndEven) {
  for (std::size_t elements = 0; elements < 40 * chunk; elements += 123) {
    for (const std::size_t ranks : std::initializer_list<std::size_t>{1, 2, 3, 5, 8, 17}) {
      const std::size_t begin = elements % 3 * chunk;
      std::size_t next = begin;
      std::size_t smallest = elements;
      std::size_t largest = 0;
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        const Shard shard = shard_of(rank, ranks, {begin, begin + elements});
        EXPECT_EQ(shard.begin, next);
        EXPECT_LE(shard.begin, shard.end);
        EXPECT_TRUE(shard.begin % chunk == 0 || shard.begin == begin + elements);
        smallest = std::min(smallest, shard.size());
        largest = std::max(largest, shard.size());
        next = shard.end;
      }
      EXPECT_EQ(next, begin + elements);
      EXPECT_LT(largest - smallest, 2 * chunk);
    }
  }
}

TEST(Buckets, CoverAllFromTheEndAndStartWithASmallOne) {
  constexpr BucketSizes sizes{4096 * 2, 4096 * 5};
  for (std::size_t elements = 0; elements < 40 * chunk; elements += 123) {
    std::size_t end = elements;
    for (const Shard& bucket : buckets_of(elements, sizes)) {
      const std::size_t most = (end == elements ? sizes.first : sizes.others) / sizeof(float);
      EXPECT_EQ(bucket.end, end);
      EXPECT_EQ(bucket.begin % chunk, 0);
      EXPECT_GT(bucket.size(), 0);
      EXPECT_LE(bucket.size(), most);
      end = bucket.begin;
    }
    EXPECT_EQ(end, 0);
  }
  EXPECT_THROW(buckets_of(10, {0, 1}), std::invalid_argument);
}

TEST(Shards, BucketsEndWhereTheyAreCut) {
  const std::vector<std::size_t> cuts{0, 3 * chunk, 3 * chunk + 5, 7 * chunk - 1, 9 * chunk};
  const auto buckets = buckets_of(8 * chunk + 9, {1 << 20, 2 * chunk * sizeof(float)}, cuts);
  // 7 * chunk - 1 lies in the chunk from 6 on, which goes with what follows; the last cut lies
  // behind the end.
  const std::vector<Shard> expected{{6 * chunk, 8 * chunk + 9},
                                    {4 * chunk, 6 * chunk},
                                    {3 * chunk, 4 * chunk},
                                    {chunk, 3 * chunk},
                                    {0, chunk}};
  EXPECT_EQ(buckets, expected);
}

TEST(Shards, BucketsHaveAllowedSizes) {
  EXPECT_THROW(buckets_of(10, {1, std::size_t{1} << 31}), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::comm

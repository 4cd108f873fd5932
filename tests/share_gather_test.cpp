// Numbers of every rank's share come to all ranks, in their places.
#include "trainer/share_gather.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>

#include "comm_main.hpp"

namespace lockstep::trainer {
namespace {

using comm::test::world;

// So many belong to the elements before one: two to the first chunk, three to the second, ….
std::size_t numbers_before(std::size_t element) {
  const std::size_t chunks = (element + comm::chunk - 1) / comm::chunk;
  return chunks * (chunks + 3) / 2;
}

// Buckets that every rank moves, buckets with shards, and shards that are empty.
TEST(ShareGather, EveryRankGetsAllNumbers) {
  for (const std::size_t elements : std::initializer_list<std::size_t>{0, 700, 5000, 40'000}) {
    for (const std::size_t bucket : std::initializer_list<std::size_t>{4096, 65536}) {
      const comm::ParameterExchange exchange(world(), 8, elements,
                                             {.buckets = {4096, bucket}, .replicated_bytes = 8192});
      ShareGather gather(exchange, world(), numbers_before);
      for (const double step : {1000.0, 2000.0}) {
        std::vector<double> expected(numbers_before(elements));
        for (std::size_t i = 0; i < expected.size(); ++i) {
          expected[i] = step + static_cast<double>(i);
        }
        std::vector<double> numbers(expected.size(), -1);
        for (const comm::Shard& shard : exchange.share_of(world().rank())) {
          const std::size_t begin = numbers_before(shard.begin);
          std::copy_n(expected.begin() + static_cast<std::ptrdiff_t>(begin),
                      numbers_before(shard.end) - begin,
                      numbers.begin() + static_cast<std::ptrdiff_t>(begin));
        }
        if (world().size() > 1 && elements > 5000 && bucket > 4096) {
          ASSERT_NE(numbers, expected) << "all were here before";
        }
        gather.gather(numbers);
        ASSERT_EQ(numbers, expected) << elements << " elements";
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::trainer

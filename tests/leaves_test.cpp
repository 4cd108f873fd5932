#include "trainer/leaves.hpp"

#include <gtest/gtest.h>

namespace lockstep::trainer {
namespace {

TEST(LeafBounds, CoverTheBatchInOrderAndEvenly) {
  for (const std::size_t leaves : {1u, 2u, 8u, 64u}) {
    LeafBounds bounds(leaves);
    for (const std::size_t samples : {1u, 2u, 3u, 7u, 8u, 9u, 100u, 1003u}) {
      EXPECT_TRUE(bounds.set_batch(samples));
      EXPECT_FALSE(bounds.set_batch(samples));
      EXPECT_EQ(bounds.begin(0), 0u);
      EXPECT_EQ(bounds.end(leaves - 1), samples);
      for (std::size_t l = 0; l < leaves; ++l) {
        EXPECT_EQ(bounds.begin(l), l == 0 ? 0 : bounds.end(l - 1));
        const std::size_t size = bounds.end(l) - bounds.begin(l);
        EXPECT_GE(size, samples / leaves);
        EXPECT_LE(size, samples / leaves + 1);
        EXPECT_EQ(bounds.present()[l], size > 0 ? 1 : 0);
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::trainer

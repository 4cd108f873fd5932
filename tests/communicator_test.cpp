#include "comm/communicator.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <initializer_list>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "comm/error.hpp"
#include "comm_main.hpp"

namespace lockstep::comm {
namespace {

using test::world;

TEST(Communicator, RanksAndNode) {
  EXPECT_LT(world().rank(), world().size());
  EXPECT_EQ(world().local_size(), world().size()) << "the test runs on one node";
  EXPECT_EQ(world().local_rank(), world().rank());
  EXPECT_TRUE(Session::active());
}

TEST(Communicator, BarrierWaitsForTheLast) {
  for (std::size_t late = 0; late < world().size(); ++late) {
    world().barrier();
    const auto start = std::chrono::steady_clock::now();
    if (world().rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(60));
    world().barrier();
    // Some slack: the others may leave the first barrier a little after the late one did.
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(20));
  }
}

TEST(Communicator, BroadcastOfEveryLengthFromEveryRoot) {
  for (const std::size_t length : std::initializer_list<std::size_t>{0, 1, 1000, 40000, 1000003}) {
    for (std::size_t root = 0; root < world().size(); ++root) {
      std::vector<std::byte> data(length);
      if (world().rank() == root) {
        for (std::size_t i = 0; i < length; ++i) data[i] = std::byte((i * 7 + root) % 251);
      }
      world().broadcast(data, root);
      for (std::size_t i = 0; i < length; ++i) {
        ASSERT_EQ(data[i], std::byte((i * 7 + root) % 251)) << i << " of " << length;
      }
    }
  }
}

TEST(Communicator, BroadcastOfTextOfUnknownLength) {
  for (std::size_t root = 0; root < world().size(); ++root) {
    const std::string expected(root * 50000, 'x');
    std::string text = world().rank() == root ? expected : "old";
    world().broadcast(text, root);
    EXPECT_EQ(text, expected);
  }
}

TEST(Communicator, GatherStringsOfEveryLength) {
  for (const std::size_t unit : std::initializer_list<std::size_t>{0, 1, 9000, 50000}) {
    const auto text = [&](std::size_t rank) {
      return std::string(rank * unit, static_cast<char>('a' + rank));
    };
    const std::vector<std::string> all = world().gather_strings(text(world().rank()));
    ASSERT_EQ(all.size(), world().size());
    for (std::size_t r = 0; r < all.size(); ++r) EXPECT_EQ(all[r], text(r));
  }
}

TEST(Communicator, AllGatherInRankOrder) {
  // Each rank in turn gives nothing, the others amounts around the size of one piece (2,048
  // doubles).
  for (std::size_t none = 0; none < world().size(); ++none) {
    std::vector<std::size_t> counts(world().size());
    for (std::size_t r = 0; r < counts.size(); ++r) counts[r] = r == none ? 0 : 2046 + r * r;
    std::vector<double> expected(std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
    std::iota(expected.begin(), expected.end(), 0.5);
    std::size_t begin = 0;
    for (std::size_t r = 0; r < world().rank(); ++r) begin += counts[r];
    const auto mine = std::span(expected).subspan(begin, counts[world().rank()]);
    std::vector<double> all(expected.size(), -1.0);
    world().all_gather(mine, counts, all);
    EXPECT_EQ(all, expected);
  }
}

TEST(Communicator, AllGatherRejectsCountsThatDoNotFit) {
  const std::vector<std::size_t> counts(world().size(), 2);
  std::vector<double> mine(2);
  std::vector<double> all(2 * world().size() + 1);
  EXPECT_THROW(world().all_gather(mine, counts, all), std::invalid_argument);
}

TEST(Communicator, AnyIsTrueIfOneIs) {
  EXPECT_FALSE(world().any(false));
  for (std::size_t r = 0; r < world().size(); ++r) EXPECT_TRUE(world().any(r == world().rank()));
}

TEST(Communicator, DuplicateHasMessagesOfItsOwn) {
  Communicator copy = world().duplicate();
  EXPECT_EQ(copy.rank(), world().rank());
  EXPECT_EQ(copy.local_size(), world().local_size());
  EXPECT_TRUE(copy.any(copy.rank() == 0));
}

TEST(Communicator, MovedFromIsNull) {
  Communicator copy = world().duplicate();
  const Communicator moved = std::move(copy);
  EXPECT_EQ(moved.size(), world().size());
}

TEST(Communicator, TimeLimitIsPositive) {
  EXPECT_THROW(world().set_timeout(0.0), std::invalid_argument);
  EXPECT_THROW(world().set_timeout(-1.0), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::comm

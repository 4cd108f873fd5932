#include "trainer/epoch_order.hpp"

#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include "datasets/sample_order.hpp"

namespace lockstep::trainer {
namespace {

constexpr std::uint64_t kSeed = 5;
constexpr std::size_t kBatch = 1000;

std::vector<std::uint32_t> some_rows(std::size_t count) {
  std::vector<std::uint32_t> rows;
  for (std::uint32_t i = 0; i < count; ++i) rows.push_back(3 * i + 1);
  return rows;
}

std::vector<std::uint32_t> all_of(const EpochOrder& order, std::uint64_t steps) {
  std::vector<std::uint32_t> all;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const auto batch = order.batch(step);
    all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

std::vector<std::uint32_t> expected(std::span<const std::uint32_t> rows, std::uint64_t epoch) {
  auto order = datasets::permutation(rows.size(), kSeed, datasets::Purpose::shuffle, epoch);
  for (std::uint32_t& row : order) row = rows[row];
  return order;
}

TEST(EpochOrder, IsAFunctionOfTheEpochAlone) {
  for (const std::size_t count : {1000u, 4500u, 10'001u}) {
    const auto rows = some_rows(count);
    for (const int threads : {1, 2, 4}) {
      tbb::task_arena(threads).execute([&] {
        EpochOrder order(rows, {.seed = kSeed, .batch_size = kBatch});
        // One after the other, the same again, back and ahead.
        for (const std::uint64_t epoch : {0u, 1u, 2u, 2u, 0u, 7u, 8u}) {
          order.begin(epoch);
          EXPECT_EQ(all_of(order, (count + kBatch - 1) / kBatch), expected(rows, epoch));
          EXPECT_TRUE(order.batch((count + kBatch - 1) / kBatch).empty());
        }
      });
    }
  }
}

TEST(EpochOrder, KnowsTheFirstStepOfTheNextEpochWhereOthersWork) {
  const auto rows = some_rows(10'001);
  for (const int threads : {1, 2}) {
    tbb::task_arena(threads).execute([&] {
      EpochOrder order(rows, {.seed = kSeed, .batch_size = kBatch});
      order.begin(3);
      const auto first = order.first_of_next_epoch();
      EXPECT_EQ(first.size(), threads == 1 ? 0 : kBatch);
      const std::vector<std::uint32_t> told(first.begin(), first.end());
      EXPECT_EQ(all_of(order, 11), expected(rows, 3));
      order.begin(4);
      if (threads == 1) return;
      const auto batch = order.batch(0);
      EXPECT_EQ(told, std::vector<std::uint32_t>(batch.begin(), batch.end()));
    });
  }
}

TEST(EpochOrder, WithoutShufflingIsThatOfTheRows) {
  const auto rows = some_rows(2500);
  EpochOrder order(rows, {.shuffle = false, .seed = kSeed, .batch_size = kBatch});
  for (const std::uint64_t epoch : {0u, 1u}) {
    order.begin(epoch);
    EXPECT_EQ(all_of(order, 3), rows);
    EXPECT_EQ(order.first_of_next_epoch().data(), rows.data());
  }
}

}  // namespace
}  // namespace lockstep::trainer

#include "trainer/input.hpp"

#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "small_dataset.hpp"

namespace lockstep::trainer {
namespace {

using Rows = std::vector<std::uint32_t>;

constexpr std::size_t kSamples = 50'000;
constexpr std::size_t kBatch = 20'000;  // of five numbers each: worth a task

const datasets::Dataset& data() {
  static const datasets::Dataset dataset = test::small_dataset(kSamples);
  return dataset;
}

nn::Network<float> small_network() {
  nn::LayerDescription layer;
  layer.dense.outputs = 3;
  return nn::Network<float>(5, std::span(&layer, 1), nn::Loss::cross_entropy);
}

Rows batch(std::uint32_t number, std::size_t size) {
  Rows rows;
  for (std::uint32_t i = 0; i < size; ++i) rows.push_back((number * 7919u + i * 31u) % kSamples);
  return rows;
}

class Steps {
 public:
  explicit Steps(std::size_t largest, bool ahead)
      : workspace_(network_, largest, false), input_(network_, data(), largest, ahead) {}

  void expect_brings(const Rows& rows, const Rows& next) {
    input_.bring(rows, next, workspace_);
    const auto inputs = workspace_.input();
    std::vector<float> sample(5);
    ASSERT_EQ(input_.targets().labels.size(), rows.size());
    for (std::size_t m = 0; m < rows.size(); ++m) {
      data().copy_sample(rows[m], sample.data());
      ASSERT_TRUE(std::equal(sample.begin(), sample.end(), inputs.row(m))) << m;
      ASSERT_EQ(input_.targets().labels[m], data().label(rows[m])) << m;
    }
  }
  const Input& input() const { return input_; }

 private:
  nn::Network<float> network_ = small_network();
  nn::Workspace<float> workspace_;
  Input input_;
};

TEST(Input, BringsTheSamplesWhoeverDecodesThem) {
  for (const int threads : {1, 2, 4}) {
    for (const bool ahead : {false, true}) {
      tbb::task_arena(threads).execute([&] {
        Steps steps(kBatch, ahead);
        for (std::uint32_t i = 0; i < 6; ++i) {
          steps.expect_brings(batch(i, kBatch), batch(i + 1, kBatch));
          EXPECT_EQ(steps.input().decodes_ahead(), ahead && threads > 1);
        }
        EXPECT_EQ(steps.input().times_ahead(), ahead && threads > 1 ? 5u : 0u);
      });
    }
  }
}

TEST(Input, WhatWasDecodedAheadInVainIsNotTaken) {
  tbb::task_arena(2).execute([&] {
    Steps steps(kBatch, true);
    steps.expect_brings(batch(0, kBatch), batch(1, kBatch));
    steps.expect_brings(batch(2, kBatch), batch(3, kBatch));
    EXPECT_EQ(steps.input().times_ahead(), 0u);
    Rows almost = batch(3, kBatch);
    almost.pop_back();
    steps.expect_brings(almost, {});
    steps.expect_brings(batch(4, kBatch), batch(5, kBatch));
    EXPECT_EQ(steps.input().times_ahead(), 0u);
    steps.expect_brings(batch(5, kBatch), {});
    EXPECT_EQ(steps.input().times_ahead(), 1u);
  });
}

TEST(Input, FewSamplesAreNotHandedOut) {
  tbb::task_arena(2).execute([&] {
    Steps steps(kBatch, true);
    for (std::uint32_t i = 0; i < 6; ++i) {
      steps.expect_brings(batch(i, 10), batch(i + 1, 10));
      EXPECT_FALSE(steps.input().decodes_ahead());
    }
    // The last batch of an epoch is often a small one.
    steps.expect_brings(batch(6, kBatch), batch(7, 10));
    steps.expect_brings(batch(7, 10), batch(8, kBatch));
    steps.expect_brings(batch(8, kBatch), {});
    EXPECT_EQ(steps.input().times_ahead(), 1u);
  });
}

TEST(Input, LeavesFewUpcomingSamplesToThePass) {
  const auto expect_upcoming = [](Steps& steps, std::span<const std::uint32_t> rows) {
    std::vector<const void*> lines(rows.size() * data().lines_of_sample());
    lines.resize(data().list_lines(rows, lines));
    EXPECT_TRUE(std::ranges::equal(steps.input().upcoming(), lines));
  };
  // Also after samples that another thread has decoded, when none decodes the next ones.
  tbb::task_arena(2).execute([&] {
    Steps ahead(kBatch, true);
    ahead.expect_brings(batch(0, kBatch), batch(1, kBatch));
    EXPECT_TRUE(ahead.input().upcoming().empty());
    ahead.expect_brings(batch(1, kBatch), batch(2, 10));
    EXPECT_EQ(ahead.input().times_ahead(), 1u);
    expect_upcoming(ahead, batch(2, 10));
  });
  Steps steps(kBatch, false);
  steps.expect_brings(batch(0, 10), batch(1, 10));
  expect_upcoming(steps, batch(1, 10));
  steps.expect_brings(batch(1, 10), batch(2, kBatch));
  EXPECT_TRUE(steps.input().upcoming().empty());
  steps.expect_brings(batch(2, kBatch), batch(3, 10));
  expect_upcoming(steps, batch(3, 10));
  steps.expect_brings(batch(3, 10), {});
  EXPECT_TRUE(steps.input().upcoming().empty());
}

}  // namespace
}  // namespace lockstep::trainer

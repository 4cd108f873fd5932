#include "trainer/background.hpp"

#include <gtest/gtest.h>
#include <tbb/parallel_for.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "nn/parallel.hpp"

namespace lockstep::trainer {
namespace {

void spin(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST(Background, IsDoneAfterWaiting) {
  for (const int threads : {1, 2, 4}) {
    tbb::task_arena(threads).execute([&] {
      EXPECT_EQ(nn::others_can_work(), threads > 1);
      Background background;
      for (int i = 0; i < 100; ++i) {
        std::atomic<bool> done = false;
        background.start([&] { done = true; });
        EXPECT_TRUE(background.under_way());
        background.wait();
        EXPECT_TRUE(done);
        EXPECT_FALSE(background.under_way());
        background.wait();
      }
    });
  }
}

TEST(Background, EndsBeforeItsObjectDoes) {
  tbb::task_arena(2).execute([&] {
    std::atomic<bool> done = false;
    {
      Background background;
      background.start([&] {
        spin(std::chrono::microseconds(2000));
        done = true;
      });
    }
    EXPECT_TRUE(done);
  });
}

TEST(Background, WhatItThrowsWaitThrowsAndTheDestructorSwallows) {
  tbb::task_arena(2).execute([&] {
    Background background;
    background.start([] { throw std::runtime_error("broken"); });
    EXPECT_THROW(background.wait(), std::runtime_error);
    background.start([] {});
    background.wait();
    Background dropped;
    dropped.start([] { throw std::runtime_error("broken"); });
  });
}

// Whoever waits for the parts of its own work would take up any other task that it finds.
TEST(Background, IsLeftAloneByWorkApartFromIt) {
  tbb::task_arena(2).execute([&] {
    const auto caller = std::this_thread::get_id();
    for (int i = 0; i < 300; ++i) {
      std::atomic<bool> waiting = false, taken_up_early = false;
      Background background;
      background.start([&] {
        taken_up_early = std::this_thread::get_id() == caller && !waiting;
        spin(std::chrono::microseconds(50));
      });
      apart_from_background(
          [&] { tbb::parallel_for(0, 8, [](int) { spin(std::chrono::microseconds(20)); }); });
      waiting = true;
      background.wait();
      ASSERT_FALSE(taken_up_early) << i;
    }
  });
}

}  // namespace
}  // namespace lockstep::trainer

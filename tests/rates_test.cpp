#include "trainer/doctor/rates.hpp"

#include <gtest/gtest.h>

namespace lockstep::trainer {
namespace {

void expect_sound(const Rate& rate, std::size_t threads) {
  EXPECT_GT(rate.slowest_thread, 0.0);
  EXPECT_GE(rate.total, rate.slowest_thread * static_cast<double>(threads) * 0.999);
  EXPECT_GT(rate.processor_share, 0.0);
  EXPECT_LE(rate.processor_share, 1.0);
}

TEST(Rates, ProductsAndMemoryAreMeasuredAndRight) {
  for (const std::size_t threads : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
    expect_sound(gemm_rate(threads, 0.02), threads);
    expect_sound(memory_rate(threads, 0.02, std::size_t{5} << 20), threads);
  }
}

TEST(Rates, AProcessorIsFasterThanNothing) {
  EXPECT_GT(gemm_rate(1, 0.05).total, 1e7);
  EXPECT_GT(memory_rate(1, 0.05, std::size_t{32} << 20).total, 1e6);
}

}  // namespace
}  // namespace lockstep::trainer

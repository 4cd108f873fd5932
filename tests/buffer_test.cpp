#include "nn/buffer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <set>
#include <utility>
#include <vector>

namespace lockstep::nn {
namespace {

constexpr std::size_t kLarge = std::size_t{1} << 20;  // floats: 4 MiB, which are mapped

std::uintptr_t address(const AlignedBuffer<float>& buffer) {
  return reinterpret_cast<std::uintptr_t>(buffer.data());
}

TEST(AlignedBuffer, IsAlignedAndZeroAtAnySize) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, kLarge, kLarge + 5}) {
    AlignedBuffer<float> buffer(size);
    EXPECT_EQ(address(buffer) % kAlignment, 0U) << size;
    EXPECT_EQ(buffer.size(), size);
    EXPECT_TRUE(std::ranges::all_of(buffer.span(), [](float x) { return x == 0; })) << size;
    std::ranges::fill(buffer.span(), 1.0F);  // all of it can be written
  }
}

TEST(AlignedBuffer, LargeOnesThatAreMadeTogetherBeginAtDifferentPlacesOfAPage) {
  std::vector<AlignedBuffer<float>> buffers;
  std::set<std::uintptr_t> places = {0};  // where parameters that ranks share begin
  for (int i = 0; i < 3; ++i) {           // parameters and two moments
    buffers.emplace_back(kLarge);
    places.insert(address(buffers.back()) % 4096);
  }
  EXPECT_EQ(places.size(), 1 + buffers.size());
  EXPECT_EQ(address(AlignedBuffer<float>(kLarge, Pages::small)) % 4096, 0U);
}

// Of this process, in pages.
std::size_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages;
}

TEST(AlignedBuffer, GivesBackAllThatItMapped) {
  const std::size_t before = address_space();
  for (int i = 0; i < 32; ++i) {
    AlignedBuffer<float> large(kLarge + static_cast<std::size_t>(i) * 500);
    large.data()[large.size() - 1] = 1;
    EXPECT_GT(address_space(), before);
    AlignedBuffer<float> moved = std::move(large);
  }
  EXPECT_EQ(address_space(), before);
}

}  // namespace
}  // namespace lockstep::nn

#include "comm/detail/rounded.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace lockstep::comm::detail {
namespace {

constexpr std::size_t kBlock = 1024;  // values on their way between the two forms

std::uint16_t rounded(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  const std::uint32_t nearest = bits + 0x7fffU + ((bits >> 16) & 1U);
  return static_cast<std::uint16_t>(is_nan ? (bits >> 16) | 0x40U : nearest >> 16);
}

float expanded(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

}  // namespace

// Forwards: what is written lies before what is still to be read.
void round_in_place(float* values, std::size_t count) {
  auto* out = reinterpret_cast<std::byte*>(values);
  std::array<std::uint16_t, kBlock> block;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = std::min(kBlock, count - begin);
    std::transform(values + begin, values + begin + size, block.begin(), rounded);
    std::memcpy(out + begin * sizeof(std::uint16_t), block.data(), size * sizeof(std::uint16_t));
  }
}

// Backwards, for the same reason.
void expand_in_place(float* values, std::size_t count) {
  const auto* in = reinterpret_cast<const std::byte*>(values);
  std::array<std::uint16_t, kBlock> block;
  for (std::size_t end = count; end > 0;) {
    const std::size_t begin = (end - 1) / kBlock * kBlock;
    const std::size_t size = end - begin;
    std::memcpy(block.data(), in + begin * sizeof(std::uint16_t), size * sizeof(std::uint16_t));
    std::transform(block.begin(), block.begin() + static_cast<std::ptrdiff_t>(size), values + begin,
                   expanded);
    end = begin;
  }
}

}  // namespace lockstep::comm::detail

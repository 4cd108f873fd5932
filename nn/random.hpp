// Counter-based random numbers: a draw is a function of what it is for, never of who drew before.
//
// Philox4x32-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011. Its key is the seed; its counter is (block of elements, step low, step high, purpose
// and part). Pure functions, safe from any thread; local.
#pragma once

#include <Random123/philox.h>

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>

namespace lockstep::nn {

// What a draw is for; part of its counter, so no two purposes share a number. The sample order has
// its own purposes in datasets/sample_order.hpp, apart from these by kNetworkDraws.
enum class Purpose : std::uint32_t { initial_parameters = 0, dropout = 1 };

// Set in the counter of every draw made here.
inline constexpr std::uint32_t kNetworkDraws = 0x80000000u;

class Draws {
 public:
  // `part` tells apart the tensors or layers of one purpose (less than 2^24); `time` is the step,
  // or 0 where there is none.
  Draws(std::uint64_t seed, Purpose purpose, std::uint32_t part, std::uint64_t time)
      : key_{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}},
        stream_(kNetworkDraws | static_cast<std::uint32_t>(purpose) << 24 | part),
        time_(time) {
    assert(part < (1u << 24));
  }

  // Four independent uniform 32-bit numbers, number `block` < 2^32 of this stream.
  std::array<std::uint32_t, 4> four(std::uint64_t block) const {
    assert(block >> 32 == 0);
    const r123::Philox4x32::ctr_type counter{{static_cast<std::uint32_t>(block),
                                              static_cast<std::uint32_t>(time_),
                                              static_cast<std::uint32_t>(time_ >> 32), stream_}};
    const auto bits = r123::Philox4x32{}(counter, key_);
    return {bits[0], bits[1], bits[2], bits[3]};
  }

  // Uniform in (0, 1), number `element` of this stream; 53 random bits.
  double uniform(std::uint64_t element) const {
    const auto bits = four(element / 2);
    const std::size_t at = (element % 2) * 2;
    const std::uint64_t wide = (static_cast<std::uint64_t>(bits[at]) << 32 | bits[at + 1]) >> 11;
    return (static_cast<double>(wide) + 0.5) * 0x1p-53;
  }

 private:
  r123::Philox4x32::key_type key_;
  std::uint32_t stream_;
  std::uint64_t time_;
};

}  // namespace lockstep::nn

// 8-bit values as real ones, in float.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lockstep::datasets::detail {

// real[i] = stored[i] * high + stored[i] * low for i < count, both products and the sum rounded,
// though the first product may go into the sum unrounded: high is to have so few bits that it is
// exact. By the widest vectors that the processor has, or is held at (nn::hold_instruction_set()).
// Thread-safe; local.
void scale_bytes(const std::uint8_t* stored, std::size_t count, float high, float low, float* real);

}  // namespace lockstep::datasets::detail

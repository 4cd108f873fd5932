// What the factors of products are rounded to.
//
//   float32    they stand as they are
//   bfloat16   both are rounded to bfloat16 (float32 with 8 bits of significand, to nearest, ties to
//              even, and what is smaller than 2^-55 to zero); their products are exact in float32,
//              and summed there
//
// Why there is a smallest factor: instructions for bfloat16 take subnormal numbers for zero, where
// others do not. Factors of at least 2^-55 are multiples of 2^-62, their products of 2^-124, and so
// is every sum of those, rounded or not: none of them is subnormal, and no instruction shows.
//
// Parameters, their moments, gradients and all sums are float32 either way. Pure; local.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "nn/named.hpp"

namespace lockstep::nn {

enum class Precision { float32, bfloat16 };

// Smaller factors count as zero under bfloat16.
inline constexpr float kLeastFactor = 0x1p-55f;

inline constexpr std::array<std::string_view, 2> kPrecisionNames = {"float32", "bfloat16"};

constexpr std::optional<Precision> precision_named(std::string_view name) {
  return value_named<Precision>(kPrecisionNames, name);
}

}  // namespace lockstep::nn

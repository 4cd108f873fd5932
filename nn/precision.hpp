// What the factors of products are rounded to.
//
//   float32    they stand as they are
//   bfloat16   both are rounded to bfloat16 (float32 with 8 bits of significand, to nearest, ties to
//              even); their products are exact in float32, and summed there
//
// Parameters, their moments, gradients and all sums are float32 either way. Pure; local.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "nn/named.hpp"

namespace lockstep::nn {

enum class Precision { float32, bfloat16 };

inline constexpr std::array<std::string_view, 2> kPrecisionNames = {"float32", "bfloat16"};

constexpr std::optional<Precision> precision_named(std::string_view name) {
  return value_named<Precision>(kPrecisionNames, name);
}

}  // namespace lockstep::nn

// Between the kernels, which are compiled for certain processors, and their dispatch, which runs on
// any. Internal to nn/kernels. Thread-safe; local.
#pragma once

#include <cstdint>
#include <string_view>

#include "nn/kernels/kernels.hpp"

namespace lockstep::nn {

// The instruction sets that the kernels are built for, as Highway's bits.
extern const std::int64_t kBuiltTargets;

// The one of them that comes with PairKernels, on processors that have their instruction; 0: none.
extern const std::int64_t kPairsTarget;
inline constexpr std::string_view kPairsName = "AVX3_BF16";

// The table for the best of them that Highway finds supported; there must be one. `pairs` only
// where that is kPairsTarget, and the processor has the instruction.
const Kernels<float>& best_table(float, bool pairs);
const Kernels<double>& best_table(double, bool pairs);

}  // namespace lockstep::nn

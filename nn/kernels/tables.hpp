// Between the kernels, which are compiled for certain processors, and their dispatch, which runs on
// any. Internal to nn/kernels. Thread-safe; local.
#pragma once

#include <cstdint>
#include <string_view>

#include "nn/kernels/kernels.hpp"

namespace lockstep::nn {

// The instruction sets that the kernels are built for, as Highway's bits.
extern const std::int64_t kBuiltTargets;

// The one of them that comes with PairKernels, on processors that have their instructions; 0: none.
extern const std::int64_t kBfloat16Target;

// What such a processor may have, each with what stands before it.
enum class Bfloat16Instructions { none, pairs, amx };
constexpr std::string_view name_of(Bfloat16Instructions instructions) {
  return instructions == Bfloat16Instructions::amx ? "AVX3_AMX" : "AVX3_BF16";
}

// The table for the best of them that Highway finds supported; there must be one. Instructions for
// bfloat16 only where that is kBfloat16Target, and the processor has them.
const Kernels<float>& best_table(float, Bfloat16Instructions);
const Kernels<double>& best_table(double, Bfloat16Instructions);

}  // namespace lockstep::nn

// Between the kernels, which are compiled for certain processors, and their dispatch, which runs on
// any. Internal to nn/kernels. Thread-safe; local.
#pragma once

#include <cstdint>

#include "nn/kernels/kernels.hpp"

namespace lockstep::nn {

// The instruction sets that the kernels are built for, as Highway's bits.
extern const std::int64_t kBuiltTargets;

// The table for the best of them that Highway finds supported; there must be one.
const Kernels<float>& best_table(float);
const Kernels<double>& best_table(double);

}  // namespace lockstep::nn

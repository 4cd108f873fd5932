// The kernels, compiled once per instruction set by Highway's foreach_target.
//
// The build sets the compiler's baseline for this file to the lowest set that is wanted, so nothing
// here may run before nn/kernels/dispatch.cpp has seen that the processor has it, and nothing of
// the standard library's that other files use too may be compiled here.
#include "nn/kernels/kernels.hpp"
#include "nn/kernels/tables.hpp"

// Without fused multiply-add there are other bits, so what lacks it is not built at all.
#if defined(__x86_64__)
#define HWY_DISABLED_TARGETS ~(HWY_AVX2 | HWY_AVX3)
#else
// One NEON for all: what newer processors add is of no use here (AES), or rounds in another way
// (bfloat16).
#define HWY_DISABLED_TARGETS ~HWY_NEON
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nn/kernels/kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nn/kernels/amx-inl.hpp"
#include "nn/kernels/few-samples-inl.hpp"
#include "nn/kernels/gradient-inl.hpp"
#include "nn/kernels/lamb-inl.hpp"
#include "nn/kernels/loss-inl.hpp"
#include "nn/kernels/normalization-inl.hpp"
#include "nn/kernels/pack-inl.hpp"
#include "nn/kernels/pack-pairs-inl.hpp"
#include "nn/kernels/pairs-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"
#include "nn/kernels/product-inl.hpp"
#include "nn/kernels/runs-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

template <class T>
const Kernels<T>& table() {
  static const Kernels<T> kernels{hwy::TargetName(HWY_TARGET),
                                  nullptr,
                                  kPanel<T>,
                                  kTileRows,
                                  product_panels<T>,
                                  pack_panels<T>,
                                  pack_strips<T>,
                                  weight_gradient<T>,
                                  few_gradient<T>,
                                  bias_gradient<T>,
                                  squared_deviations<T>,
                                  normalization_gradient<T>,
                                  normalize<T>,
                                  normalization_backward<T>,
                                  round_to_bfloat16<T>,
                                  activate<T>,
                                  activation_backward<T>,
                                  cross_entropy<T>,
                                  mean_squared_error<T>,
                                  update<T>,
                                  lamb_moments<T>,
                                  lamb_move<T>,
                                  sum_of_squares<T>,
                                  log_of<T>};
  return kernels;
}

// The same with instructions for bfloat16, where this instruction set has them.
template <class T>
Kernels<T> with_pairs(Bfloat16Instructions instructions, const PairKernels<T>* pairs) {
  Kernels<T> kernels = table<T>();
  kernels.instruction_set = name_of(instructions);
  kernels.pairs = pairs;
  return kernels;
}

template <class T>
const Kernels<T>& table_with(Bfloat16Instructions instructions) {
  using enum Bfloat16Instructions;
  static const Kernels<T> with_vdpbf16ps = with_pairs<T>(pairs, pair_kernels(T{}));
  static const Kernels<T> with_amx = with_pairs<T>(amx, amx_kernels(T{}));
  if (instructions == pairs) return with_vdpbf16ps;
  if (instructions == amx) return with_amx;
  return table<T>();
}

const Kernels<float>& float_table(Bfloat16Instructions instructions) {
  return table_with<float>(instructions);
}
const Kernels<double>& double_table(Bfloat16Instructions instructions) {
  return table_with<double>(instructions);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::nn {

HWY_EXPORT(float_table);
HWY_EXPORT(double_table);

const std::int64_t kBuiltTargets = HWY_TARGETS;
const std::int64_t kBfloat16Target = HWY_TARGETS & HWY_AVX3;

const Kernels<float>& best_table(float, Bfloat16Instructions instructions) {
  return HWY_DYNAMIC_DISPATCH(float_table)(instructions);
}
const Kernels<double>& best_table(double, Bfloat16Instructions instructions) {
  return HWY_DYNAMIC_DISPATCH(double_table)(instructions);
}

}  // namespace lockstep::nn
#endif

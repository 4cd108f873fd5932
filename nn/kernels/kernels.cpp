#include "nn/kernels/kernels.hpp"

#include <stdexcept>

// Without fused multiply-add there are other bits, so what lacks it is not built at all. The build
// sets the compiler's baseline for this file to the lowest set that is wanted.
#define HWY_DISABLED_TARGETS ~(HWY_AVX2 | HWY_AVX3 | HWY_NEON)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nn/kernels/kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nn/kernels/gradient-inl.hpp"
#include "nn/kernels/loss-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"
#include "nn/kernels/product-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

template <class T>
const Kernels<T>& table() {
  static const Kernels<T> kernels{hwy::TargetName(HWY_TARGET),
                                  kPanel<T>,
                                  product_panel<T>,
                                  gradient_panel<T>,
                                  bias_gradient<T>,
                                  activate<T>,
                                  activation_backward<T>,
                                  cross_entropy<T>,
                                  mean_squared_error<T>,
                                  update<T>,
                                  log_of<T>};
  return kernels;
}

const Kernels<float>& float_table() {
  return table<float>();
}
const Kernels<double>& double_table() {
  return table<double>();
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::nn {

HWY_EXPORT(float_table);
HWY_EXPORT(double_table);

namespace {

std::int64_t usable_targets() {
  return hwy::SupportedTargets() & HWY_TARGETS;
}

void require_fused_multiply_add() {
  if (usable_targets() == 0) {
    throw std::runtime_error(
        "this processor has neither AVX2 with FMA nor NEON: lockstep's arithmetic needs fused "
        "multiply-add");
  }
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  static const Kernels<float>& chosen =
      (require_fused_multiply_add(), HWY_DYNAMIC_DISPATCH(float_table)());
  return chosen;
}

template <>
const Kernels<double>& kernels<double>() {
  static const Kernels<double>& chosen =
      (require_fused_multiply_add(), HWY_DYNAMIC_DISPATCH(double_table)());
  return chosen;
}

std::vector<std::string> available_instruction_sets() {
  std::vector<std::string> names;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    names.emplace_back(hwy::TargetName(target));
  }
  return names;
}

void hold_instruction_set(std::string_view name) {
  std::string known;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name == hwy::TargetName(target)) {
      hwy::SetSupportedTargetsForTest(target);
      return;
    }
    known += known.empty() ? "" : ", ";
    known += hwy::TargetName(target);
  }
  throw std::invalid_argument("instruction set '" + std::string(name) +
                              "' is not available here; there is " + known);
}

}  // namespace lockstep::nn
#endif

#include "nn/kernels/kernels.hpp"

#include <atomic>
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

// What was chosen; null until the first use, and again after hold_instruction_set().
template <class T>
std::atomic<const Kernels<T>*> chosen{nullptr};

template <class T, class Choose>
const Kernels<T>& chosen_or(const Choose& choose) {
  const Kernels<T>* kernels = chosen<T>.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    if ((hwy::SupportedTargets() & HWY_TARGETS) == 0) {
      throw std::runtime_error(
          "this processor has neither AVX2 with FMA nor NEON: lockstep's arithmetic needs fused "
          "multiply-add");
    }
    kernels = &choose();
    chosen<T>.store(kernels, std::memory_order_release);
  }
  return *kernels;
}

std::int64_t held_target = 0;  // 0: none

// What there is, whatever is held.
std::vector<std::int64_t> available_targets() {
  hwy::SetSupportedTargetsForTest(0);
  const auto targets = hwy::SupportedAndGeneratedTargets();
  hwy::SetSupportedTargetsForTest(held_target);
  return {targets.begin(), targets.end()};
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return chosen_or<float>(
      []() -> const Kernels<float>& { return HWY_DYNAMIC_DISPATCH(float_table)(); });
}

template <>
const Kernels<double>& kernels<double>() {
  return chosen_or<double>(
      []() -> const Kernels<double>& { return HWY_DYNAMIC_DISPATCH(double_table)(); });
}

std::vector<std::string> available_instruction_sets() {
  std::vector<std::string> names;
  for (const std::int64_t target : available_targets()) {
    names.emplace_back(hwy::TargetName(target));
  }
  return names;
}

void hold_instruction_set(std::string_view name) {
  std::string known;
  for (const std::int64_t target : available_targets()) {
    if (name == hwy::TargetName(target)) {
      held_target = target;
      hwy::SetSupportedTargetsForTest(target);
      chosen<float>.store(nullptr);
      chosen<double>.store(nullptr);
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

#include <hwy/targets.h>

#include <atomic>
#include <stdexcept>

#include "nn/kernels/kernels.hpp"
#include "nn/kernels/tables.hpp"

namespace lockstep::nn {
namespace {

// What was chosen; null until the first use, and again after hold_instruction_set().
template <class T>
std::atomic<const Kernels<T>*> chosen{nullptr};

std::int64_t held_target = 0;  // 0: none

// Of what is built, what this processor has and may be used.
std::int64_t usable_targets() {
#if defined(__aarch64__)
  // Highway would ask for AES, which not all processors have and no kernel uses; NEON they all have.
  return kBuiltTargets;
#else
  return hwy::SupportedTargets() & kBuiltTargets;
#endif
}

template <class T>
const Kernels<T>& choose() {
  const Kernels<T>* kernels = chosen<T>.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    if (usable_targets() == 0) {
      throw std::runtime_error(
          "this processor has no AVX2 with FMA: lockstep's arithmetic needs fused multiply-add");
    }
    kernels = &best_table(T{});
    chosen<T>.store(kernels, std::memory_order_release);
  }
  return *kernels;
}

// What there is, whatever is held; lower bits are better.
std::vector<std::int64_t> available_targets() {
  hwy::SetSupportedTargetsForTest(0);
  std::vector<std::int64_t> targets;
  for (std::int64_t left = usable_targets(); left != 0; left &= left - 1) {
    targets.push_back(left & -left);
  }
  hwy::SetSupportedTargetsForTest(held_target);
  return targets;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return choose<float>();
}

template <>
const Kernels<double>& kernels<double>() {
  return choose<double>();
}

std::vector<std::string> available_instruction_sets() {
  std::vector<std::string> names;
  for (const std::int64_t target : available_targets()) names.emplace_back(hwy::TargetName(target));
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
    if (!known.empty()) known += ", ";
    known += hwy::TargetName(target);
  }
  throw std::invalid_argument("instruction set '" + std::string(name) +
                              "' is not available here; there is " + known);
}

}  // namespace lockstep::nn

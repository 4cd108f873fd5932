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

// One that kernels are built for: Highway's target, with the instruction for pairs or without.
struct InstructionSet {
  std::int64_t target = 0;
  bool pairs = false;

  std::string_view name() const { return pairs ? kPairsName : hwy::TargetName(target); }
};

InstructionSet held;  // target 0: none

bool has_pairs([[maybe_unused]] std::int64_t target) {
#if defined(__x86_64__)
  return target == kPairsTarget && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// Of what is built, what this processor has and may be used.
std::int64_t usable_targets() {
#if defined(__aarch64__)
  // Highway would ask for AES, which not all processors have and no kernel uses; NEON they all
  // have.
  return kBuiltTargets;
#else
  return hwy::SupportedTargets() & kBuiltTargets;
#endif
}

// What there is, whatever is held, best first: lower bits are better.
std::vector<InstructionSet> available() {
  hwy::SetSupportedTargetsForTest(0);
  std::vector<InstructionSet> sets;
  for (std::int64_t left = usable_targets(); left != 0; left &= left - 1) {
    const std::int64_t target = left & -left;
    if (has_pairs(target)) sets.push_back({target, true});
    sets.push_back({target, false});
  }
  hwy::SetSupportedTargetsForTest(held.target);
  return sets;
}

template <class T>
const Kernels<T>& choose() {
  const Kernels<T>* kernels = chosen<T>.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    const std::int64_t usable = usable_targets();
    if (usable == 0) {
      throw std::runtime_error(
          "this processor has no AVX2 with FMA: lockstep's arithmetic needs fused multiply-add");
    }
    const bool pairs = held.target != 0 ? held.pairs : has_pairs(usable & -usable);
    kernels = &best_table(T{}, pairs);
    chosen<T>.store(kernels, std::memory_order_release);
  }
  return *kernels;
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
  for (const InstructionSet& set : available()) names.emplace_back(set.name());
  return names;
}

void hold_instruction_set(std::string_view name) {
  std::string known;
  for (const InstructionSet& set : available()) {
    if (name == set.name()) {
      held = set;
      hwy::SetSupportedTargetsForTest(set.target);
      chosen<float>.store(nullptr);
      chosen<double>.store(nullptr);
      return;
    }
    if (!known.empty()) known += ", ";
    known += set.name();
  }
  throw std::invalid_argument("instruction set '" + std::string(name) +
                              "' is not available here; there is " + known);
}

}  // namespace lockstep::nn

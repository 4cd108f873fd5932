#include <hwy/targets.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <stdexcept>

#include "nn/kernels/kernels.hpp"
#include "nn/kernels/tables.hpp"

namespace lockstep::nn {
namespace {

// What was chosen; null until the first use, and again after hold_instruction_set().
template <class T>
std::atomic<const Kernels<T>*> chosen{nullptr};

// One that kernels are built for: Highway's target, with instructions for bfloat16 or without.
struct InstructionSet {
  std::int64_t target = 0;
  Bfloat16Instructions bfloat16 = Bfloat16Instructions::none;

  std::string_view name() const {
    return bfloat16 == Bfloat16Instructions::none ? hwy::TargetName(target) : name_of(bfloat16);
  }
};

InstructionSet held;  // target 0: none

#if defined(__x86_64__)
// Whether the processor has AMX for bfloat16, and the system lets this process use it: Linux keeps
// no room for its registers before a process has asked.
bool may_use_amx() {
  constexpr unsigned kAmxBfloat16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID 7, EDX
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kAmxBfloat16) == 0 || (edx & kAmxTile) == 0) return false;
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
#endif

// The most that there is beside a target.
Bfloat16Instructions bfloat16_of([[maybe_unused]] std::int64_t target) {
#if defined(__x86_64__)
  if (target == kBfloat16Target && __builtin_cpu_supports("avx512bf16")) {
    static const bool amx = may_use_amx();
    return amx ? Bfloat16Instructions::amx : Bfloat16Instructions::pairs;
  }
#endif
  return Bfloat16Instructions::none;
}

// The fastest of them. Intel's vdpbf16ps takes twice the time of the fused multiply-adds that it
// stands for, so there it is AMX or none.
Bfloat16Instructions fastest_of(std::int64_t target) {
  const Bfloat16Instructions most = bfloat16_of(target);
#if defined(__x86_64__)
  if (most == Bfloat16Instructions::pairs && __builtin_cpu_is("intel")) {
    return Bfloat16Instructions::none;
  }
#endif
  return most;
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

// What there is, whatever is held, best first: lower bits are better, and of one target the
// instructions for bfloat16 that are the fastest.
std::vector<InstructionSet> available() {
  hwy::SetSupportedTargetsForTest(0);
  std::vector<InstructionSet> sets;
  for (std::int64_t left = usable_targets(); left != 0; left &= left - 1) {
    const std::int64_t target = left & -left;
    const Bfloat16Instructions fastest = fastest_of(target);
    sets.push_back({target, fastest});
    for (int i = static_cast<int>(bfloat16_of(target)); i >= 0; --i) {
      const auto other = static_cast<Bfloat16Instructions>(i);
      if (other != fastest) sets.push_back({target, other});
    }
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
    const Bfloat16Instructions bfloat16 =
        held.target != 0 ? held.bfloat16 : fastest_of(usable & -usable);
    kernels = &best_table(T{}, bfloat16);
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

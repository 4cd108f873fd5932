// Compiled once per instruction set by Highway's foreach_target, and chosen at run time.
#include "datasets/detail/scale_bytes.hpp"

#if !defined(__x86_64__)
// NEON alone, as of the kernels (nn/kernels/dispatch.cpp): to choose it Highway would ask for AES.
#define HWY_COMPILE_ONLY_STATIC
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "datasets/detail/scale_bytes.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lockstep::datasets::detail {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void scale(const std::uint8_t* HWY_RESTRICT stored, std::size_t count, float high, float low,
           float* HWY_RESTRICT real) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<std::int32_t, decltype(d)> whole;
  const hn::Rebind<std::uint8_t, decltype(d)> bytes;
  const std::size_t lanes = hn::Lanes(d);
  const auto scale_at = [&](std::size_t i) HWY_ATTR __attribute__((always_inline)) {
    const auto value = hn::ConvertTo(d, hn::PromoteTo(whole, hn::LoadU(bytes, stored + i)));
    const auto rest = hn::Mul(value, hn::Set(d, low));
    hn::StoreU(hn::MulAdd(value, hn::Set(d, high), rest), d, real + i);
  };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) scale_at(i);
  if (i == count) return;
  if (count >= lanes) return scale_at(count - lanes);  // some of them once more
  for (; i < count; ++i) {
    const auto value = static_cast<float>(stored[i]);
    real[i] = value * high + value * low;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::datasets::detail
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::datasets::detail {

HWY_EXPORT(scale);

void scale_bytes(const std::uint8_t* stored, std::size_t count, float high, float low,
                 float* real) {
  HWY_DYNAMIC_DISPATCH(scale)(stored, count, high, low, real);
}

}  // namespace lockstep::datasets::detail
#endif

#include "datasets/scaling.hpp"

#include <bit>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#include "datasets/detail/clones.hpp"
#include "datasets/detail/scale_bytes.hpp"

namespace lockstep::datasets {
namespace {

template <class T>
LOCKSTEP_CLONES void scale_in_double(const T* __restrict stored, std::size_t count, double scale,
                                     double offset, float* __restrict real) {
  for (std::size_t i = 0; i < count; ++i) {
    real[i] = static_cast<float>(static_cast<double>(stored[i]) * scale + offset);
  }
}

float with_16_bits(float value) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffffff00u);
}

}  // namespace

Scaling::Scaling(double scale, double offset)
    : scale_(scale),
      offset_(offset),
      high_(with_16_bits(static_cast<float>(scale))),
      low_(static_cast<float>(scale - static_cast<double>(high_))) {
  std::vector<std::uint8_t> all(256);
  std::iota(all.begin(), all.end(), std::uint8_t{0});
  std::vector<float> right(all.size()), tried(all.size());
  scale_in_double(all.data(), all.size(), scale_, offset_, right.data());
  // In float the sum is rounded once, and low is so small beside high that its own rounding hardly
  // ever shows. "Hardly" is not enough; but there are only 256 values.
  detail::scale_bytes(all.data(), all.size(), high_, low_, tried.data());
  exact_in_float_ = std::memcmp(right.data(), tried.data(), right.size() * sizeof(float)) == 0;
}

template <class T>
void Scaling::apply(const T* stored, std::size_t count, float* real) const {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    if (exact_in_float_) {
      detail::scale_bytes(stored, count, high_, low_, real);
      return;
    }
  }
  if constexpr (std::is_same_v<T, float>) {
    if (scale_ == 1.0 && offset_ == 0.0) {
      std::memcpy(real, stored, count * sizeof(float));
      return;
    }
  }
  scale_in_double(stored, count, scale_, offset_, real);
}

template void Scaling::apply(const std::uint8_t*, std::size_t, float*) const;
template void Scaling::apply(const std::int8_t*, std::size_t, float*) const;
template void Scaling::apply(const std::uint16_t*, std::size_t, float*) const;
template void Scaling::apply(const std::int16_t*, std::size_t, float*) const;
template void Scaling::apply(const std::uint32_t*, std::size_t, float*) const;
template void Scaling::apply(const std::int32_t*, std::size_t, float*) const;
template void Scaling::apply(const std::uint64_t*, std::size_t, float*) const;
template void Scaling::apply(const std::int64_t*, std::size_t, float*) const;
template void Scaling::apply(const float*, std::size_t, float*) const;
template void Scaling::apply(const double*, std::size_t, float*) const;

}  // namespace lockstep::datasets

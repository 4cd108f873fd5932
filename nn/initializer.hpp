// Initial values of weights.
//
//   he        normal, standard deviation sqrt(2 / inputs)     K. He et al., ICCV 2015
//   xavier    uniform in ±sqrt(6 / (inputs + outputs))        X. Glorot, Y. Bengio, AISTATS 2010
//   normal    normal, mean 0, standard deviation `scale`
//   uniform   uniform in ±scale
//   zero      0
//   constant  `scale`
//
// Each value is a function of (seed, tensor, element) alone. Pure; local.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "nn/named.hpp"

namespace lockstep::nn {

enum class Initializer { he, xavier, normal, uniform, zero, constant };

inline constexpr std::array<std::string_view, 6> kInitializerNames = {
    "he", "xavier", "normal", "uniform", "zero", "constant"};

constexpr std::optional<Initializer> initializer_named(std::string_view name) {
  return value_named<Initializer>(kInitializerNames, name);
}

struct InitialValues {
  Initializer initializer = Initializer::he;
  double scale = 0.05;
  std::size_t inputs = 0;  // of the layer
  std::size_t outputs = 0;
};

// weights = initial values; `tensor` is the tensor's index in the parameter layout.
template <class T>
void initialize(const InitialValues& values, std::uint64_t seed, std::size_t tensor,
                std::span<T> weights);

// The normal deviate whose distribution function is p, 0 < p < 1, to about 1 part in 10^16.
// M. Wichura, "Algorithm AS 241", Applied Statistics 37 (1988), routine PPND16.
double normal_quantile(double p);

}  // namespace lockstep::nn

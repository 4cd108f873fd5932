// The activation functions, by name.
//
//   sigmoid     1 / (1 + exp(-z))           derivative from the output y: y (1 - y)
//   tanh        tanh(z)                                                  1 - y^2
//   relu        max(z, 0)                                                1 where y > 0, else 0
//   leaky_relu  z where z > 0, else slope z                              1 where y > 0, else slope
//   softmax     exp(z_i) / sum_j exp(z_j), over a sample's outputs       y_i (d_i - sum_j y_j d_j)
//
// Each derivative is had from the output alone, so backward keeps no inputs. Pure; local.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "nn/named.hpp"

namespace lockstep::nn {

enum class Activation { none, sigmoid, tanh, relu, leaky_relu, softmax };

inline constexpr std::array<std::string_view, 6> kActivationNames = {
    "none", "sigmoid", "tanh", "relu", "leaky_relu", "softmax"};

constexpr std::string_view name_of(Activation activation) {
  return kActivationNames[static_cast<std::size_t>(activation)];
}

constexpr std::optional<Activation> activation_named(std::string_view name) {
  return value_named<Activation>(kActivationNames, name);
}

}  // namespace lockstep::nn

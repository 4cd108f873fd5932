// The losses: what a sample costs, its gradient, and whether its class was found.
//
//   cross_entropy       -log softmax(z)[label] of the outputs z         gradient softmax(z) - one_hot
//   mean_squared_error  sum_j (y_j - t_j)^2 / D of the D outputs y      gradient 2 (y - t) / D
//
// A sample's loss is not divided by the batch: sums over samples are the caller's, in leaf order.
// Functions are thread-safe for distinct outputs, run on the caller's task arena, and are local.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "nn/buffer.hpp"
#include "nn/named.hpp"

namespace lockstep::nn {

enum class Loss { cross_entropy, mean_squared_error };

inline constexpr std::array<std::string_view, 2> kLossNames = {"cross_entropy",
                                                               "mean_squared_error"};

constexpr std::optional<Loss> loss_named(std::string_view name) {
  return value_named<Loss>(kLossNames, name);
}

// What the outputs should have been. Views; row m belongs to row m of the outputs.
template <class T>
struct Targets {
  std::span<const std::int32_t> labels;  // classes from 0; empty where targets are values
  MatrixView<const T> values;            // mean_squared_error needs them, one-hot for classes
};

// loss[m] = the loss of sample m. correct[m] = 1 if its class was found, else 0; written only where
// there are labels. The class found is that of the largest output (the first of equals); for a
// single output it is 1 where the output is at least 1/2. d_outputs = the gradient, unless empty.
template <class T>
void evaluate_loss(Loss kind, MatrixView<const T> outputs, const Targets<T>& targets,
                   std::span<T> loss, std::span<std::uint8_t> correct, MatrixView<T> d_outputs);

// The class found for one sample, as above.
template <class T>
std::int32_t predicted_class(std::span<const T> outputs);

}  // namespace lockstep::nn

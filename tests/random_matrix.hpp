// Numbers for tests, a function of their place and a seed.
#pragma once

#include <cstdint>
#include <span>

#include "nn/buffer.hpp"
#include "nn/random.hpp"

namespace lockstep::test {

// Uniform in (-1, 1).
template <class T>
void fill_uniform(std::span<T> values, std::uint64_t seed) {
  const nn::Draws draws(seed, nn::Purpose::initial_parameters, 0, 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(2 * draws.uniform(i) - 1);
  }
}

template <class T>
nn::Matrix<T> uniform_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  nn::Matrix<T> matrix(rows, cols);
  for (std::size_t i = 0; i < rows; ++i) {
    fill_uniform(std::span<T>(matrix.view().row(i), cols), seed * 1000 + i);
  }
  return matrix;
}

}  // namespace lockstep::test

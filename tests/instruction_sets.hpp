// Checks that are run with each of the processor's instruction sets, and the bytes that they
// compare.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "nn/buffer.hpp"
#include "nn/kernels/kernels.hpp"

namespace lockstep::test {

// Runs `check` with the choice held at each instruction set, and back at the best one in the end.
template <class Check>
void with_each_instruction_set(const Check& check) {
  const auto names = nn::available_instruction_sets();
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    nn::hold_instruction_set(name);
    SCOPED_TRACE(name);
    check();
  }
  nn::hold_instruction_set(names.front());
}

template <class T>
std::vector<std::byte> bytes_of(std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

template <class T>
std::vector<std::byte> bytes_of(nn::MatrixView<const T> matrix) {
  std::vector<std::byte> all;
  for (std::size_t i = 0; i < matrix.rows; ++i) {
    const auto row = bytes_of(std::span<const T>(matrix.row(i), matrix.cols));
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

}  // namespace lockstep::test

// The fixed tree written down as plainly as can be: what the sums of comm must equal bit by bit.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "comm/leaf_tree.hpp"

namespace lockstep::comm::test {

using Floats = std::vector<float>;

// The sum at `node` over leaves[l], or nothing if the node is absent.
inline std::optional<Floats> serial_sum(Subtree node, const std::vector<Floats>& leaves,
                                        std::span<const std::uint8_t> present) {
  if (node.size == 1) {
    if (present[node.first] == 0) return std::nullopt;
    return leaves[node.first];
  }
  const std::size_t half = node.size / 2;
  std::optional<Floats> left = serial_sum({node.first, half}, leaves, present);
  const std::optional<Floats> right = serial_sum({node.first + half, half}, leaves, present);
  if (!left) return right;
  if (!right) return left;
  for (std::size_t i = 0; i < left->size(); ++i) (*left)[i] += (*right)[i];
  return left;
}

// Values of very different magnitude and both signs, so that another order gives other bits.
inline std::vector<Floats> random_leaves(std::size_t leaves, std::size_t elements,
                                         std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> mantissa(-1.0F, 1.0F);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<Floats> values(leaves, Floats(elements));
  for (Floats& leaf : values) {
    for (float& value : leaf) value = std::ldexp(mantissa(random), exponent(random));
  }
  return values;
}

// Which leaves hold samples: all, none, each alone (as with a batch of one), alternating, random.
inline std::vector<std::vector<std::uint8_t>> presence_patterns(std::size_t leaves) {
  std::vector<std::vector<std::uint8_t>> patterns;
  patterns.emplace_back(leaves, std::uint8_t{1});
  patterns.emplace_back(leaves, std::uint8_t{0});
  for (std::size_t one = 0; one < leaves; ++one) {
    patterns.emplace_back(leaves, std::uint8_t{0}).at(one) = 1;
  }
  for (std::size_t odd = 0; odd < 2; ++odd) {
    auto& pattern = patterns.emplace_back(leaves, std::uint8_t{0});
    for (std::size_t l = odd; l < leaves; l += 2) pattern[l] = 1;
  }
  std::mt19937 random(7);
  for (int i = 0; i < 8; ++i) {
    auto& pattern = patterns.emplace_back(leaves, std::uint8_t{0});
    for (std::uint8_t& flag : pattern) flag = static_cast<std::uint8_t>(random() % 2);
  }
  return patterns;
}

}  // namespace lockstep::comm::test

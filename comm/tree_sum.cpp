#include "comm/tree_sum.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <stdexcept>
#include <string>

#include "comm/detail/prefetch.hpp"

namespace lockstep::comm {
namespace {

// This and add_to(), so that the compiler may take the pointers to be distinct in each.
void add(float* __restrict__ out, const float* __restrict__ left, const float* __restrict__ right,
         std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

}  // namespace

void add_to(float* __restrict__ left, const float* __restrict__ right, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) left[i] += right[i];
}

void copy_to(float* __restrict__ left, const float* __restrict__ right, std::size_t count) {
  std::copy_n(right, count, left);
}

TreeSum::TreeSum(std::size_t leaves)
    : leaves_(leaves),
      inputs_(leaves),
      scratch_(static_cast<std::size_t>(std::bit_width(leaves)) * chunk) {
  if (!std::has_single_bit(leaves)) {
    throw std::invalid_argument("the number of leaves must be a power of two, not " +
                                std::to_string(leaves));
  }
}

void TreeSum::set(Subtree subtree, const float* values) {
  assert(subtree.size > 0 && subtree.first % subtree.size == 0);
  assert(subtree.first + subtree.size <= leaves_);
  inputs_[subtree.first] = {subtree.size, values};
}

const float* TreeSum::at(Subtree node, std::size_t offset, std::size_t count, float* out) {
  assert(count <= chunk);
  return sum(node, 0, offset, count, out);
}

void TreeSum::write(Subtree node, std::size_t offset, std::size_t count, float* out) {
  float* apart = scratch_.data() + (scratch_.size() - chunk);
  for_each_chunk({0, count}, [&](std::size_t begin, std::size_t size) {
    const float* values = at(node, offset + begin, size, apart);
    if (values != out + begin) std::copy_n(values, size, out + begin);
  });
}

std::size_t TreeSum::terms(Subtree node) const {
  const Input& input = inputs_[node.first];
  if (input.size == node.size) return input.values == nullptr ? 0 : 1;
  const std::size_t half = node.size / 2;
  return terms({node.first, half}) + terms({node.first + half, half});
}

// A right child works in the scratch of its parent's depth, unless the left one is absent and
// leaves `out` to it.
const float* TreeSum::sum(Subtree node, std::size_t depth, std::size_t offset, std::size_t count,
                          float* out) {
  const Input& input = inputs_[node.first];
  if (input.size == node.size) {
    if (input.values == nullptr) return nullptr;
    detail::prefetch_chunk(input.values + offset + chunk);  // who wants this one wants the next
    return input.values + offset;
  }
  assert(node.size > 1 && "the inputs must cover every leaf");

  const std::size_t half = node.size / 2;
  const float* left = sum({node.first, half}, depth + 1, offset, count, out);
  float* right_out = left == nullptr ? out : scratch_.data() + depth * chunk;
  const float* right = sum({node.first + half, half}, depth + 1, offset, count, right_out);
  if (left == nullptr) return right;
  if (right == nullptr) return left;
  if (left == out) {
    add_to(out, right, count);
  } else {
    add(out, left, right, count);
  }
  return out;
}

}  // namespace lockstep::comm

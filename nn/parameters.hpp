// Where each parameter tensor lies in the one flat buffer that holds them all.
//
// Gradients and optimizer moments use buffers of the same layout. Tensors are row-major, in the
// order of the layers, weight (outputs × inputs) before bias (outputs); each starts on a 64-byte
// boundary, and the padding between them is zero at all times. Immutable once built; local.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nn/buffer.hpp"

namespace lockstep::nn {

struct ParameterTensor {
  std::string name;                // as in a PyTorch nn.Sequential: "0.weight", "0.bias"
  std::vector<std::size_t> shape;  // outermost first
  std::size_t offset = 0;          // elements from the start of the flat buffer
  std::size_t size = 0;            // elements, padding left out
  bool is_bias = false;
};

class ParameterLayout {
 public:
  // No memory holds more, and sizes in bytes stay far from overflow.
  static constexpr std::size_t kMostElements = std::size_t{1} << 48;

  // Appends a tensor and returns its index. Throws std::length_error beyond kMostElements.
  std::size_t add(std::string name, std::vector<std::size_t> shape, bool is_bias) {
    std::size_t size = 1;
    for (const std::size_t extent : shape) {
      if (extent != 0 && size > kMostElements / extent) {
        throw std::length_error("the parameters of " + name + " are more than 2^48");
      }
      size *= extent;
    }
    tensors_.push_back({std::move(name), std::move(shape), buffer_size_, size, is_bias});
    buffer_size_ += round_up(size, kLanes);
    count_ += size;
    return tensors_.size() - 1;
  }

  std::span<const ParameterTensor> tensors() const { return tensors_; }
  std::size_t buffer_size() const { return buffer_size_; }  // elements, with padding
  std::size_t count() const { return count_; }              // parameters, without

 private:
  std::vector<ParameterTensor> tensors_;
  std::size_t buffer_size_ = 0;
  std::size_t count_ = 0;
};

}  // namespace lockstep::nn

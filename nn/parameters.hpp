// Where each parameter tensor lies in the one flat buffer that holds them all.
//
// Tensors that are trained stand in front, in the order of the layers, weight before bias; each
// starts on a 64-byte boundary, and the padding between them is zero at all times. Gradients and
// optimizer moments use buffers of that front alone. Behind it stand statistics, which layers keep
// of what they have seen (as batch_norm.hpp does): no optimizer moves them, and ranks do not
// exchange them. Immutable once built; local.
//
// Outside of memory - in files, hashes and messages - a weight is outputs × inputs, as in PyTorch.
// In the buffer it is inputs × outputs: the weights of one input lie together, one for each output,
// so that the forward product and the weight's gradient read and write them as they stand.
#pragma once

#include <algorithm>
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
  std::vector<std::size_t> shape;  // outside of memory, slowest dimension first
  std::size_t offset = 0;          // elements from the start of the flat buffer
  std::size_t size = 0;            // elements, padding left out
  bool is_bias = false;            // penalties leave it alone, unless asked
  bool is_trained = true;          // else a statistic

  // The tensor's values in the order of `shape`, out of a flat buffer.
  template <class T>
  std::vector<T> values_in(std::span<const T> buffer) const {
    std::vector<T> values(size);
    for_each_place([&](std::size_t i, std::size_t at) { values[i] = buffer[at]; });
    return values;
  }

  // The other way. `values` holds `size` elements.
  template <class T, class U>
  void put(std::span<const U> values, std::span<T> buffer) const {
    for_each_place([&](std::size_t i, std::size_t at) { buffer[at] = static_cast<T>(values[i]); });
  }

 private:
  // f(place in the order of `shape`, place in the flat buffer) for every element; matrices in
  // blocks, since one of the two orders jumps.
  template <class F>
  void for_each_place(const F& f) const {
    constexpr std::size_t kBlock = 32;
    const std::size_t rows = shape.size() == 2 ? shape[0] : size;
    const std::size_t cols = shape.size() == 2 ? shape[1] : 1;
    for (std::size_t row = 0; row < rows; row += kBlock) {
      for (std::size_t col = 0; col < cols; col += kBlock) {
        for (std::size_t r = row; r < std::min(row + kBlock, rows); ++r) {
          for (std::size_t c = col; c < std::min(col + kBlock, cols); ++c) {
            f(r * cols + c, offset + c * rows + r);
          }
        }
      }
    }
  }
};

class ParameterLayout {
 public:
  // No memory holds more, and sizes in bytes stay far from overflow.
  static constexpr std::size_t kMostElements = std::size_t{1} << 48;

  // Appends a tensor that is trained and returns its index. Throws std::length_error beyond
  // kMostElements.
  std::size_t add(std::string name, std::vector<std::size_t> shape, bool is_bias) {
    const std::size_t size = size_of(name, shape);
    insert({std::move(name), std::move(shape), 0, size, is_bias, true});
    trained_size_ += round_up(size, kLanes);
    count_ += size;
    return tensors_.size() - 1;
  }

  // The same for a statistic. Its offset grows with what is added later, but its distance from the
  // end of the buffer does not.
  std::size_t add_statistic(std::string name, std::vector<std::size_t> shape) {
    const std::size_t size = size_of(name, shape);
    insert({std::move(name), std::move(shape), 0, size, false, false});
    return tensors_.size() - 1;
  }

  // In the order in which they were added: that of a PyTorch state dict.
  std::span<const ParameterTensor> tensors() const { return tensors_; }
  std::size_t buffer_size() const { return buffer_size_; }    // elements, with padding
  std::size_t trained_size() const { return trained_size_; }  // of these, before the statistics
  std::size_t count() const { return count_; }  // parameters that are trained, without

 private:
  static std::size_t size_of(const std::string& name, std::span<const std::size_t> shape) {
    std::size_t size = 1;
    for (const std::size_t extent : shape) {
      if (extent != 0 && size > kMostElements / extent) {
        throw std::length_error("the parameters of " + name + " are more than 2^48");
      }
      size *= extent;
    }
    return size;
  }

  // Behind what is trained so far, and before all statistics so far.
  void insert(ParameterTensor tensor) {
    const std::size_t padded = round_up(tensor.size, kLanes);
    for (ParameterTensor& other : tensors_) {
      if (!other.is_trained) other.offset += padded;
    }
    tensor.offset = trained_size_;
    buffer_size_ += padded;
    tensors_.push_back(std::move(tensor));
  }

  std::vector<ParameterTensor> tensors_;
  std::size_t buffer_size_ = 0;
  std::size_t trained_size_ = 0;
  std::size_t count_ = 0;
};

}  // namespace lockstep::nn

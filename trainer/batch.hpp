// Brings samples of a dataset into the form that a network and its loss take.
//
// A Batch views the dataset and owns its targets. One caller at a time; fill() runs on the caller's
// task arena; local.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "datasets/dataset.hpp"
#include "nn/loss.hpp"
#include "nn/network.hpp"

namespace lockstep::trainer {

class Batch {
 public:
  // Room for up to `rows` samples of `data`, which check_fits() the network.
  Batch(const nn::Network<float>& network, const datasets::Dataset& data, std::size_t rows);

  // inputs.row(m) = sample rows[m], and its target likewise. What will be filled in after that, if
  // it is known, is `next`: see Dataset::copy_samples().
  void fill(std::span<const std::uint32_t> rows, nn::MatrixView<float> inputs,
            std::span<const std::uint32_t> next = {});

  // What filling in takes, in floating-point operations that take as long (nn/parallel.hpp).
  static double operations(std::size_t rows, std::size_t features) {
    return 8.0 * static_cast<double>(rows) * static_cast<double>(features);
  }

  // Of the samples that fill() brought in last.
  nn::Targets<float> targets() const;

 private:
  void set_target_values(std::size_t m, std::size_t sample);

  const datasets::Dataset& data_;
  std::vector<std::int32_t> labels_;  // empty where targets are values
  nn::Matrix<float> values_;          // empty under cross_entropy
  std::size_t rows_ = 0;
};

}  // namespace lockstep::trainer

#include "trainer/batch.hpp"

#include <algorithm>

#include "nn/parallel.hpp"

namespace lockstep::trainer {

Batch::Batch(const nn::Network<float>& network, const datasets::Dataset& data, std::size_t rows)
    : data_(data) {
  if (data.has_classes()) labels_.resize(rows);
  if (network.loss() == nn::Loss::mean_squared_error) {
    values_ = nn::Matrix<float>(rows, network.outputs());
  }
}

void Batch::fill(std::span<const std::uint32_t> rows, nn::MatrixView<float> inputs,
                 std::span<const std::uint32_t> next) {
  rows_ = rows.size();
  nn::for_each_row_block(
      rows_, operations(1, inputs.cols), [&](std::size_t begin, std::size_t end) {
        const auto block = rows.subspan(begin, end - begin);
        const auto rest = end < rows.size() ? rows.subspan(end) : next;
        const auto upcoming = rest.first(std::min(rest.size(), nn::kRowsPerBlock));
        data_.copy_samples(block, inputs.row(begin), inputs.stride, upcoming);
        if (!labels_.empty()) data_.copy_labels(block, &labels_[begin]);
        if (values_.rows() == 0) return;
        for (std::size_t m = begin; m < end; ++m) set_target_values(m, rows[m]);
      });
}

// Under mean_squared_error a class stands as one-hot, or as itself where there is one output.
void Batch::set_target_values(std::size_t m, std::size_t sample) {
  float* target = values_.view().row(m);
  if (labels_.empty()) {
    data_.copy_targets(sample, target);
  } else if (values_.cols() == 1) {
    *target = static_cast<float>(labels_[m]);
  } else {
    std::fill_n(target, values_.cols(), 0.0f);
    target[labels_[m]] = 1.0f;
  }
}

nn::Targets<float> Batch::targets() const {
  nn::Targets<float> targets;
  if (!labels_.empty()) targets.labels = std::span(labels_).first(rows_);
  if (values_.rows() > 0) targets.values = values_.view().top(rows_);
  return targets;
}

}  // namespace lockstep::trainer

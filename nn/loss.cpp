#include "nn/loss.hpp"

#include <algorithm>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

template <class T>
std::int32_t predicted_class(std::span<const T> outputs) {
  if (outputs.size() == 1) return outputs[0] >= T{0.5} ? 1 : 0;
  return static_cast<std::int32_t>(std::ranges::max_element(outputs) - outputs.begin());
}

template <class T>
void evaluate_loss(Loss kind, MatrixView<const T> outputs, const Targets<T>& targets,
                   std::span<T> loss, std::span<std::uint8_t> correct, MatrixView<T> d_outputs) {
  const Kernels<T>& kernel = kernels<T>();
  // An exponential, a logarithm and a division or two take as long as many multiply-adds.
  const double operations_per_row = 500.0 * static_cast<double>(outputs.cols);
  for_each_row_block(outputs.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    const auto rows = [&](auto matrix) {
      if (matrix.empty()) return matrix;
      return decltype(matrix){matrix.row(begin), end - begin, matrix.cols, matrix.stride};
    };
    if (kind == Loss::cross_entropy) {
      kernel.cross_entropy(rows(outputs), &targets.labels[begin], &loss[begin], rows(d_outputs));
    } else {
      kernel.mean_squared_error(rows(outputs), rows(targets.values), &loss[begin], rows(d_outputs));
    }
    if (targets.labels.empty()) return;
    for (std::size_t m = begin; m < end; ++m) {
      const auto found = predicted_class(std::span<const T>(outputs.row(m), outputs.cols));
      correct[m] = found == targets.labels[m] ? 1 : 0;
    }
  });
}

template std::int32_t predicted_class<float>(std::span<const float>);
template std::int32_t predicted_class<double>(std::span<const double>);
template void evaluate_loss<float>(Loss, MatrixView<const float>, const Targets<float>&,
                                   std::span<float>, std::span<std::uint8_t>, MatrixView<float>);
template void evaluate_loss<double>(Loss, MatrixView<const double>, const Targets<double>&,
                                    std::span<double>, std::span<std::uint8_t>, MatrixView<double>);

}  // namespace lockstep::nn

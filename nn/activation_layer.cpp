#include "nn/activation_layer.hpp"

#include <algorithm>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

template <class T>
void ActivationLayer<T>::forward(const Pass&, std::span<const T>, MatrixView<const T> x,
                                 MatrixView<T> y, std::span<T>) const {
  const double operations_per_row = 20.0 * static_cast<double>(x.cols);
  for_each_row_block(x.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) std::copy_n(x.row(i), x.cols, y.row(i));
    kernels<T>().activate(activation_, slope_, {y.row(begin), end - begin, y.cols, y.stride});
  });
}

template <class T>
void ActivationLayer<T>::backward(const Pass&, std::span<const T>, MatrixView<const T>,
                                  MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                                  std::span<const SubtreeGradient<T>>, std::span<T>) const {
  if (d_x.empty()) return;
  const double operations_per_row = 4.0 * static_cast<double>(y.cols);
  for_each_row_block(y.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) std::copy_n(d_y.row(i), y.cols, d_x.row(i));
    kernels<T>().activation_backward(activation_, slope_,
                                     {y.row(begin), end - begin, y.cols, y.stride},
                                     {d_x.row(begin), end - begin, y.cols, d_x.stride});
  });
}

template class ActivationLayer<float>;
template class ActivationLayer<double>;

}  // namespace lockstep::nn

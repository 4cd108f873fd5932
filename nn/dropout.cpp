#include "nn/dropout.hpp"

#include <algorithm>
#include <sstream>

#include "nn/parallel.hpp"

namespace lockstep::nn {

template <class T>
Dropout<T>::Dropout(std::size_t width, std::uint32_t index, double rate)
    : Layer<T>(width, width),
      index_(index),
      rate_(rate),
      kept_below_(static_cast<std::uint64_t>((1 - rate) * 0x1p32)),
      scale_(static_cast<T>(1 / (1 - rate))) {}

template <class T>
std::string Dropout<T>::describe() const {
  std::ostringstream text;
  text << "dropout " << rate_;
  return text.str();
}

template <class T>
void Dropout<T>::apply(const Pass& pass, MatrixView<const T> from, MatrixView<T> to) const {
  const Draws draws(pass.seed, Purpose::dropout, index_, pass.step);
  const bool masked = pass.training && rate_ > 0;
  const std::size_t width = from.cols;
  const std::size_t draws_per_row = (width + 3) / 4;
  const auto mask_row = [&](const T* in, T* out, std::size_t sample) {
    for (std::size_t j = 0; j < width; j += 4) {
      const auto bits = draws.four(sample * draws_per_row + j / 4);
      for (std::size_t i = 0; i < std::min<std::size_t>(4, width - j); ++i) {
        out[j + i] = bits[i] < kept_below_ ? in[j + i] * scale_ : T{0};
      }
    }
  };
  const double operations_per_row = (masked ? 40.0 : 1.0) * static_cast<double>(width);
  for_each_row_block(from.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      if (masked) {
        mask_row(from.row(row), to.row(row), pass.first_sample + row);
      } else {
        std::copy_n(from.row(row), width, to.row(row));
      }
    }
  });
}

template <class T>
void Dropout<T>::forward(const Pass& pass, std::span<const T>, MatrixView<const T> x,
                         MatrixView<T> y, std::span<T>) const {
  apply(pass, x, y);
}

template <class T>
void Dropout<T>::backward(const Pass& pass, std::span<const T>, MatrixView<const T>,
                          MatrixView<const T>, MatrixView<T> d_y, MatrixView<T> d_x,
                          std::span<const SubtreeGradient<T>>, std::span<T>) const {
  if (!d_x.empty()) apply(pass, d_y, d_x);
}

template class Dropout<float>;
template class Dropout<double>;

}  // namespace lockstep::nn

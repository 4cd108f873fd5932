// Batch normalisation: its sums over samples, and what is done with each sample. Included once per
// instruction set.
#if defined(LOCKSTEP_NN_NORMALIZATION_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_NORMALIZATION_INL
#undef LOCKSTEP_NN_NORMALIZATION_INL
#else
#define LOCKSTEP_NN_NORMALIZATION_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/gradient-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Sums of a group of columns, one of each kind a row, to where the group stands: sums[r] + col.
template <std::size_t kSums, class T, class AddRow>
HWY_INLINE void sum_columns(std::span<const std::size_t> leaf_rows, std::size_t col,
                            std::size_t cols, T* const (&sums)[kSums], const AddRow& add_row) {
  Tile<T, kSums, kRegisters<T>> sum;
  sum_leaves(LeafRows(leaf_rows), LeafColumns<AddRow>{add_row}, sum);
  alignas(kAlignment) T lanes[kSums * kLanes];
  sum.store(lanes, kLanes);
  for (std::size_t r = 0; r < kSums; ++r) {
    std::copy_n(lanes + r * kLanes, std::min(kLanes, cols - col), sums[r] + col);
  }
}

template <class T>
void squared_deviations(MatrixView<const T> x, const T* mean,
                        std::span<const std::size_t> leaf_rows, T* sums) {
  const Tag<T> d;
  for (std::size_t col = 0; col < x.cols; col += kLanes) {
    const auto add_row = [&](std::size_t row, Tile<T, 1, kRegisters<T>>& sum) LOCKSTEP_LAMBDA {
      sum.for_each([&](Vector<T>& s, std::size_t, std::size_t v) LOCKSTEP_LAMBDA {
        const std::size_t at = col + v * kRegister<T>;
        const auto deviation = hn::Sub(hn::Load(d, x.row(row) + at), hn::Load(d, mean + at));
        s = hn::MulAdd(deviation, deviation, s);
      });
    };
    sum_columns<1, T>(leaf_rows, col, x.cols, {sums}, add_row);
  }
}

// n for the columns of the register at `at`.
template <class T>
HWY_INLINE Vector<T> normalized(const Normalization<T>& to, const T* x, std::size_t at) {
  const Tag<T> d;
  return hn::Mul(hn::Sub(hn::Load(d, x + at), hn::Load(d, to.mean + at)),
                 hn::Load(d, to.inverse + at));
}

template <class T>
void normalization_gradient(const Normalization<T>& to, MatrixView<const T> x,
                            MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows,
                            T* d_bias, T* d_weight) {
  const Tag<T> d;
  using Sums = Tile<T, 2, kRegisters<T>>;
  for (std::size_t col = 0; col < x.cols; col += kLanes) {
    const auto add_row = [&](std::size_t row, Sums& sums) LOCKSTEP_LAMBDA {
      unrolled<kRegisters<T>>([&](auto v) LOCKSTEP_LAMBDA {
        const std::size_t at = col + v * kRegister<T>;
        const auto derivative = hn::Load(d, d_y.row(row) + at);
        sums.sum[0][v] = hn::Add(sums.sum[0][v], derivative);
        sums.sum[1][v] = hn::MulAdd(derivative, normalized(to, x.row(row), at), sums.sum[1][v]);
      });
    };
    sum_columns<2, T>(leaf_rows, col, x.cols, {d_bias, d_weight}, add_row);
  }
}

// Lanes beyond the columns are computed as well, and mean nothing.
template <class T>
void normalize(const Normalization<T>& to, MatrixView<const T> x, MatrixView<T> y) {
  const Tag<T> d;
  for (std::size_t i = 0; i < x.rows; ++i) {
    for (std::size_t j = 0; j < x.cols; j += kRegister<T>) {
      auto value = normalized(to, x.row(i), j);
      if (to.weight != nullptr) {
        value = hn::MulAdd(value, hn::Load(d, to.weight + j), hn::Load(d, to.bias + j));
      }
      hn::Store(value, d, y.row(i) + j);
    }
  }
}

template <class T>
void normalization_backward(const Normalization<T>& to, MatrixView<const T> x,
                            MatrixView<const T> d_y, const T* mean_d_y, const T* mean_d_y_n,
                            MatrixView<T> d_x) {
  const Tag<T> d;
  for (std::size_t i = 0; i < x.rows; ++i) {
    for (std::size_t j = 0; j < x.cols; j += kRegister<T>) {
      auto scale = hn::Load(d, to.inverse + j);
      if (to.weight != nullptr) scale = hn::Mul(scale, hn::Load(d, to.weight + j));
      const auto centred = hn::Sub(hn::Load(d, d_y.row(i) + j), hn::Load(d, mean_d_y + j));
      const auto derivative = hn::Mul(
          scale, hn::NegMulAdd(normalized(to, x.row(i), j), hn::Load(d, mean_d_y_n + j), centred));
      hn::Store(without_tiny(d, derivative), d, d_x.row(i) + j);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Losses and their gradients, one sample a row. Included once per instruction set.
#if defined(LOCKSTEP_NN_LOSS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_LOSS_INL
#undef LOCKSTEP_NN_LOSS_INL
#else
#define LOCKSTEP_NN_LOSS_INL
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "nn/kernels/pointwise-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

template <class T>
T log_of(T x) {
  if (!(x == x)) return x;  // Highway's would lose a NaN
  const Tag<T> d;
  return hn::GetLane(hn::Log(d, hn::Set(d, x)));
}

// With m the largest of z: loss = log sum_j exp(z_j - m) - (z_label - m).
template <class T>
void cross_entropy(MatrixView<const T> z, const std::int32_t* labels, T* loss, MatrixView<T> d_z) {
  const Tag<T> d;
  for (std::size_t i = 0; i < z.rows; ++i) {
    const T* row = z.row(i);
    const auto label = static_cast<std::size_t>(labels[i]);
    const T most = largest(row, z.cols);
    if (d_z.empty()) {
      const auto shift = hn::Set(d, most);
      LaneSums<T> sums;
      for (std::size_t j = 0; j < z.cols; j += kLanes) {
        LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
          const auto e =
              exp_of_negative(d, hn::Sub(hn::Load(d, row + j + r * kRegister<T>), shift));
          sums.part[r] = hn::Add(sums.part[r], hn::IfThenElseZero(valid_lanes<T>(j, r, z.cols), e));
        }
      }
      loss[i] = log_of(sums.total()) - (row[label] - most);
    } else {
      T* out = d_z.row(i);
      std::copy_n(row, z.cols, out);
      const T sum = exponentials(out, z.cols, most);
      loss[i] = log_of(sum) - (row[label] - most);
      for (std::size_t j = 0; j < z.cols; j += kRegister<T>) {
        hn::Store(hn::Div(hn::Load(d, out + j), hn::Set(d, sum)), d, out + j);
      }
      out[label] -= T{1};
    }
  }
}

template <class T>
void mean_squared_error(MatrixView<const T> y, MatrixView<const T> t, T* loss, MatrixView<T> d_y) {
  const Tag<T> d;
  const T outputs = static_cast<T>(y.cols);
  for (std::size_t i = 0; i < y.rows; ++i) {
    LaneSums<T> sums;
    for (std::size_t j = 0; j < y.cols; j += kLanes) {
      LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
        const std::size_t at = j + r * kRegister<T>;
        const auto error =
            hn::IfThenElseZero(valid_lanes<T>(j, r, y.cols),
                               hn::Sub(hn::Load(d, y.row(i) + at), hn::Load(d, t.row(i) + at)));
        sums.part[r] = hn::MulAdd(error, error, sums.part[r]);
        if (!d_y.empty()) {
          hn::Store(hn::Div(hn::Add(error, error), hn::Set(d, outputs)), d, d_y.row(i) + at);
        }
      }
    }
    loss[i] = sums.total() / outputs;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

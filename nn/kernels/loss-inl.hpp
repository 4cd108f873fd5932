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

// log(x) for x >= 0 and NaN, which Highway's would lose.
template <class D, class V>
HWY_INLINE V log_or_nan(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Log(d, x));
}

template <class T>
T log_of(T x) {
  const Tag<T> d;
  return hn::GetLane(log_or_nan(d, hn::Set(d, x)));
}

// With m the largest of z: loss = log sum_j exp(z_j - m) - (z_label - m).
template <class T>
void cross_entropy(MatrixView<const T> z, const std::int32_t* labels, T* loss, MatrixView<T> d_z) {
  const Tag<T> d;
  const hn::RebindToSigned<Tag<T>> whole;
  HWY_ALIGN T sums[kLanes];  // of a group of samples, whose logarithms are taken at once
  HWY_ALIGN T ahead[kLanes];
  for (std::size_t group = 0; group < z.rows; group += kLanes) {
    const std::size_t samples = std::min(kLanes, z.rows - group);
    for (std::size_t m = 0; m < samples; ++m) {
      const T* row = z.row(group + m);
      const auto label = static_cast<std::size_t>(labels[group + m]);
      const auto at_label = hn::Set(whole, static_cast<hn::TFromD<decltype(whole)>>(label));
      const T most = largest(row, z.cols);
      ahead[m] = row[label] - most;
      if (d_z.empty()) {
        sums[m] = sum_of_exponentials(row, z.cols, most, [](std::size_t, auto) LOCKSTEP_LAMBDA {});
        continue;
      }
      T* out = d_z.row(group + m);
      sums[m] = sum_of_exponentials(row, z.cols, most, [&](std::size_t j, auto e) LOCKSTEP_LAMBDA {
        hn::Store(e, d, out + j);
      });
      const auto sum = hn::Set(d, sums[m]);
      for (std::size_t j = 0; j < z.cols; j += kRegister<T>) {
        const auto share = without_tiny(d, hn::Div(hn::Load(d, out + j), sum));
        const auto is_label = hn::RebindMask(d, hn::Eq(hn::Iota(whole, j), at_label));
        hn::Store(hn::Sub(share, hn::IfThenElseZero(is_label, hn::Set(d, T{1}))), d, out + j);
      }
    }
    for (std::size_t j = 0; j < samples; j += kRegister<T>) {
      const auto logarithms = log_or_nan(d, hn::Load(d, sums + j));
      hn::Store(hn::Sub(logarithms, hn::Load(d, ahead + j)), d, ahead + j);
    }
    std::copy_n(ahead, samples, loss + group);
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

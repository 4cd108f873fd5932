// Activations and their derivatives. Included once per instruction set.
#if defined(LOCKSTEP_NN_POINTWISE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_POINTWISE_INL
#undef LOCKSTEP_NN_POINTWISE_INL
#else
#define LOCKSTEP_NN_POINTWISE_INL
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "nn/kernels/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// row[j] = f(row[j]) for every register that holds a column; lanes beyond the columns are padding.
template <class T, class F>
HWY_INLINE void map(MatrixView<T> z, const F& f) {
  const Tag<T> d;
  for (std::size_t i = 0; i < z.rows; ++i) {
    T* row = z.row(i);
    for (std::size_t j = 0; j < z.cols; j += kRegister<T>) {
      hn::Store(f(d, hn::Load(d, row + j)), d, row + j);
    }
  }
}

template <class T, class F>
HWY_INLINE void map(MatrixView<const T> y, MatrixView<T> d_y, const F& f) {
  const Tag<T> d;
  for (std::size_t i = 0; i < y.rows; ++i) {
    for (std::size_t j = 0; j < y.cols; j += kRegister<T>) {
      T* out = d_y.row(i) + j;
      const auto derivative = f(d, hn::Load(d, y.row(i) + j), hn::Load(d, out));
      hn::Store(without_tiny(d, derivative), d, out);
    }
  }
}

// exp(x) for x <= 0 (Highway's is wrong far above) and NaN, which it would lose.
template <class D, class V>
HWY_INLINE V exp_of_negative(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

// With e = exp(-|z|), which cannot overflow: 1 / (1 + e) where z >= 0, else e / (1 + e).
struct Sigmoid {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z) const {
    const V one = hn::Set(d, hn::TFromD<D>{1});
    const V e = exp_of_negative(d, hn::Neg(hn::Abs(z)));
    return hn::Div(hn::IfThenElse(hn::Lt(z, hn::Zero(d)), e, one), hn::Add(one, e));
  }
  template <class D, class V>
  HWY_INLINE V operator()(D d, V y, V d_y) const {
    return hn::Mul(d_y, hn::Mul(y, hn::Sub(hn::Set(d, hn::TFromD<D>{1}), y)));
  }
};

struct HyperbolicTangent {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z) const {
    return hn::IfThenElse(hn::IsNaN(z), z, hn::Tanh(d, z));
  }
  template <class D, class V>
  HWY_INLINE V operator()(D d, V y, V d_y) const {
    return hn::Mul(d_y, hn::NegMulAdd(y, y, hn::Set(d, hn::TFromD<D>{1})));
  }
};

// A comparison, not Max: a NaN must come through on every processor alike.
struct Relu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z) const {
    return hn::IfThenZeroElse(hn::Le(z, hn::Zero(d)), z);
  }
  template <class D, class V>
  HWY_INLINE V operator()(D d, V y, V d_y) const {
    return hn::IfThenZeroElse(hn::Le(y, hn::Zero(d)), d_y);
  }
};

template <class T>
struct LeakyRelu {
  T slope;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z) const {
    return hn::IfThenElse(hn::Le(z, hn::Zero(d)), hn::Mul(hn::Set(d, slope), z), z);
  }
  template <class D, class V>
  HWY_INLINE V operator()(D d, V y, V d_y) const {
    return hn::IfThenElse(hn::Le(y, hn::Zero(d)), hn::Mul(hn::Set(d, slope), d_y), d_y);
  }
};

// The sum of exp(row[j] - most), of which use(j, …) gets each register, 0 beyond the columns. The
// largest is taken off so that exp cannot overflow.
template <class T, class Use>
HWY_INLINE T sum_of_exponentials(const T* row, std::size_t cols, T most, const Use& use) {
  const Tag<T> d;
  const auto shift = hn::Set(d, most);
  LaneSums<T> sums;
  for (std::size_t j = 0; j < cols; j += kLanes) {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
      const std::size_t at = j + r * kRegister<T>;
      const auto e = hn::IfThenElseZero(valid_lanes<T>(j, r, cols),
                                        exp_of_negative(d, hn::Sub(hn::Load(d, row + at), shift)));
      use(at, e);
      sums.part[r] = hn::Add(sums.part[r], e);
    }
  }
  return sums.total();
}

template <class T>
void softmax(MatrixView<T> z) {
  const Tag<T> d;
  for (std::size_t i = 0; i < z.rows; ++i) {
    T* row = z.row(i);
    const T total = sum_of_exponentials(row, z.cols, largest(row, z.cols),
                                        [&](std::size_t j, auto e)
                                            LOCKSTEP_LAMBDA { hn::Store(e, d, row + j); });
    const auto sum = hn::Set(d, total);
    for (std::size_t j = 0; j < z.cols; j += kRegister<T>) {
      hn::Store(hn::Div(hn::Load(d, row + j), sum), d, row + j);
    }
  }
}

template <class T>
void softmax_backward(MatrixView<const T> y, MatrixView<T> d_y) {
  const Tag<T> d;
  for (std::size_t i = 0; i < y.rows; ++i) {
    LaneSums<T> sums;
    for (std::size_t j = 0; j < y.cols; j += kLanes) {
      LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
        const std::size_t at = j + r * kRegister<T>;
        const auto valid = valid_lanes<T>(j, r, y.cols);
        sums.part[r] =
            hn::MulAdd(hn::IfThenElseZero(valid, hn::Load(d, y.row(i) + at)),
                       hn::IfThenElseZero(valid, hn::Load(d, d_y.row(i) + at)), sums.part[r]);
      }
    }
    const auto mean = hn::Set(d, sums.total());
    for (std::size_t j = 0; j < y.cols; j += kRegister<T>) {
      T* out = d_y.row(i) + j;
      const auto derivative = hn::Mul(hn::Load(d, y.row(i) + j), hn::Sub(hn::Load(d, out), mean));
      hn::Store(without_tiny(d, derivative), d, out);
    }
  }
}

// As nn/precision.hpp defines it, by adding to the bits that fall away; doubles by way of float.
struct RoundToBfloat16 {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
      const hn::Rebind<float, D> narrow;
      return hn::PromoteTo(d, (*this)(narrow, hn::DemoteTo(narrow, x)));
    } else {
      const hn::RebindToUnsigned<D> bits;
      const auto u = hn::BitCast(bits, x);
      const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(bits, 1));
      const auto rounded = hn::Add(hn::Add(u, hn::Set(bits, 0x7FFF)), odd);
      const auto quiet_nan = hn::Or(u, hn::Set(bits, 0x00400000u));
      const auto nearest =
          hn::IfThenElse(hn::IsNaN(x), hn::BitCast(d, quiet_nan), hn::BitCast(d, rounded));
      const auto upper_half = hn::BitCast(d, hn::Set(bits, 0xFFFF0000u));
      return hn::IfThenZeroElse(hn::Lt(hn::Abs(x), hn::Set(d, kLeastFactor)),
                                hn::And(nearest, upper_half));
    }
  }
};

template <class T>
void round_to_bfloat16(MatrixView<T> values) {
  map(values, RoundToBfloat16{});
}

template <class T>
void activate(Activation activation, T slope, MatrixView<T> z) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::sigmoid:
      return map(z, Sigmoid{});
    case Activation::tanh:
      return map(z, HyperbolicTangent{});
    case Activation::relu:
      return map(z, Relu{});
    case Activation::leaky_relu:
      return map(z, LeakyRelu<T>{slope});
    case Activation::softmax:
      return softmax(z);
  }
}

template <class T>
void activation_backward(Activation activation, T slope, MatrixView<const T> y, MatrixView<T> d_y) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::sigmoid:
      return map(y, d_y, Sigmoid{});
    case Activation::tanh:
      return map(y, d_y, HyperbolicTangent{});
    case Activation::relu:
      return map(y, d_y, Relu{});
    case Activation::leaky_relu:
      return map(y, d_y, LeakyRelu<T>{slope});
    case Activation::softmax:
      return softmax_backward(y, d_y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

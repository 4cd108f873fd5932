// Optimizer updates in one pass over flat buffers. Included once per instruction set.
#if defined(LOCKSTEP_NN_UPDATE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_UPDATE_INL
#undef LOCKSTEP_NN_UPDATE_INL
#else
#define LOCKSTEP_NN_UPDATE_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// The rules, each for one register: the step that is taken off the parameters, with g the gradient.
template <class T>
struct Rule {
  const Update<T>& u;
  const Tag<T> d;

  using V = Vector<T>;

  HWY_INLINE V load(const T* moment, std::size_t i) const { return hn::LoadU(d, moment + i); }
  HWY_INLINE void store(V v, T* moment, std::size_t i) const { hn::StoreU(v, d, moment + i); }

  // keep * old + take * x
  HWY_INLINE V blend(T keep, V old, T take, V x) const {
    return hn::MulAdd(hn::Set(d, keep), old, hn::Mul(hn::Set(d, take), x));
  }

  HWY_INLINE V root(V squares) const {
    const V epsilon = hn::Set(d, u.epsilon);
    return u.epsilon_inside_root ? hn::Sqrt(hn::Add(squares, epsilon))
                                 : hn::Add(hn::Sqrt(squares), epsilon);
  }

  HWY_INLINE V velocity(V g, std::size_t i) const {
    const V v = blend(u.keep1, load(u.moment1, i), u.take1, g);
    store(v, u.moment1, i);
    return v;
  }

  HWY_INLINE V mean_square(V g, std::size_t i) const {
    const V s = blend(u.keep2, load(u.moment2, i), u.take2, hn::Mul(g, g));
    store(s, u.moment2, i);
    return s;
  }

  template <UpdateRule kRule>
  HWY_INLINE V direction(V g, std::size_t i) const {
    if constexpr (kRule == UpdateRule::sgd) {
      return g;
    } else if constexpr (kRule == UpdateRule::momentum) {
      return velocity(g, i);
    } else if constexpr (kRule == UpdateRule::adam) {
      const V v = velocity(g, i);
      return hn::Div(v, root(hn::Mul(mean_square(g, i), hn::Set(d, u.correction2))));
    } else {
      return hn::Div(g, root(mean_square(g, i)));
    }
  }
};

template <UpdateRule kRule, class T>
double update_by(const Update<T>& u) {
  const Tag<T> d;
  const Rule<T> rule{u, d};
  const auto per_sample = hn::Set(d, u.per_sample);
  const auto step_size = hn::Set(d, u.step_size);
  const auto l1 = hn::Set(d, u.l1);
  const auto l2 = hn::Set(d, u.l2);
  const bool penalised = u.l1 != T{0} || u.l2 != T{0};
  LaneSums<T> squares;

  // Tensors are padded to whole groups with zeros, and zeros stay zeros under every rule.
  for (std::size_t j = 0; j < u.count; j += kLanes) {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
      const std::size_t i = j + r * kRegister<T>;
      auto g = hn::Mul(hn::LoadU(d, u.gradient + i), per_sample);
      squares.part[r] = hn::MulAdd(g, g, squares.part[r]);
      const auto w = hn::LoadU(d, u.parameters + i);
      if (penalised) {
        const auto sign = hn::IfThenElseZero(hn::Ne(w, hn::Zero(d)), hn::CopySign(l1, w));
        g = hn::MulAdd(l2, w, hn::Add(g, sign));
      }
      const auto direction = rule.template direction<kRule>(g, i);
      hn::StoreU(hn::NegMulAdd(step_size, direction, w), d, u.parameters + i);
    }
  }
  return static_cast<double>(squares.total());
}

template <class T>
double update(const Update<T>& u) {
  switch (u.rule) {
    case UpdateRule::sgd:
      return update_by<UpdateRule::sgd>(u);
    case UpdateRule::momentum:
      return update_by<UpdateRule::momentum>(u);
    case UpdateRule::adagrad:
      return update_by<UpdateRule::adagrad>(u);
    case UpdateRule::rmsprop:
      return update_by<UpdateRule::rmsprop>(u);
    case UpdateRule::adam:
      return update_by<UpdateRule::adam>(u);
  }
  return 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

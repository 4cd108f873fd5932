// The two halves of a LAMB update (nn/optimizer.hpp). Included once per instruction set.
//
// The first half takes the gradient into the moments and sums the squares of what trust ratios are
// made of. The second computes the direction again, from the moments, instead of reading it from
// where the first might have put it: each way reads and writes ten floats a parameter, and so the
// gradient stays as it is.
#if defined(LOCKSTEP_NN_LAMB_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_LAMB_INL
#undef LOCKSTEP_NN_LAMB_INL
#else
#define LOCKSTEP_NN_LAMB_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/lanes-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// One register of parameters.
template <class T>
class Lamb : private Terms<T> {
 public:
  using V = Vector<T>;

  HWY_INLINE explicit Lamb(const Update<T>& u) : Terms<T>(u) {}

  // The direction after the gradient's sum over the batch has been taken into the moments.
  HWY_INLINE V take_in(V gradient, V w, T* moment1, T* moment2) const {
    const V g = this->mean_gradient(gradient, w);
    const V mean = this->blend(u_.keep1, moment1, u_.take1, g, Whole());
    return direction(mean, this->blend(u_.keep2, moment2, u_.take2, hn::Mul(g, g), Whole()), w);
  }

  HWY_INLINE void move(T* parameters, const T* moment1, const T* moment2) const {
    const V w = hn::LoadU(d_, parameters);
    const V r = direction(hn::LoadU(d_, moment1), hn::LoadU(d_, moment2), w);
    hn::StoreU(hn::NegMulAdd(this->set(u_.step_size), r, w), d_, parameters);
  }

 private:
  using Terms<T>::d_;
  using Terms<T>::u_;

  HWY_INLINE V direction(V mean, V squares, V w) const {
    const V corrected = hn::Mul(mean, this->set(u_.correction1));
    const V root = this->root(hn::Mul(squares, this->set(u_.correction2)));
    return hn::MulAdd(this->set(u_.weight_decay), w, hn::Div(corrected, root));
  }
};

template <class T>
SquaredNorms lamb_moments(const Update<T>& u, const T* gradient, std::size_t count) {
  const Tag<T> d;
  const Lamb<T> lamb(u);
  LaneSums<T> parameters, directions;
  for (std::size_t j = 0; j < count; j += kLanes) {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
      const std::size_t i = j + r * kRegister<T>;
      const auto w = hn::LoadU(d, u.parameters + i);
      const auto direction =
          lamb.take_in(hn::LoadU(d, gradient + i), w, u.moment1 + i, u.moment2 + i);
      parameters.part[r] = hn::MulAdd(w, w, parameters.part[r]);
      directions.part[r] = hn::MulAdd(direction, direction, directions.part[r]);
    }
  }
  return {static_cast<double>(parameters.total()), static_cast<double>(directions.total())};
}

template <class T>
void lamb_move(const Update<T>& u, std::size_t count) {
  const Lamb<T> lamb(u);
  for (std::size_t i = 0; i < count; i += kRegister<T>) {
    lamb.move(u.parameters + i, u.moment1 + i, u.moment2 + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Optimizer updates: parameters and moments are read and written once. Included once per
// instruction set.
#if defined(LOCKSTEP_NN_UPDATE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_UPDATE_INL
#undef LOCKSTEP_NN_UPDATE_INL
#else
#define LOCKSTEP_NN_UPDATE_INL
#endif

#include <hwy/highway.h>

#include <cassert>

#include "nn/kernels/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// What the rules are made of. It keeps a copy of the rule, and so should be kept by whoever calls
// it in a loop: what is reached by a reference must be read again after every store of a parameter.
template <class T>
class Terms {
 public:
  using V = Vector<T>;

 protected:
  HWY_INLINE explicit Terms(const Update<T>& u) : u_(u), penalised_(u.l1 != T{0} || u.l2 != T{0}) {}

  HWY_INLINE V set(T value) const { return hn::Set(d_, value); }

  // The mean gradient and the penalties', from the sum of the gradient over the batch.
  HWY_INLINE V mean_gradient(V gradient, V w) const {
    const V g = hn::Mul(gradient, set(u_.per_sample));
    if (!penalised_) return g;
    const V sign = hn::IfThenElseZero(hn::Ne(w, hn::Zero(d_)), hn::CopySign(set(u_.l1), w));
    return hn::MulAdd(set(u_.l2), w, hn::Add(g, sign));
  }

  // moment = keep * moment + take * x
  template <class Access>
  HWY_INLINE V blend(T keep, T* moment, T take, V x, Access access) const {
    const V blended =
        without_tiny(d_, hn::MulAdd(set(keep), access.load(moment), hn::Mul(set(take), x)));
    access.store(blended, moment);
    return blended;
  }

  HWY_INLINE V root(V squares) const {
    return u_.epsilon_inside_root ? hn::Sqrt(hn::Add(squares, set(u_.epsilon)))
                                  : hn::Add(hn::Sqrt(squares), set(u_.epsilon));
  }

  Update<T> u_;
  bool penalised_;
  Tag<T> d_;
};

// Moves the parameters of one register by one rule, or of a part of it.
template <UpdateRule kRule, class T>
class Mover : private Terms<T> {
 public:
  using V = Vector<T>;

  HWY_INLINE explicit Mover(const Update<T>& u) : Terms<T>(u) {}

  // Whether parameters whose gradient is zero stay as they are: only plain SGD may leave them so. A
  // derivative that is not finite would make no number of them, and ends the run by all others.
  static constexpr bool kMayRest = kRule == UpdateRule::sgd;
  HWY_INLINE bool rests() const { return !this->penalised_; }

  // From the sum of the gradient over the batch. moment1 and moment2 are null where the rule has
  // none.
  template <class Access = Whole>
  HWY_INLINE void move(V gradient, T* parameters, T* moment1, T* moment2,
                       Access access = {}) const {
    const V w = access.load(parameters);
    const V g = this->mean_gradient(gradient, w);
    const V step = direction(g, moment1, moment2, access);
    access.store(hn::NegMulAdd(this->set(u_.step_size), step, w), parameters);
  }

 private:
  using Terms<T>::u_;

  // What is taken off the parameters, but for the size of the step.
  template <class Access>
  HWY_INLINE V direction(V g, T* moment1, T* moment2, Access access) const {
    if constexpr (kRule == UpdateRule::sgd) {
      return g;
    } else if constexpr (kRule == UpdateRule::momentum) {
      return this->blend(u_.keep1, moment1, u_.take1, g, access);
    } else {
      const bool adam = kRule == UpdateRule::adam;
      const V mean = adam ? this->blend(u_.keep1, moment1, u_.take1, g, access) : g;
      const V squares = this->blend(u_.keep2, moment2, u_.take2, hn::Mul(g, g), access);
      return hn::Div(mean,
                     this->root(adam ? hn::Mul(squares, this->set(u_.correction2)) : squares));
    }
  }
};

// Calls f(Mover) for the rule of the update. LAMB has halves of its own (lamb-inl.hpp).
template <class T, class F>
HWY_INLINE void with_mover(const Update<T>& u, const F& f) {
  switch (u.rule) {
    case UpdateRule::sgd:
      return f(Mover<UpdateRule::sgd, T>(u));
    case UpdateRule::momentum:
      return f(Mover<UpdateRule::momentum, T>(u));
    case UpdateRule::adagrad:
      return f(Mover<UpdateRule::adagrad, T>(u));
    case UpdateRule::rmsprop:
      return f(Mover<UpdateRule::rmsprop, T>(u));
    case UpdateRule::adam:
      return f(Mover<UpdateRule::adam, T>(u));
    case UpdateRule::lamb:
      break;
  }
  assert(false && "LAMB cannot move a parameter before it knows the norm of the tensor");
}

// Null stays null.
template <class T>
HWY_INLINE T* advance(T* p, std::size_t count) {
  return p == nullptr ? nullptr : p + count;
}

// Who moves parameters page by page moves those behind these next: has the first cache lines of
// them brought into the second-level cache. The processor follows a stream from there by itself,
// but to the end of its page alone.
template <class T>
HWY_INLINE void prefetch_next_page(const Update<T>& u, std::size_t count) {
  constexpr std::size_t kPage = 4096 / sizeof(T);
  constexpr std::size_t kLine = kAlignment / sizeof(T);
  if (count < kPage) return;
  for (const T* values : {u.parameters, u.moment1, u.moment2}) {
    if (values == nullptr) continue;
    for (std::size_t i = 0; i < 8 * kLine; i += kLine) __builtin_prefetch(values + count + i, 0, 2);
  }
}

// Tensors are padded to whole groups with zeros, and zeros stay zeros under every rule. The loops
// have copies of what they are told, for the reason that Terms has one.
template <class T>
void update(const Update<T>& u, const T* gradient, std::size_t count) {
  prefetch_next_page(u, count);
  with_mover(u, [=](const auto& mover) LOCKSTEP_LAMBDA {
    for (std::size_t j = 0; j < count; j += kLanes) {
      LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
        const std::size_t i = j + r * kRegister<T>;
        mover.move(hn::LoadU(Tag<T>(), gradient + i), u.parameters + i, advance(u.moment1, i),
                   advance(u.moment2, i));
      }
    }
  });
}

// The parameters of a tile: `rows` rows of `cols`, the first at `at`, `stride` apart. Rows of the
// gradient are `gradient_stride` apart, and whole registers may be read from them. Who knows rows
// or columns beforehand gives them as kRows or kCols too, for loops that the compiler undoes.
template <std::size_t kRows = 0, std::size_t kCols = 0, class T>
void update_rows(const Update<T>& u, const T* gradient, std::size_t rows,
                 std::size_t gradient_stride, std::size_t cols, std::size_t at,
                 std::size_t stride) {
  if constexpr (kRows > 0) rows = kRows;
  if constexpr (kCols > 0) cols = kCols;
  with_mover(u, [=](const auto& mover) LOCKSTEP_LAMBDA {
    const T* from = gradient;
    for (std::size_t r = 0, row = at; r < rows; ++r, row += stride, from += gradient_stride) {
      std::size_t j = 0;
      for (; j + kRegister<T> <= cols; j += kRegister<T>) {
        mover.move(hn::LoadU(Tag<T>(), from + j), u.parameters + row + j,
                   advance(u.moment1, row + j), advance(u.moment2, row + j));
      }
      if (j < cols) {
        mover.move(hn::LoadU(Tag<T>(), from + j), u.parameters + row + j,
                   advance(u.moment1, row + j), advance(u.moment2, row + j), Part{cols - j});
      }
    }
  });
}

// The sum over kLanes lanes of the squares of scale * values; count is a multiple of kLanes.
template <class T>
double sum_of_squares(const T* values, std::size_t count, T scale) {
  const Tag<T> d;
  LaneSums<T> squares;
  for (std::size_t j = 0; j < count; j += kLanes) {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) {
      const auto v = hn::Mul(hn::LoadU(d, values + j + r * kRegister<T>), hn::Set(d, scale));
      squares.part[r] = hn::MulAdd(v, v, squares.part[r]);
    }
  }
  return static_cast<double>(squares.total());
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

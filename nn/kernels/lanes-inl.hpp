// Vectors, and sums along a row over kLanes lanes. Included once per instruction set.
#if defined(LOCKSTEP_NN_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_LANES_INL
#undef LOCKSTEP_NN_LANES_INL
#else
#define LOCKSTEP_NN_LANES_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "nn/kernels/kernels.hpp"

// Attributes of a lambda in a kernel: compiled for the same instruction set as the function around
// it, and a part of it.
#define LOCKSTEP_LAMBDA HWY_ATTR __attribute__((always_inline))

// Loops over registers must vanish, or the registers would have addresses.
#if HWY_COMPILER_CLANG
#define LOCKSTEP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LOCKSTEP_UNROLL _Pragma("GCC unroll 32")
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most kLanes elements of a register: wider ones, should they come, would change the sums.
template <class T>
using Tag = hn::CappedTag<T, kLanes>;
template <class T>
using Vector = hn::Vec<Tag<T>>;

template <class T>
inline constexpr std::size_t kRegister = hn::MaxLanes(Tag<T>());  // elements of a register
template <class T>
inline constexpr std::size_t kRegisters = kLanes / kRegister<T>;  // registers of a group of lanes

// f(0), …, f(kCount - 1), each argument a constant: for arrays of registers, which a compiler keeps
// in registers only where it sees every index before it thinks about loops.
template <std::size_t kCount, class F>
HWY_INLINE void unrolled(const F& f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) LOCKSTEP_LAMBDA {
    (f(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<kCount>{});
}

// How a register comes from memory and goes there: all of it, …
struct Whole {
  template <class T>
  HWY_INLINE Vector<T> load(const T* from) const {
    return hn::LoadU(Tag<T>(), from);
  }
  template <class T>
  HWY_INLINE void store(Vector<T> v, T* to) const {
    hn::StoreU(v, Tag<T>(), to);
  }
};

// … or the first `count` elements, with zeros behind them. No more than these is written, nor what
// was there before: it may be another thread's.
struct Part {
  std::size_t count;

#if HWY_ARCH_X86
  template <class T>
  HWY_INLINE Vector<T> load(const T* from) const {
    const Tag<T> d;
    return hn::MaskedLoad(hn::FirstN(d, count), d, from);
  }
  template <class T>
  HWY_INLINE void store(Vector<T> v, T* to) const {
    const Tag<T> d;
    hn::BlendedStore(v, hn::FirstN(d, count), d, to);
  }
#else
  template <class T>
  HWY_INLINE Vector<T> load(const T* from) const {
    HWY_ALIGN T copy[kRegister<T>] = {};
    std::copy_n(from, count, copy);
    return hn::Load(Tag<T>(), copy);
  }
  template <class T>
  HWY_INLINE void store(Vector<T> v, T* to) const {
    HWY_ALIGN T copy[kRegister<T>];
    hn::Store(v, Tag<T>(), copy);
    std::copy_n(copy, count, to);
  }
#endif
};

// kLanes partial sums, held in as many registers as they need.
template <class T>
struct LaneSums {
  Vector<T> part[kRegisters<T>];

  HWY_INLINE LaneSums() { LOCKSTEP_UNROLL for (auto& p : part) p = hn::Zero(Tag<T>()); }

  // The lanes, added pairwise: (0+8)+(4+12) and so on, as halves folded onto each other.
  HWY_INLINE T total() const {
    Vector<T> folded[kRegisters<T>];
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRegisters<T>; ++r) folded[r] = part[r];
    LOCKSTEP_UNROLL for (std::size_t half = kRegisters<T> / 2; half > 0; half /= 2) {
      LOCKSTEP_UNROLL for (std::size_t r = 0; r < half; ++r) {
        folded[r] = hn::Add(folded[r], folded[r + half]);
      }
    }
    return fold(Tag<T>(), folded[0]);
  }

 private:
  template <class D>
  static HWY_INLINE T fold([[maybe_unused]] D d, hn::Vec<D> v) {
#if HWY_TARGET != HWY_SCALAR  // where registers have no halves
    if constexpr (hn::MaxLanes(d) > 1) {
      const hn::Half<D> half;
      return fold(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
    }
#endif
    return hn::GetLane(v);
  }
};

// The lanes of register `r` of the group that starts at column `col` which lie within `cols`.
template <class T>
HWY_INLINE hn::Mask<Tag<T>> valid_lanes(std::size_t col, std::size_t r, std::size_t cols) {
  const std::size_t first = col + r * kRegister<T>;
  return hn::FirstN(Tag<T>(), first < cols ? cols - first : 0);
}

// Derivatives and moments below this size count as zero. Units that are saturated and classes that
// are as good as ruled out have derivatives so small that products with them would be subnormal
// numbers, for each of which a processor may take a hundred cycles; and a moment whose gradient has
// died out would end among them for good, since there 0.9 times the smallest number is that number
// again.
template <class T>
inline constexpr T kLeast = std::is_same_v<T, float> ? T(0x1p-96) : T(0x1p-960);

template <class D, class V>
HWY_INLINE V without_tiny(D d, V values) {
  const auto least = hn::Set(d, kLeast<hn::TFromD<D>>);
  return hn::IfThenZeroElse(hn::Lt(hn::Abs(values), least), values);  // NaN stays NaN
}

// The largest of a row, whose lanes beyond the columns may hold anything. Which one it is where
// there is a NaN depends on the processor.
template <class T>
HWY_INLINE T largest(const T* row, std::size_t cols) {
  const Tag<T> d;
  auto most = hn::Set(d, row[0]);
  for (std::size_t j = 0; j < cols; j += kRegister<T>) {
    most = hn::Max(most, hn::IfThenElse(valid_lanes<T>(j, 0, cols), hn::Load(d, row + j), most));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Which steps of its factors a tile takes. Included once per instruction set.
//
// A product with zero changes no sum of finite terms but for the sign of a sum that is zero, and in
// the end all of these are +0 (product-inl.hpp). So steps in which a factor is zero may be left
// out, and with them the weights that they would read. That pays for one sample at a time: half of
// the pixels of an image may be zero, and half of the units behind relu are. Of several samples few
// zeros are at the same place.
#if defined(LOCKSTEP_NN_STEPS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_STEPS_INL
#undef LOCKSTEP_NN_STEPS_INL
#else
#define LOCKSTEP_NN_STEPS_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "nn/kernels/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Factors are asked for so many steps before they are used: the second-level cache, where most of a
// packed one lies, answers in less time.
inline constexpr std::size_t kStepsAhead = 8;

// The first `count`, one after the other, …
struct EveryStep {
  std::size_t count;

  HWY_INLINE std::size_t first() const { return 0; }
  // From the i-th step taken to the next, and to the one that is to be asked for meanwhile.
  HWY_INLINE std::size_t to_next(std::size_t) const { return 1; }
  HWY_INLINE std::size_t ahead(std::size_t) const { return kStepsAhead; }
};

// … or those that are listed, in ascending order. The last is listed kStepsAhead times more.
template <class Index>
struct ListedSteps {
  const Index* list;
  std::size_t count;

  HWY_INLINE std::size_t first() const { return list[0]; }
  HWY_INLINE std::size_t to_next(std::size_t i) const { return list[i + 1] - list[i]; }
  HWY_INLINE std::size_t ahead(std::size_t i) const { return list[i + kStepsAhead] - list[i]; }
};

// The places in a row, of kDepthBlock elements at most, that are not zero: those of a NaN too.
template <class T>
class NonzeroPlaces {
 public:
  using Index = hwy::MakeUnsigned<T>;

  HWY_INLINE NonzeroPlaces(const T* row, std::size_t cols) {
    assert(cols <= kDepthBlock);
    const Tag<T> d;
    const hn::RebindToUnsigned<Tag<T>> d_index;
    auto places = hn::Iota(d_index, 0);
    for (std::size_t j = 0; j < cols; j += kRegister<T>) {
      // Ne would be false of a NaN on some processors.
      const auto nonzero = hn::Not(hn::Eq(hn::LoadU(d, row + j), hn::Zero(d)));
      const auto found = hn::RebindMask(d_index, hn::And(nonzero, valid_lanes<T>(j, 0, cols)));
      // Not CompressStore, for which AVX-512's instruction is slow on some processors.
      hn::StoreU(hn::Compress(places, found), d_index, list_ + count_);
      count_ += hn::CountTrue(d_index, found);
      places = hn::Add(places, hn::Set(d_index, Index{kRegister<T>}));
    }
    std::fill_n(list_ + count_, kStepsAhead, count_ == 0 ? Index{0} : list_[count_ - 1]);
  }

  HWY_INLINE std::size_t count() const { return count_; }
  HWY_INLINE std::size_t operator[](std::size_t i) const { return list_[i]; }
  HWY_INLINE ListedSteps<Index> steps() const { return {list_, count_}; }

 private:
  std::size_t count_ = 0;
  // Whole registers are written, of which what counts lies before the column that was read.
  static_assert(kDepthBlock % kRegister<T> == 0);
  Index list_[kDepthBlock + kStepsAhead];
};

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

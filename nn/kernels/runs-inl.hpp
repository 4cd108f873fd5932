// Sums of products of bfloat16 factors. Included once per instruction set.
//
// Terms are summed in runs of kRun, each from +0 on; the sums of two neighbouring runs are added to
// each other, and then to all before them. This is how AMX adds (amx-inl.hpp), whose instruction
// takes in two runs for each of 256 sums; here the same is done by fused multiply-adds, one term or
// two at a time (pairs-inl.hpp). A run's sum is never -0, since it begins as +0, so terms of zero,
// with which the last run may be filled up, change nothing.
#if defined(LOCKSTEP_NN_RUNS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_RUNS_INL
#undef LOCKSTEP_NN_RUNS_INL
#else
#define LOCKSTEP_NN_RUNS_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Terms one by one. A tile has two runs in its registers, so half as many rows.
struct Runs {
  static constexpr std::size_t kTerms = 1;
  static constexpr std::size_t kGroup = 1;
  static constexpr bool kInRuns = true;
  static constexpr std::size_t kRows = kTileRows / 2;

  template <class V>
  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }
};

// sum[r, :] += the products of `steps` steps, which begin with a whole run; = if `first`. Rows of
// the sum are `stride` apart, and whole registers of them are written.
template <std::size_t kRows, std::size_t kVectors, class T, class Terms>
HWY_INLINE void sum_runs(std::size_t steps, const TileFactors<T, Terms>& factors, T* sum,
                         std::size_t stride, bool first) {
  constexpr std::size_t kSteps = kRun / Terms::kTerms;  // of a run
  TileFactors<T, Terms> one = factors;
  for (std::size_t left = steps; left > 0;) {
    const std::size_t of_first = std::min(left, kSteps);
    const std::size_t of_second = std::min(left - of_first, kSteps);
    const TileFactors<T, Terms> two = one.from(kSteps);
    Tile<T, kRows, kVectors> run[2];
    run[0].clear();
    run[1].clear();
    for (std::size_t p = 0; p < of_second; ++p) {
      run[0].accumulate(one, p);
      run[1].accumulate(two, p);
    }
    for (std::size_t p = of_second; p < of_first; ++p) run[0].accumulate(one, p);
    run[0].add(run[1]);
    if (!first) run[0].add(sum, stride);
    run[0].store(sum, stride);
    first = false;
    left -= of_first + of_second;
    one = two.from(kSteps);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

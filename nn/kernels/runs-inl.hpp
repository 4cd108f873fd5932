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

// Steps of two runs.
template <class Terms>
inline constexpr std::size_t kTwoRuns = 2 * kRun / Terms::kTerms;

// sum = the products of `steps` steps, which are those of two runs at the most. `meanwhile` is
// called for every step of the first, which has half of them or more.
template <class T, class Terms, std::size_t kRows, std::size_t kVectors, class Meanwhile = Nothing>
HWY_INLINE void sum_two_runs(std::size_t steps, const TileFactors<T, Terms>& factors,
                             Tile<T, kRows, kVectors>& sum, Meanwhile meanwhile = {}) {
  constexpr std::size_t kSteps = kTwoRuns<Terms> / 2;  // of a run
  const std::size_t of_first = std::min(steps, kSteps);
  const std::size_t of_second = steps - of_first;
  const TileFactors<T, Terms> two = factors.from(kSteps);
  Tile<T, kRows, kVectors> second;
  sum.clear();
  second.clear();
  for (std::size_t p = 0; p < of_second; ++p) {
    sum.accumulate(factors, p);
    second.accumulate(two, p);
    meanwhile();
  }
  for (std::size_t p = of_second; p < of_first; ++p) {
    sum.accumulate(factors, p);
    meanwhile();
  }
  sum.add(second);
}

// sum[r, :] += the products of `steps` steps, which begin with a whole run; = if `first`. Rows of
// the sum are `stride` apart, and whole registers of them are written.
template <std::size_t kRows, std::size_t kVectors, class T, class Terms>
HWY_INLINE void sum_runs(std::size_t steps, const TileFactors<T, Terms>& factors, T* sum,
                         std::size_t stride, bool first) {
  for (std::size_t step = 0; step < steps; step += kTwoRuns<Terms>) {
    Tile<T, kRows, kVectors> runs;
    sum_two_runs(std::min(steps - step, kTwoRuns<Terms>), factors.from(step), runs);
    if (!first) runs.add(sum, stride);
    runs.store(sum, stride);
    first = false;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Products of bfloat16 factors, two terms in one instruction. Included once per instruction set;
// there is something here for those whose processors may have that instruction.
//
// AVX-512's vdpbf16ps adds to a sum the product of the upper halves of two pairs and then that of
// the lower ones, each exact, each addition rounded to nearest, ties to even: the bits of two fused
// multiply-adds in sequence. That is so only while no subnormal number comes up, which
// nn/precision.hpp sees to. A run of kRun terms is half as many pairs.
#if defined(LOCKSTEP_NN_PAIRS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PAIRS_INL
#undef LOCKSTEP_NN_PAIRS_INL
#else
#define LOCKSTEP_NN_PAIRS_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/gradient-inl.hpp"
#include "nn/kernels/pack-pairs-inl.hpp"
#include "nn/kernels/product-inl.hpp"
#include "nn/kernels/runs-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

struct Pairs {
  static constexpr std::size_t kTerms = 2;
  static constexpr std::size_t kDistance = 1;  // between the two
  static constexpr std::size_t kGroup = 2;
  static constexpr bool kInRuns = true;
  static constexpr std::size_t kRows = kTileRows / 2;

  // sum + a b of the upper halves + a b of the lower halves. By its name, since a compiler's
  // function for it could be a part of such functions only as are compiled for this instruction
  // too.
  template <class V>
  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};

// Several steps at a time, as for single factors.
inline void pack_pair_strips(MatrixView<const float> matrix, std::size_t begin, std::size_t end,
                             std::size_t step, float* packed) {
  static_assert(kTileRows <= kRegister<float>);
  constexpr std::size_t kRowsAtOnce = 8 * Pairs::kTerms;
  const Tag<float> d;
  const std::size_t strip_size = matrix.rows * kTileRows;
  packed += step * kTileRows;
  for (std::size_t row = begin; row < end; row += kRowsAtOnce) {
    const std::size_t row_end = std::min(row + kRowsAtOnce, end);
    float* strip = packed;
    for (std::size_t j = 0; j < matrix.cols; j += kTileRows, strip += strip_size) {
      const auto valid = hn::FirstN(d, std::min(kTileRows, matrix.cols - j));
      float* to = strip;
      for (std::size_t i = row; i < row_end; i += Pairs::kTerms, to += kTileRows) {
        const float* from = matrix.row(i) + j;
        const auto first = hn::MaskedLoad(valid, d, from);
        const auto second =
            i + 1 < row_end ? hn::MaskedLoad(valid, d, from + matrix.stride) : hn::Zero(d);
        hn::BlendedStore(PairRounded().beside(first, second), valid, d, to);
      }
    }
    packed += kRowsAtOnce / Pairs::kTerms * kTileRows;
  }
}

inline const PairKernels<float>* pair_kernels(float) {
  static const PairKernels<float> kernels{.terms_at_once = 2,
                                          .tile_inputs = kTileRows,
                                          .pack_pairs = pack_pairs<Pairs>,
                                          .pack_factor = pack_factor_pairs<Pairs>,
                                          .product_panels = product_panels_of<Pairs, float>,
                                          .pack_panels = pack_pair_panels<Pairs>,
                                          .pack_strips = pack_pair_strips,
                                          .weight_gradient = weight_gradient_of<Pairs, float>};
  return &kernels;
}

#endif  // AVX-512

// Null where there is no instruction for it, or for other types.
template <class T>
const PairKernels<T>* pair_kernels(T) {
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

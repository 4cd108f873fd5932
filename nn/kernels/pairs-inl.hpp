// Products of bfloat16 factors, two terms in one instruction. Included once per instruction set;
// there is something here for those whose processors may have that instruction.
//
// A pair is 32 bits, kept as a float that nobody computes with: the factor of the first term in the
// upper half, that of the second in the lower. AVX-512's vdpbf16ps adds to a sum the product of the
// upper halves and then that of the lower ones, each exact, each addition rounded to nearest, ties
// to even: the bits of two fused multiply-adds in sequence. That is so only while no subnormal
// number comes up, which nn/precision.hpp sees to. An odd number of terms is filled up by a pair's
// lower halves of zero: the sum it is added to began as +0, so it is never -0, and 0 changes none
// other.
#if defined(LOCKSTEP_NN_PAIRS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PAIRS_INL
#undef LOCKSTEP_NN_PAIRS_INL
#else
#define LOCKSTEP_NN_PAIRS_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "nn/kernels/gradient-inl.hpp"
#include "nn/kernels/pack-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"
#include "nn/kernels/product-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

struct Pairs {
  static constexpr std::size_t kTerms = 2;

  // sum + a b of the upper halves + a b of the lower halves. By its name, since a compiler's
  // function for it could be a part of such functions only as are compiled for this instruction
  // too.
  template <class V>
  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};

// How registers of factors that are rounded already become one of pairs.
struct PairRounded {
  // From one of first factors and one of second ones.
  template <class V>
  HWY_INLINE V beside(V first, V second) const {
    const Tag<float> d;
    const hn::RebindToUnsigned<Tag<float>> bits;
    const auto lower = hn::ShiftRight<16>(hn::BitCast(bits, second));
    return hn::BitCast(d, hn::Or(hn::BitCast(bits, first), lower));
  }

  // From two of factors that follow one another.
  template <class V>
  HWY_INLINE V along(V low, V high) const {
    const Tag<float> d;
    return beside(hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low));
  }
};

// The same for factors that are to be rounded: as RoundToBfloat16 does, by a third of its
// instructions.
struct RoundAndPair {
  template <class V>
  HWY_INLINE V beside(V first, V second) const {
    alignas(kAlignment) static constexpr std::uint16_t kInterleaved[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_load_si512(kInterleaved);
    return V{_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, rounded(second, first)))};
  }

  template <class V>
  HWY_INLINE V along(V low, V high) const {
    return V{_mm512_castsi512_ps(_mm512_rol_epi32(rounded(low, high), 16))};
  }

 private:
  // Two registers as 32 bfloat16, those of `low` in the lower half.
  template <class V>
  static HWY_INLINE __m512i rounded(V low, V high) {
    const auto least = hn::Set(Tag<float>(), kLeastFactor);
    low = hn::IfThenZeroElse(hn::Lt(hn::Abs(low), least), low);
    high = hn::IfThenZeroElse(hn::Lt(hn::Abs(high), least), high);
    __m512i both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(high.raw), "v"(low.raw));
    return both;
  }
};

// pairs[i] = factors 2 i and 2 i + 1 of a row, zero where the row has ended.
template <class MakePairs>
HWY_INLINE void pack_row_pairs(const float* row, std::size_t count, float* pairs,
                               const MakePairs& make) {
  constexpr std::size_t kAtOnce = 2 * kRegister<float>;
  const Tag<float> d;
  const auto load = [&](const float* from) LOCKSTEP_LAMBDA {
    return make.along(hn::LoadU(d, from), hn::LoadU(d, from + kRegister<float>));
  };
  std::size_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) hn::StoreU(load(row + i), d, pairs + i / 2);
  if (i == count) return;
  alignas(kAlignment) float rest[kAtOnce] = {};
  std::copy_n(row + i, count - i, rest);
  hn::StoreU(load(rest), d, rest);
  std::copy_n(rest, (count - i + 1) / 2, pairs + i / 2);
}

// Rows of factors that are rounded already become rows of pairs.
inline void pack_pairs(MatrixView<const float> rows, MatrixView<float> pairs) {
  for (std::size_t i = 0; i < rows.rows; ++i) {
    pack_row_pairs(rows.row(i), rows.cols, pairs.row(i), PairRounded());
  }
}

// to = the pairs of two rows, for the `cols` columns of a panel, zero beyond them. No second row:
// null.
template <class MakePairs>
HWY_INLINE void pack_panel_pair(const float* first, const float* second, std::size_t cols,
                                float* to, const MakePairs& make) {
  const Tag<float> d;
  for (std::size_t j = 0; j < kPanel<float>; j += kRegister<float>) {
    const auto load = [&](const float* row) LOCKSTEP_LAMBDA {
      if (row == nullptr) return hn::Zero(d);
      if (HWY_LIKELY(j + kRegister<float> <= cols)) return hn::LoadU(d, row + j);
      return hn::MaskedLoad(valid_lanes<float>(j, 0, cols), d, row + j);
    };
    hn::StoreU(make.beside(load(first), load(second)), d, to + j);
  }
}

// As for single factors, both terms of a pair from neighbouring rows.
template <class MakePairs>
HWY_INLINE void pack_pairs_of_rows(MatrixView<const float> rows, std::size_t panel_size,
                                   float* packed, const MakePairs& make) {
  for (std::size_t p = 0; p < rows.rows; p += Pairs::kTerms, packed += kPanel<float>) {
    const float* first = rows.row(p);
    const float* second = p + 1 < rows.rows ? first + rows.stride : nullptr;
    float* to = packed;
    for (std::size_t j = 0; j < rows.cols; j += kPanel<float>, to += panel_size) {
      pack_panel_pair(first + j, second == nullptr ? nullptr : second + j,
                      std::min(kPanel<float>, rows.cols - j), to, make);
    }
  }
}

// Rows [p, p + length) of some panels of b, rounded on their way.
HWY_INLINE void pack_block(Pairs, const Product<float>& product, std::size_t p, std::size_t length,
                           std::size_t col, std::size_t cols, std::size_t panel_size,
                           float* packed) {
  const std::size_t stride = product.b_stride;
  if (!product.b_transposed) {
    return pack_pairs_of_rows({product.b + p * stride + col, length, cols, stride}, panel_size,
                              packed, RoundAndPair());
  }
  // Along its rows b has the pairs of a column side by side: they are transposed as floats are.
  constexpr std::size_t kStride = padded_stride(steps_of<Pairs>(kDepthBlock));
  alignas(kAlignment) float pairs[kPanel<float> * kStride];
  for (std::size_t j = 0; j < cols; j += kPanel<float>, packed += panel_size) {
    const std::size_t panel_cols = std::min(kPanel<float>, cols - j);
    for (std::size_t i = 0; i < panel_cols; ++i) {
      pack_row_pairs(product.b + (col + j + i) * stride + p, length, pairs + i * kStride,
                     RoundAndPair());
    }
    pack_transposed(pairs, kStride, steps_of<Pairs>(length), panel_cols, packed);
  }
}

// Rows [begin, end) of one leaf become its steps from `step` on.
inline void pack_pair_panels(MatrixView<const float> matrix, std::size_t begin, std::size_t end,
                             std::size_t step, float* packed) {
  pack_pairs_of_rows({matrix.row(begin), end - begin, matrix.cols, matrix.stride},
                     matrix.rows * kPanel<float>, packed + step * kPanel<float>, PairRounded());
}

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
  static const PairKernels<float> kernels{pack_pairs, product_panels<float, Pairs>,
                                          pack_pair_panels, pack_pair_strips,
                                          weight_gradient<float, Pairs>};
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

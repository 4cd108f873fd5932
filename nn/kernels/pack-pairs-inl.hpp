// bfloat16 factors of products brought together in pairs, in the order in which a tile reads them.
// Included once per instruction set; there is something here for those whose processors may have
// instructions for pairs.
//
// A pair is 32 bits, kept as a float that nobody computes with: one factor in the upper half, that
// of a later term in the lower. `Terms` says which term that is, kDistance after the first: of
// 2 * kDistance neighbouring terms each pair has one of the first half and one of the second.
#if defined(LOCKSTEP_NN_PACK_PAIRS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PACK_PAIRS_INL
#undef LOCKSTEP_NN_PACK_PAIRS_INL
#else
#define LOCKSTEP_NN_PACK_PAIRS_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "nn/kernels/pack-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

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

// The pairs of 32 neighbouring terms.
template <class Terms, class MakePairs, class V>
HWY_INLINE V pairs_of(const MakePairs& make, V low, V high) {
  if constexpr (Terms::kDistance == 1) {
    return make.along(low, high);
  } else {
    static_assert(Terms::kDistance == kRegister<float>);
    return make.beside(low, high);
  }
}

// Terms of a row become its steps, zero where the row has ended.
template <class Terms, class MakePairs>
HWY_INLINE void pack_row_pairs(const float* row, std::size_t count, float* pairs,
                               const MakePairs& make) {
  constexpr std::size_t kAtOnce = 2 * kRegister<float>;
  const Tag<float> d;
  const auto load = [&](const float* from) LOCKSTEP_LAMBDA {
    return pairs_of<Terms>(make, hn::LoadU(d, from), hn::LoadU(d, from + kRegister<float>));
  };
  std::size_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) hn::StoreU(load(row + i), d, pairs + i / 2);
  if (i == count) return;
  alignas(kAlignment) float rest[kAtOnce] = {};
  std::copy_n(row + i, count - i, rest);
  hn::StoreU(load(rest), d, rest);
  std::copy_n(rest, steps_of<Terms>(count - i), pairs + i / 2);
}

// Rows of factors that are rounded already become rows of pairs.
template <class Terms>
void pack_pairs(MatrixView<const float> rows, MatrixView<float> pairs) {
  for (std::size_t i = 0; i < rows.rows; ++i) {
    pack_row_pairs<Terms>(rows.row(i), rows.cols, pairs.row(i), PairRounded());
  }
}

// to = the pairs of two rows, for the `cols` columns of a panel, zero beyond them. A row may be
// missing: null.
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

// Calls pack(step, first, second) for the steps of so many neighbouring terms, with the numbers of
// both terms; a step beyond the last term has numbers beyond it.
template <class Terms, class Pack>
HWY_INLINE void for_each_pair(std::size_t terms, const Pack& pack) {
  for (std::size_t step = 0; step < steps_of<Terms>(terms); ++step) {
    const std::size_t first =
        step / Terms::kDistance * 2 * Terms::kDistance + step % Terms::kDistance;
    pack(step, first, first + Terms::kDistance);
  }
}

// As for single factors, both terms of a pair from rows of their own.
template <class Terms, class MakePairs>
HWY_INLINE void pack_pairs_of_rows(MatrixView<const float> rows, std::size_t panel_size,
                                   float* packed, const MakePairs& make) {
  for_each_pair<Terms>(
      rows.rows, [&](std::size_t step, std::size_t first, std::size_t second) LOCKSTEP_LAMBDA {
        const float* a = first < rows.rows ? rows.row(first) : nullptr;
        const float* b = second < rows.rows ? rows.row(second) : nullptr;
        float* to = packed + step * kPanel<float>;
        for (std::size_t j = 0; j < rows.cols; j += kPanel<float>, to += panel_size) {
          pack_panel_pair(a == nullptr ? nullptr : a + j, b == nullptr ? nullptr : b + j,
                          std::min(kPanel<float>, rows.cols - j), to, make);
        }
      });
}

// See PairKernels.
template <class Terms>
void pack_factor_pairs(const Product<float>& product, std::size_t p, std::size_t length,
                       std::size_t panel, std::size_t panels, float* packed) {
  const std::size_t stride = product.b_stride;
  const std::size_t col = panel * kPanel<float>;
  const std::size_t cols = std::min(panels * kPanel<float>, product.c.cols - col);
  packed += steps_of<Terms>(p) * kPanel<float>;
  if (!product.b_transposed) {
    return pack_pairs_of_rows<Terms>({product.b + p * stride + col, length, cols, stride},
                                     product.b_panel, packed, RoundAndPair());
  }
  // Along its rows b has the pairs of a column side by side: they are transposed as floats are.
  constexpr std::size_t kStride = padded_stride(steps_of<Terms>(kDepthBlock));
  alignas(kAlignment) float pairs[kPanel<float> * kStride];
  for (std::size_t j = 0; j < cols; j += kPanel<float>, packed += product.b_panel) {
    const std::size_t panel_cols = std::min(kPanel<float>, cols - j);
    for (std::size_t i = 0; i < panel_cols; ++i) {
      pack_row_pairs<Terms>(product.b + (col + j + i) * stride + p, length, pairs + i * kStride,
                            RoundAndPair());
    }
    pack_transposed(pairs, kStride, steps_of<Terms>(length), panel_cols, packed);
  }
}

// Rows [begin, end) of one leaf become its steps from `step` on.
template <class Terms>
void pack_pair_panels(MatrixView<const float> matrix, std::size_t begin, std::size_t end,
                      std::size_t step, float* packed) {
  pack_pairs_of_rows<Terms>({matrix.row(begin), end - begin, matrix.cols, matrix.stride},
                            matrix.rows * kPanel<float>, packed + step * kPanel<float>,
                            PairRounded());
}

#endif  // AVX-512

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

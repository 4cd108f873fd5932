// Products of bfloat16 factors by AMX, 512 terms for each of 16 rows in one instruction. Included
// once per instruction set; there is something here for those whose processors may have AMX.
//
// The tdpbf16ps of a processor (Intel SDM, volume 2) multiplies 16 rows of 16 pairs with 16 rows of
// pairs of 16 columns. For each of the 256 sums it adds up the products of the lower halves of the
// pairs, one after the other, and those of the upper halves, each sum beginning at +0, each
// addition rounded to nearest, ties to even; adds these two; and that to the sum that was there:
// two runs of kRun terms (runs-inl.hpp). Subnormal numbers would count as zero, but none comes up
// (nn/precision.hpp).
//
// Eight tile registers: sums in 0 to 3, up to two by two tiles; factors in 4 and 5, and 6 and 7.
#if defined(LOCKSTEP_NN_AMX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_AMX_INL
#undef LOCKSTEP_NN_AMX_INL
#else
#define LOCKSTEP_NN_AMX_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "nn/kernels/gradient-inl.hpp"
#include "nn/kernels/pack-pairs-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

inline constexpr std::size_t kAmxRows = 16;  // and columns, and pairs along the depth
inline constexpr std::size_t kAmxTile = kAmxRows * kAmxRows;

struct Amx {
  static constexpr std::size_t kTerms = 2;
  static constexpr std::size_t kDistance = kRun;
  static constexpr std::size_t kGroup = 2 * kRun;
  static constexpr bool kInRuns = true;
};
static_assert(steps_of<Amx>(Amx::kGroup) == kAmxRows);

// Tile registers of 16 rows of 64 bytes, for as long as this lives: only between may they be used.
class AmxRegisters {
 public:
  HWY_INLINE AmxRegisters() {
    static constexpr Configuration kWhole{};
    asm volatile("ldtilecfg %0" : : "m"(kWhole));
  }
  HWY_INLINE ~AmxRegisters() { asm volatile("tilerelease"); }
  AmxRegisters(const AmxRegisters&) = delete;
  AmxRegisters& operator=(const AmxRegisters&) = delete;

 private:
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
};

// Instructions by their names, for the reason that Pairs::multiply_add() has. Strides in bytes.
template <std::size_t kTile>
HWY_INLINE void amx_clear() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <std::size_t kTile>
HWY_INLINE void amx_load(const float* from, std::size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
// The same for what is not read again soon: it drives nothing else out of the first-level cache.
template <std::size_t kTile>
HWY_INLINE void amx_load_once(const float* from, std::size_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <std::size_t kTile>
HWY_INLINE void amx_store(float* to, std::size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
template <std::size_t kSum, std::size_t kA, std::size_t kB>
HWY_INLINE void amx_multiply_add() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

// Factors of kA by kB tiles. Pair p of row r of a is at
// a + r / 16 * a_tile + p / 16 * a_group + r % 16 * a_row + p % 16; of column c of b at
// b + p * kPanel + c.
struct AmxFactors {
  const float* a;
  std::size_t a_tile, a_group, a_row;
  const float* b;
};

// Sums of kA by kB tiles, kPanel columns a row in memory.
template <std::size_t kA, std::size_t kB>
struct AmxSums {
  static constexpr std::size_t kStride = kPanel<float> * sizeof(float);

  // f(number of the sum, of the tile of a, of that of b), all constants.
  template <class F>
  static HWY_INLINE void for_each(const F& f) {
    unrolled<kA * kB>([&](auto i) LOCKSTEP_LAMBDA {
      f(i, std::integral_constant<std::size_t, i / kB>{},
        std::integral_constant<std::size_t, i % kB>{});
    });
  }
  static HWY_INLINE void clear() {
    for_each([](auto i, auto, auto) LOCKSTEP_LAMBDA { amx_clear<i>(); });
  }
  static HWY_INLINE void load(const float* sums) {
    for_each([&](auto i, auto r, auto c)
                 LOCKSTEP_LAMBDA { amx_load<i>(sums + place(r, c), kStride); });
  }
  static HWY_INLINE void store(float* sums) {
    for_each([&](auto i, auto r, auto c)
                 LOCKSTEP_LAMBDA { amx_store<i>(sums + place(r, c), kStride); });
  }

  // += the products of so many steps, a whole number of groups.
  static HWY_INLINE void multiply_add(const AmxFactors& factors, std::size_t steps) {
    const float* a = factors.a;
    const float* b = factors.b;
    const std::size_t a_stride = factors.a_row * sizeof(float);
    for (std::size_t step = 0; step < steps; step += kAmxRows) {
      unrolled<kA>([&](auto i)
                       LOCKSTEP_LAMBDA { amx_load_once<4 + i>(a + i * factors.a_tile, a_stride); });
      unrolled<kB>([&](auto i) LOCKSTEP_LAMBDA { amx_load<6 + i>(b + i * kAmxRows, kStride); });
      for_each([](auto i, auto r, auto c) LOCKSTEP_LAMBDA { amx_multiply_add<i, 4 + r, 6 + c>(); });
      a += factors.a_group;
      b += kAmxRows * kPanel<float>;
    }
  }

 private:
  static constexpr std::size_t place(std::size_t r, std::size_t c) {
    return r * kAmxRows * kPanel<float> + c * kAmxRows;
  }
};

// Calls f(AmxSums) for as many tiles as rows and columns take, at most two by two.
template <class F>
HWY_INLINE void with_amx_sums(std::size_t rows, std::size_t cols, const F& f) {
  if (rows > kAmxRows) {
    if (cols > kAmxRows) return f(AmxSums<2, 2>());
    return f(AmxSums<2, 1>());
  }
  if (cols > kAmxRows) return f(AmxSums<1, 2>());
  f(AmxSums<1, 1>());
}

// Rows of a of one tile, or of two.
inline constexpr std::size_t kAmxStrip = 2 * kAmxRows;

inline constexpr std::size_t kAmxSums = kAmxStrip * kPanel<float>;  // of a strip and a panel

// At most so many steps of a panel stay in the first-level cache while strips go by, of which there
// are few enough to stay in the second-level cache while panels go by.
inline constexpr std::size_t kAmxSteps = 256;
inline constexpr std::size_t kAmxStrips = 4;

// c = activation(sums + bias), for the rows and columns that it has.
HWY_INLINE void use_amx_sums(const Product<float>& product, const float* sums, const float* bias,
                             MatrixView<float> c) {
  const Tag<float> d;
  for (std::size_t j = 0; j < c.cols; j += kRegister<float>) {
    const auto add = bias == nullptr ? hn::Zero(d) : hn::LoadU(d, bias + j);
    for (std::size_t r = 0; r < c.rows; ++r) {
      auto sum = hn::Load(d, sums + r * kPanel<float> + j);
      if (bias != nullptr) sum = hn::Add(add, sum);
      hn::Store(sum, d, c.row(r) + j);
    }
  }
  activate(product.activation, product.slope, c);
}

// Has the cache lines of `rows` rows of `cols` elements, `stride` apart, brought into the
// second-level cache: asked for in the first, so many lines at once would hold up the factors that
// are read there.
inline void prefetch_rows(const float* values, std::size_t rows, std::size_t cols,
                          std::size_t stride) {
  for (std::size_t r = 0; r < rows; ++r, values += stride) {
    for (std::size_t j = 0; j < cols; j += kAlignment / sizeof(float)) {
      __builtin_prefetch(values + j, 0, 2);
    }
  }
}

// At most kAmxStrips strips of rows by the panel that begins at column `col` and at `b`: stretch by
// stretch of the depth, all strips by the same stretch of b. Sums wait in memory in between.
inline void amx_product_panel(const Product<float>& product, std::size_t row_begin,
                              std::size_t row_end, std::size_t col, const float* b) {
  alignas(kAlignment) float sums[kAmxStrips][kAmxSums];
  const std::size_t stride = product.a.stride;
  const std::size_t steps = steps_of<Amx>(product.a.cols);
  const std::size_t cols = std::min(kPanel<float>, product.c.cols - col);
  const float* bias = product.bias == nullptr ? nullptr : product.bias + col;
  const std::size_t stretches = (steps + kAmxSteps - 1) / kAmxSteps;
  for (std::size_t s = 0; s < stretches; ++s) {
    const std::size_t step = steps / kAmxRows * s / stretches * kAmxRows;
    const std::size_t end = steps / kAmxRows * (s + 1) / stretches * kAmxRows;
    const bool last = end == steps;
    for (std::size_t row = row_begin; row < row_end; row += kAmxStrip) {
      float* strip = sums[stretches == 1 ? 0 : (row - row_begin) / kAmxStrip];
      const std::size_t rows = std::min(kAmxStrip, row_end - row);
      const MatrixView<float> c{product.c.row(row) + col, rows, cols, product.c.stride};
      // They come while the products are summed.
      if (last) prefetch_rows(c.data, rows, cols, c.stride);
      with_amx_sums(rows, cols, [&](auto tiles) LOCKSTEP_LAMBDA {
        if (step == 0) {
          tiles.clear();
        } else {
          tiles.load(strip);
        }
        tiles.multiply_add({product.a.row(row) + step, kAmxRows * stride, kAmxRows, stride,
                            b + step * kPanel<float>},
                           end - step);
        tiles.store(strip);
      });
      if (last) use_amx_sums(product, strip, bias, c);
    }
  }
}

inline void amx_product_panels(const Product<float>& product, std::size_t row_begin,
                               std::size_t row_end, std::size_t panel, std::size_t panels) {
  const AmxRegisters registers;
  constexpr std::size_t kRows = kAmxStrips * kAmxStrip;
  for (std::size_t row = row_begin; row < row_end; row += kRows) {
    for (std::size_t p = panel; p < panel + panels; ++p) {
      amx_product_panel(product, row, std::min(row + kRows, row_end), p * kPanel<float>,
                        product.b_pairs + p * product.b_panel);
    }
  }
}

// 16 registers of 16 elements change rows for columns.
HWY_INLINE void transpose(Vector<float>* rows) {
  const Tag<float> d;
  const hn::Repartition<double, Tag<float>> pairs;
  Vector<float> a[kAmxRows];
  // Within quarters of the registers, four rows at a time …
  unrolled<4>([&](auto i) LOCKSTEP_LAMBDA {
    const auto* r = rows + 4 * i;
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r[0], r[1]));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r[0], r[1]));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r[2], r[3]));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r[2], r[3]));
    a[4 * i] = hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23));
    a[4 * i + 1] = hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23));
    a[4 * i + 2] = hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23));
    a[4 * i + 3] = hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23));
  });
  // … then quarters for rows: register k of a has those of rows 4 i + k.
  unrolled<4>([&](auto k) LOCKSTEP_LAMBDA {
    const auto v0 = a[k].raw, v1 = a[4 + k].raw, v2 = a[8 + k].raw, v3 = a[12 + k].raw;
    const auto even01 = _mm512_shuffle_f32x4(v0, v1, 0x88),
               odd01 = _mm512_shuffle_f32x4(v0, v1, 0xDD);
    const auto even23 = _mm512_shuffle_f32x4(v2, v3, 0x88),
               odd23 = _mm512_shuffle_f32x4(v2, v3, 0xDD);
    rows[k] = Vector<float>{_mm512_shuffle_f32x4(even01, even23, 0x88)};
    rows[4 + k] = Vector<float>{_mm512_shuffle_f32x4(odd01, odd23, 0x88)};
    rows[8 + k] = Vector<float>{_mm512_shuffle_f32x4(even01, even23, 0xDD)};
    rows[12 + k] = Vector<float>{_mm512_shuffle_f32x4(odd01, odd23, 0xDD)};
  });
}

// A strip has kAmxStrip inputs: for each group of its steps two tiles, of 16 inputs by 16 pairs.
inline void pack_amx_strips(MatrixView<const float> matrix, std::size_t begin, std::size_t end,
                            std::size_t step, float* packed) {
  const Tag<float> d;
  const std::size_t strip_size = matrix.rows * kAmxStrip;
  for (std::size_t row = begin; row < end; row += Amx::kGroup, step += kAmxRows) {
    const std::size_t rows = std::min(Amx::kGroup, end - row);
    for (std::size_t j = 0; j < matrix.cols; j += kAmxRows) {
      const auto valid = hn::FirstN(d, std::min(kAmxRows, matrix.cols - j));
      const auto load = [&](std::size_t i) LOCKSTEP_LAMBDA {
        return i < rows ? hn::MaskedLoad(valid, d, matrix.row(row + i) + j) : hn::Zero(d);
      };
      Vector<float> tile[kAmxRows];
      unrolled<kAmxRows>(
          [&](auto i) LOCKSTEP_LAMBDA { tile[i] = PairRounded().beside(load(i), load(i + kRun)); });
      transpose(tile);
      float* to = packed + j / kAmxStrip * strip_size + step * kAmxStrip +
                  j % kAmxStrip / kAmxRows * kAmxTile;
      unrolled<kAmxRows>([&](auto i) LOCKSTEP_LAMBDA { hn::Store(tile[i], d, to + i * kAmxRows); });
    }
  }
}

// Sums the products over the samples of one leaf. The node is not in registers: it is memory.
template <class Sums>
struct AmxLeafProducts {
  const WeightGradient<float>& job;
  std::size_t strip;
  std::size_t panel;

  // Of the sample `begin`, the first of the leaf.
  HWY_INLINE AmxFactors factors(std::size_t leaf, std::size_t begin) const {
    if (job.of_leaf.empty()) {
      return {job.x + strip * job.x_strip + begin * kAmxStrip, kAmxTile, 2 * kAmxTile, kAmxRows,
              job.d_y + panel * job.d_y_panel + begin * kPanel<float>};
    }
    const LeafFactors<float>& own = job.of_leaf[leaf];
    return {own.x + strip * own.x_strip, kAmxTile, 2 * kAmxTile, kAmxRows,
            own.d_y + panel * own.d_y_panel};
  }

  template <class Node>
  HWY_INLINE void operator()(std::size_t leaf, std::size_t begin, std::size_t end,
                             Node& node) const {
    Sums::clear();
    Sums::multiply_add(factors(leaf, begin), steps_of<Amx>(end - begin));
    Sums::store(reinterpret_cast<float*>(&node));
  }
};

inline void amx_weight_gradient(const WeightGradient<float>& job, std::size_t input_begin,
                                std::size_t input_end, std::size_t panel) {
  const AmxRegisters registers;
  const LeafRows leaves(job.leaf_rows);
  const std::size_t col = panel * kPanel<float>;
  const std::size_t cols = std::min(kPanel<float>, job.outputs - col);
  for (std::size_t input = input_begin; input < input_end; input += kAmxStrip) {
    const std::size_t rows = std::min(kAmxStrip, input_end - input);
    const std::size_t at = input * job.outputs + col;
    for_each_written(job, [&](const float* values) LOCKSTEP_LAMBDA {
      prefetch_rows(values + at, rows, cols, job.outputs);
    });
    using Node = Tile<float, kAmxStrip, kTileVectors>;
    static_assert(sizeof(Node) == kAmxStrip * kPanel<float> * sizeof(float));
    alignas(kAlignment) Node nodes[kMaxTreeLevels + 1];
    with_amx_sums(rows, cols, [&](auto tiles) LOCKSTEP_LAMBDA {
      const AmxLeafProducts<decltype(tiles)> sum_rows{job, input / kAmxStrip, panel};
      if (!sum_leaves_in_memory(leaves, 0, leaves.count(), sum_rows, nodes)) nodes[0].clear();
    });
    use_gradient(job, reinterpret_cast<const float*>(nodes), rows, kPanel<float>, cols, at);
  }
}

inline const PairKernels<float>* amx_kernels(float) {
  static const PairKernels<float> kernels{.terms_at_once = Amx::kGroup,
                                          .tile_inputs = kAmxStrip,
                                          .pack_pairs = pack_pairs<Amx>,
                                          .pack_factor = pack_factor_pairs<Amx>,
                                          .product_panels = amx_product_panels,
                                          .pack_panels = pack_pair_panels<Amx>,
                                          .pack_strips = pack_amx_strips,
                                          .weight_gradient = amx_weight_gradient};
  return &kernels;
}

#endif  // AVX-512

// Null where there are no tiles, or for other types.
template <class T>
const PairKernels<T>* amx_kernels(T) {
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

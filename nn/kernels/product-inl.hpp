// Matrix products in register tiles. Included once per instruction set.
#if defined(LOCKSTEP_NN_PRODUCT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PRODUCT_INL
#undef LOCKSTEP_NN_PRODUCT_INL
#else
#define LOCKSTEP_NN_PRODUCT_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/lanes-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// A tile of kTileRows × kTileVectors registers is summed at once: as many as the processor has,
// less those that hold the factors. Its shape decides speed only, never a bit.
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
inline constexpr std::size_t kTileRows = 12;
inline constexpr std::size_t kTileVectors = 2;
#elif HWY_ARCH_X86
inline constexpr std::size_t kTileRows = 6;
inline constexpr std::size_t kTileVectors = 2;
#else
inline constexpr std::size_t kTileRows = 6;
inline constexpr std::size_t kTileVectors = 4;
#endif

template <class T>
inline constexpr std::size_t kPanel = kTileVectors* kRegister<T>;  // columns of a tile

template <class T, std::size_t kRows, std::size_t kVectors>
struct Tile {
  Vector<T> sum[kRows][kVectors];

  HWY_INLINE void clear() {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
      LOCKSTEP_UNROLL for (std::size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(Tag<T>());
    }
  }

  // sum[r, :] += sum over p of a[r, p] b[p, :]. Element (r, p) of a is a[r * a_row + p * a_step];
  // rows of a are reached from every third one, which spares address registers.
  HWY_INLINE void multiply(std::size_t depth, const T* HWY_RESTRICT a, std::size_t a_row,
                           std::size_t a_step, const T* HWY_RESTRICT b, std::size_t b_stride) {
    const Tag<T> d;
    constexpr std::size_t kBases = (kRows + 2) / 3;
    const T* base[kBases];
    LOCKSTEP_UNROLL for (std::size_t i = 0; i < kBases; ++i) base[i] = a + 3 * i * a_row;
    for (std::size_t p = 0; p < depth; ++p) {
      Vector<T> factor[kVectors];
      LOCKSTEP_UNROLL for (std::size_t v = 0; v < kVectors; ++v) {
        factor[v] = hn::LoadU(d, b + v * kRegister<T>);
      }
      LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
        const Vector<T> broadcast = hn::Set(d, base[r / 3][(r % 3) * a_row]);
        LOCKSTEP_UNROLL for (std::size_t v = 0; v < kVectors; ++v) {
          sum[r][v] = hn::MulAdd(broadcast, factor[v], sum[r][v]);
        }
      }
      LOCKSTEP_UNROLL for (std::size_t i = 0; i < kBases; ++i) base[i] += a_step;
      b += b_stride;
    }
  }

  HWY_INLINE void add(const T* c, std::size_t c_stride) {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
      LOCKSTEP_UNROLL for (std::size_t v = 0; v < kVectors; ++v) {
        sum[r][v] = hn::Add(hn::LoadU(Tag<T>(), c + r * c_stride + v * kRegister<T>), sum[r][v]);
      }
    }
  }

  HWY_INLINE void store(T* c, std::size_t c_stride) const {
    LOCKSTEP_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
      LOCKSTEP_UNROLL for (std::size_t v = 0; v < kVectors; ++v) {
        hn::StoreU(sum[r][v], Tag<T>(), c + r * c_stride + v * kRegister<T>);
      }
    }
  }
};

// panel[p * kPanel + j] = b[p, j] for the `cols` columns of the panel, zero beyond them.
template <class T>
HWY_INLINE void pack_rows(const T* b, std::size_t stride, std::size_t depth, std::size_t cols,
                          T* panel) {
  const Tag<T> d;
  for (std::size_t p = 0; p < depth; ++p, b += stride, panel += kPanel<T>) {
    if (cols == kPanel<T>) {
      LOCKSTEP_UNROLL for (std::size_t v = 0; v < kTileVectors; ++v) {
        hn::Store(hn::LoadU(d, b + v * kRegister<T>), d, panel + v * kRegister<T>);
      }
    } else {
      std::copy_n(b, cols, panel);
      std::fill(panel + cols, panel + kPanel<T>, T{0});
    }
  }
}

// Four rows of four become four columns, for float; other types go element by element.
template <class T>
HWY_INLINE void transpose_4x4(const T* b, std::size_t stride, T* out, std::size_t out_stride) {
  if constexpr (std::is_same_v<T, float>) {
    const hn::FixedTag<float, 4> d;
    const hn::Repartition<double, decltype(d)> pairs;
    const auto r0 = hn::LoadU(d, b);
    const auto r1 = hn::LoadU(d, b + stride);
    const auto r2 = hn::LoadU(d, b + 2 * stride);
    const auto r3 = hn::LoadU(d, b + 3 * stride);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, out);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, out + out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, out + 2 * out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, out + 3 * out_stride);
  } else {
    for (std::size_t i = 0; i < 4; ++i) {
      for (std::size_t j = 0; j < 4; ++j) out[i * out_stride + j] = b[j * stride + i];
    }
  }
}

// panel[p * kPanel + j] = b[j, p]: the same panel from a matrix stored transposed.
template <class T>
HWY_INLINE void pack_transposed(const T* b, std::size_t stride, std::size_t depth, std::size_t cols,
                                T* panel) {
  const std::size_t whole_cols = cols / 4 * 4;
  const std::size_t whole_depth = depth / 4 * 4;
  // A cache line of each of four rows is used up before the next four: rows may be a power of two
  // apart, and then few of their lines fit into the cache together.
  for (std::size_t line = 0; line < whole_depth; line += kLanes) {
    const std::size_t line_end = std::min(line + kLanes, whole_depth);
    for (std::size_t j = 0; j < whole_cols; j += 4) {
      for (std::size_t p = line; p < line_end; p += 4) {
        transpose_4x4(b + j * stride + p, stride, panel + p * kPanel<T> + j, kPanel<T>);
      }
    }
  }
  for (std::size_t p = 0; p < depth; ++p) {
    const std::size_t from = p < whole_depth ? whole_cols : 0;
    for (std::size_t j = from; j < cols; ++j) panel[p * kPanel<T> + j] = b[j * stride + p];
    std::fill(panel + p * kPanel<T> + cols, panel + (p + 1) * kPanel<T>, T{0});
  }
}

// What one block of the depth adds to one panel of c.
template <class T>
struct PanelBlock {
  const T* a;  // at the block's first column
  std::size_t a_stride;
  const T* panel;  // packed block of b
  std::size_t depth;
  T* c;  // at the panel's first column
  std::size_t c_stride;
  bool first, last;  // blocks of the depth
  const T* bias;     // a padded copy for this panel, or null
};

template <std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void multiply_rows(const PanelBlock<T>& block, std::size_t row) {
  Tile<T, kRows, kVectors> tile;
  tile.clear();
  tile.multiply(block.depth, block.a + row * block.a_stride, block.a_stride, 1, block.panel,
                kPanel<T>);
  T* c = block.c + row * block.c_stride;
  if (!block.first) tile.add(c, block.c_stride);
  if (block.last && block.bias != nullptr) tile.add(block.bias, 0);
  tile.store(c, block.c_stride);
}

// Rows [row, end) in tiles of kRows, then what is left in tiles of half that many.
template <std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void multiply_all_rows(const PanelBlock<T>& block, std::size_t row, std::size_t end) {
  for (; row + kRows <= end; row += kRows) multiply_rows<kRows, kVectors>(block, row);
  if constexpr (kRows > 1) {
    if (row < end) multiply_all_rows<kRows / 2, kVectors>(block, row, end);
  }
}

// Picks the tile that is just wide enough for `cols` columns.
template <std::size_t kVectors, class T>
HWY_INLINE void multiply_block(const PanelBlock<T>& block, std::size_t begin, std::size_t end,
                               std::size_t cols) {
  if constexpr (kVectors > 1) {
    if (cols <= (kVectors - 1) * kRegister<T>) {
      return multiply_block<kVectors - 1>(block, begin, end, cols);
    }
  }
  multiply_all_rows<kTileRows, kVectors>(block, begin, end);
}

template <class T>
void product_panel(const Product<T>& product, std::size_t row_begin, std::size_t row_end,
                   std::size_t panel) {
  const std::size_t depth = product.a.cols;
  const std::size_t col = panel * kPanel<T>;
  const std::size_t cols = std::min(kPanel<T>, product.c.cols - col);
  alignas(kAlignment) T packed[kDepthBlock * kPanel<T>];
  alignas(kAlignment) T bias[kPanel<T>] = {};
  if (product.bias != nullptr) std::copy_n(product.bias + col, cols, bias);

  for (std::size_t p = 0; p < depth; p += kDepthBlock) {
    const std::size_t length = std::min(kDepthBlock, depth - p);
    if (product.b_transposed) {
      pack_transposed(product.b + col * product.b_stride + p, product.b_stride, length, cols,
                      packed);
    } else {
      pack_rows(product.b + p * product.b_stride + col, product.b_stride, length, cols, packed);
    }
    const PanelBlock<T> block{product.a.data + p,
                              product.a.stride,
                              packed,
                              length,
                              product.c.data + col,
                              product.c.stride,
                              p == 0,
                              p + length == depth,
                              product.bias == nullptr ? nullptr : bias};
    multiply_block<kTileVectors>(block, row_begin, row_end, cols);
  }
  if (product.activation != Activation::none) {
    activate(
        product.activation, product.slope,
        MatrixView<T>{product.c.row(row_begin) + col, row_end - row_begin, cols, product.c.stride});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Matrix products in register tiles. Included once per instruction set.
#if defined(LOCKSTEP_NN_PRODUCT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PRODUCT_INL
#undef LOCKSTEP_NN_PRODUCT_INL
#else
#define LOCKSTEP_NN_PRODUCT_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/pack-inl.hpp"
#include "nn/kernels/pointwise-inl.hpp"
#include "nn/kernels/runs-inl.hpp"
#include "nn/kernels/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Rows that will be read next, line by line: asked for one a step, they come from memory while
// others are multiplied.
template <class T>
class LinesAhead {
 public:
  LinesAhead() = default;
  HWY_INLINE explicit LinesAhead(MatrixView<const T> rows) : rows_(rows) {}

  // By its last element: rows may begin within a line.
  HWY_INLINE void ask_for_line() {
    if (rows_.rows == 0) return;
    asked_ += kAlignment / sizeof(T);
    __builtin_prefetch(rows_.data + std::min(asked_, rows_.cols) - 1, 0, 2);
    if (asked_ < rows_.cols) return;
    asked_ = 0;
    if (--rows_.rows > 0) rows_.data += rows_.stride;
  }

 private:
  MatrixView<const T> rows_;  // those that are left
  std::size_t asked_ = 0;     // columns of the first of them
};

// What one block of the depth, or a few that are summed side by side, add to some panels of c.
template <class T, class Terms>
struct PanelBlock {
  MatrixView<const T> a;  // rows × steps of the block, or of the blocks
  const T* b;             // the same steps of the first panel
  std::size_t b_step, b_panel;
  T* packed;          // b, if it still is to be packed by whoever multiplies the first rows …
  const T* unpacked;  // … from here
  std::size_t unpacked_step;
  MatrixView<T> c;   // rows × columns of the panels
  bool first, last;  // blocks of the depth
  const T* bias;     // of the first column, or null
  Activation activation;
  T slope;
  Activation derivative;
  MatrixView<const T> y;  // as c
  LinesAhead<T>& ahead;
};

// A tile of this many registers or fewer waits for its own sums: then this many blocks of the depth
// are summed in the time of one.
inline constexpr std::size_t kFewSums = 4;
inline constexpr std::size_t kBlocksAtOnce = 4;

// sum += the sums of kBlocks blocks of the depth, one after the other; the last may be shorter.
template <std::size_t kBlocks, std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void add_blocks(const TileFactors<T>& factors, std::size_t depth,
                           Tile<T, kRows, kVectors>& sum, bool first) {
  Tile<T, kRows, kVectors> part[kBlocks];
  unrolled<kBlocks>([&](auto i) LOCKSTEP_LAMBDA { part[i].clear(); });
  const std::size_t shortest = depth - (kBlocks - 1) * kDepthBlock;
  for (std::size_t p = 0; p < shortest; ++p) {
    unrolled<kBlocks>([&](auto i)
                          LOCKSTEP_LAMBDA { part[i].accumulate(factors, i * kDepthBlock + p); });
  }
  for (std::size_t p = shortest; p < kDepthBlock; ++p) {
    unrolled<kBlocks - 1>(
        [&](auto i) LOCKSTEP_LAMBDA { part[i].accumulate(factors, i * kDepthBlock + p); });
  }
  unrolled<kBlocks>([&](auto i) LOCKSTEP_LAMBDA {
    if (i > 0 || !first) part[i].add(sum);
    sum = part[i];
  });
}

// From so many rows on, copying b repays itself also where b can be used as it stands: sooner where
// its rows are so far apart that, at worst, a few sets of a cache must hold all of a block. The
// first tile of so many has more than half of a whole one's rows (kMayPack).
template <class T>
constexpr std::size_t rows_worth_packing(std::size_t b_stride) {
  constexpr std::size_t kFarApart = 2048;  // bytes
  constexpr std::size_t kFewest = kTileRows + 2;
  static_assert(kFewest / 2 * 2 > kTileRows);
  return b_stride * sizeof(T) >= kFarApart ? kFewest : 2 * kTileRows;
}

// Whether such a tile may be the first of so many rows, which packs b: they are shared out evenly.
template <class Terms, std::size_t kRows, std::size_t kVectors>
inline constexpr bool kMayPack =
    Terms::kTerms == 1 && !Terms::kInRuns && kVectors == kTileVectors && 2 * kRows > kTileRows;

// Whether one row by several panels repays listing its factors that are not zero: with AVX-512,
// which has an instruction for it; else where that spares rows of b which are far apart. As
// measured.
template <class T>
HWY_INLINE bool repays_listing(std::size_t b_step) {
  constexpr std::size_t kFarApart = 128;
  return kRegister<T> == kLanes || b_step >= kFarApart;
}

// tile = the sums of the block, and of the blocks before it, which are in c.
template <std::size_t kRows, std::size_t kVectors, class T, class Terms>
HWY_INLINE void sum_block(const PanelBlock<T, Terms>& block, std::size_t row, std::size_t panel,
                          Tile<T, kRows, kVectors>& tile) {
  const T* a = block.a.row(row);
  const T* c = block.c.row(row) + panel * kPanel<T>;
  const TileFactors<T, Terms> factors{
      a, block.a.stride, 1, block.b + panel * block.b_panel, block.b_step, block.b_panel};
  if constexpr (kRows * kVectors <= kFewSums) {
    if (block.a.cols > kDepthBlock) {
      if (!block.first) tile.load(c, block.c.stride);
      const std::size_t blocks = (block.a.cols + kDepthBlock - 1) / kDepthBlock;
      if (blocks == 2) add_blocks<2>(factors, block.a.cols, tile, block.first);
      if (blocks == 3) add_blocks<3>(factors, block.a.cols, tile, block.first);
      if (blocks == 4) add_blocks<kBlocksAtOnce>(factors, block.a.cols, tile, block.first);
      return;
    }
  }
  bool packs = false;
  if constexpr (kMayPack<Terms, kRows, kVectors>) {
    packs = row == 0 && block.packed != nullptr;
    if (packs) {
      const TileFactors<T, Terms> unpacked{
          a, block.a.stride, 1, block.unpacked + panel * kPanel<T>, block.unpacked_step, kPanel<T>};
      tile.template multiply<Rows::apart, Columns::to_be_packed>(
          EveryStep{block.a.cols}, unpacked, Nothing(), block.packed + panel * block.b_panel);
    }
  }
  if constexpr (kRows == 1 && kVectors > kTileVectors) {
    if (repays_listing<T>(block.b_step)) {
      tile.multiply(NonzeroPlaces<T>(a, block.a.cols).steps(), factors);
    } else {
      tile.multiply(EveryStep{block.a.cols}, factors);
    }
  } else if constexpr (kVectors == kTileVectors) {
    const auto ask = [&block]() LOCKSTEP_LAMBDA { block.ahead.ask_for_line(); };
    if (!packs) tile.multiply(EveryStep{block.a.cols}, factors, ask);
  } else {
    tile.multiply(EveryStep{block.a.cols}, factors);
  }
  if (!block.first) tile.add(c, block.c.stride);
}

template <std::size_t kRows, std::size_t kVectors, class T, class Terms>
void multiply_tile(const PanelBlock<T, Terms>& block, std::size_t row, std::size_t panel) {
  Tile<T, kRows, kVectors> tile;
  const std::size_t col = panel * kPanel<T>;
  T* c = block.c.row(row) + col;
  if constexpr (Terms::kInRuns) {
    const TileFactors<T, Terms> factors{
        block.a.row(row), block.a.stride, 1, block.b + panel * block.b_panel,
        block.b_step,     block.b_panel};
    sum_runs<kRows, kVectors>(block.a.cols, factors, c, block.c.stride, block.first);
    if (!block.last || (block.bias == nullptr && block.activation == Activation::none)) return;
    tile.load(c, block.c.stride);
  } else {
    sum_block(block, row, panel, tile);
    if (block.last) tile.make_zeros_positive();
  }
  if (block.last && block.bias != nullptr) tile.add(block.bias + col, 0);
  tile.store(c, block.c.stride);
  if (!block.last) return;
  const std::size_t cols = std::min(tile.kColumns, block.c.cols - col);
  const MatrixView<T> sums{c, kRows, cols, block.c.stride};
  if (block.activation != Activation::none) activate(block.activation, block.slope, sums);
  if (block.derivative != Activation::none) {
    const MatrixView<const T> y{block.y.row(row) + col, kRows, cols, block.y.stride};
    activation_backward(block.derivative, block.slope, y, sums);
  }
}

// kRows rows of every panel. Few rows take several panels at once, since one sum after the other in
// the same register would wait for the multiply-add before it.
template <std::size_t kRows, class T, class Terms>
HWY_INLINE void multiply_rows(const PanelBlock<T, Terms>& block, std::size_t row) {
  constexpr std::size_t kRoom = Terms::kRows / kRows;  // panels whose sums fit in the registers
  constexpr std::size_t kAtOnce = kRoom >= 4 ? 4 : kRoom >= 2 ? 2 : 1;
  const std::size_t panels = (block.c.cols + kPanel<T> - 1) / kPanel<T>;
  std::size_t panel = 0;
  if constexpr (kAtOnce > 1) {
    // Rows of c have room for whole groups of lanes, which may be less than the last panel.
    const std::size_t whole_panels = std::min(panels, round_up(block.c.cols, kLanes) / kPanel<T>);
    for (; panel + kAtOnce <= whole_panels; panel += kAtOnce) {
      multiply_tile<kRows, kAtOnce * kTileVectors>(block, row, panel);
    }
  }
  for (; panel < panels; ++panel) {
    if (block.c.cols - panel * kPanel<T> <= kRegister<T>) {
      multiply_tile<kRows, 1>(block, row, panel);
    } else {
      multiply_tile<kRows, kTileVectors>(block, row, panel);
    }
  }
}

template <std::size_t kRows, class T, class Terms>
HWY_INLINE void multiply_up_to(const PanelBlock<T, Terms>& block, std::size_t row,
                               std::size_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_up_to<kRows - 1>(block, row, rows);
  }
  multiply_rows<kRows>(block, row);
}

// Rows are shared out evenly among the fewest tiles: a tile of one or two rows at the end would
// take nearly as long as a whole one.
template <class T, class Terms>
void multiply_block(const PanelBlock<T, Terms>& block) {
  const std::size_t rows = block.a.rows;
  const std::size_t tiles = (rows + Terms::kRows - 1) / Terms::kRows;
  for (std::size_t tile = 0, row = 0; tile < tiles; ++tile) {
    const std::size_t end = (tile + 1) * rows / tiles;
    multiply_up_to<Terms::kRows>(block, row, end - row);
    row = end;
  }
}

// A block of b as it is stored: `length` steps of the depth, from p on, of `cols` columns.
template <class T>
HWY_INLINE MatrixView<const T> stored_block(const Product<T>& product, std::size_t p,
                                            std::size_t length, std::size_t col, std::size_t cols) {
  const T* b = product.b;
  const std::size_t stride = product.b_stride;
  if (product.b_transposed) return {b + col * stride + p, cols, length, stride};
  return {b + p * stride + col, length, cols, stride};
}

// What is to be read after a block of b that is packed and ends at step p: the next one of the
// depth, or the first one of the columns beside these. A tile that packs asks for the rows that
// follow those which it reads, so for it only the first are to be asked for.
template <class T>
HWY_INLINE MatrixView<const T> next_block(const Product<T>& product, std::size_t p, std::size_t col,
                                          std::size_t cols, bool packs_on_the_way) {
  const std::size_t depth = product.a.cols;
  if (p < depth) {
    if (packs_on_the_way) return {};
    return stored_block(product, p, std::min(kDepthBlock, depth - p), col, cols);
  }
  col += cols;
  cols = std::min(cols, product.c.cols - col);
  if (cols == 0) return {};
  const std::size_t most = packs_on_the_way ? kStepsFarAhead : kDepthBlock;
  return stored_block(product, 0, std::min(most, depth), col, cols);
}

// A stored block in panels, each on its own; for sums in runs, rounded on its way.
template <class Terms, class T>
HWY_INLINE void pack_block(MatrixView<const T> b, bool transposed, std::size_t panel_size,
                           T* packed) {
  if (!transposed) {
    pack_rows(b.data, b.stride, b.rows, b.cols, panel_size, packed);
  } else {
    for (std::size_t j = 0; j < b.rows; j += kPanel<T>) {
      pack_transposed(b.row(j), b.stride, b.cols, std::min(kPanel<T>, b.rows - j),
                      packed + j / kPanel<T> * panel_size);
    }
  }
  if constexpr (Terms::kInRuns) {
    const std::size_t size = (transposed ? b.cols : b.rows) * kPanel<T>;
    for (std::size_t j = 0; j < (transposed ? b.rows : b.cols); j += kPanel<T>) {
      round_to_bfloat16(MatrixView<T>{packed + j / kPanel<T> * panel_size, 1, size, size});
    }
  }
}

template <class Terms, class T>
void product_panels_of(const Product<T>& product, std::size_t row_begin, std::size_t row_end,
                       std::size_t panel, std::size_t panels) {
  constexpr std::size_t kPanelSize = steps_of<Terms>(kDepthBlock) * kPanel<T>;
  const std::size_t depth = product.a.cols;
  const std::size_t col = panel * kPanel<T>;
  const std::size_t cols = std::min(panels * kPanel<T>, product.c.cols - col);
  const std::size_t rows = row_end - row_begin;
  // What is no wider than a panel is as good as packed, and so is what few rows use.
  const bool as_good_as_packed =
      rows < rows_worth_packing<T>(product.b_stride) || product.b_stride <= kPanel<T>;
  const bool in_place = !product.b_transposed && !Terms::kInRuns && as_good_as_packed;
  // Whole panels are packed on their way into the first tiles.
  const bool packs_on_the_way =
      !product.b_transposed && !Terms::kInRuns && !in_place && cols == panels * kPanel<T>;
  const std::size_t sums = rows * ((cols + kRegister<T> - 1) / kRegister<T>);
  const bool side_by_side = in_place && cols <= kPanel<T> && sums <= kFewSums;
  const std::size_t stretch = (side_by_side ? kBlocksAtOnce : 1) * kDepthBlock;
  // Pairs are packed before.
  constexpr bool kPacksHere = Terms::kTerms == 1;
  alignas(kAlignment) T packed[kPacksHere ? kPanelsAtOnce * kPanelSize : 1];

  MatrixView<const T> y;
  if (product.derivative != Activation::none) {
    y = {product.y.row(row_begin) + col, rows, cols, product.y.stride};
  }
  for (std::size_t p = 0; p < depth; p += stretch) {
    const std::size_t length = std::min(stretch, depth - p);
    LinesAhead<T> ahead;
    if (kPacksHere && !Terms::kInRuns && !in_place) {
      ahead = LinesAhead<T>(next_block(product, p + length, col, cols, packs_on_the_way));
    }
    const T* b = packed;
    if constexpr (!kPacksHere) {
      b = product.b_pairs + panel * product.b_panel + steps_of<Terms>(p) * kPanel<T>;
    } else if (in_place) {
      b = product.b + p * product.b_stride + col;
    } else if (!packs_on_the_way) {
      pack_block<Terms>(stored_block(product, p, length, col, cols), product.b_transposed,
                        kPanelSize, packed);
    }
    multiply_block(
        PanelBlock<T, Terms>{.a = {product.a.row(row_begin) + p / Terms::kTerms, rows,
                                   steps_of<Terms>(length), product.a.stride},
                             .b = b,
                             .b_step = in_place ? product.b_stride : kPanel<T>,
                             .b_panel = in_place     ? kPanel<T>
                                        : kPacksHere ? kPanelSize
                                                     : product.b_panel,
                             .packed = packs_on_the_way ? packed : nullptr,
                             .unpacked = product.b + p * product.b_stride + col,
                             .unpacked_step = product.b_stride,
                             .c = {product.c.row(row_begin) + col, rows, cols, product.c.stride},
                             .first = p == 0,
                             .last = p + length == depth,
                             .bias = product.bias == nullptr ? nullptr : product.bias + col,
                             .activation = product.activation,
                             .slope = product.slope,
                             .derivative = product.derivative,
                             .y = y,
                             .ahead = ahead});
  }
}

template <class T>
void product_panels(const Product<T>& product, std::size_t row_begin, std::size_t row_end,
                    std::size_t panel, std::size_t panels) {
  if (product.precision == Precision::bfloat16) {
    product_panels_of<Runs>(product, row_begin, row_end, panel, panels);
  } else {
    product_panels_of<Singles>(product, row_begin, row_end, panel, panels);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

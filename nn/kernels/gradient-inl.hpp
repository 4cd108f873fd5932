// Sums over samples: leaf by leaf, the leaves in their binary tree. Included once per instruction
// set.
#if defined(LOCKSTEP_NN_GRADIENT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_GRADIENT_INL
#undef LOCKSTEP_NN_GRADIENT_INL
#else
#define LOCKSTEP_NN_GRADIENT_INL
#endif

#include <hwy/highway.h>

#include <bit>

#include "nn/kernels/product-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// The binary tree over the leaves of a subtree, walked leaf by leaf as a counter counts: slot k
// holds the sum of a finished node of 2^k leaves that waits for its right sibling. `Node` is a tile
// in registers; `Slot` its place in the first-level cache. An absent node leaves its sibling as is.
template <class Node, class Slot>
class LeafCounter {
 public:
  // Takes in the next leaf. Returns with `node` the sum of the node that this leaf completes.
  HWY_INLINE void take(Node& node, bool present) {
    std::size_t level = 0;
    for (std::size_t leaf = leaf_++; leaf & 1; leaf >>= 1, ++level) {
      if (waiting_ >> level & 1) {
        if (present) {
          slots_[level].add_to(node);
        } else {
          slots_[level].load(node);
        }
        present = true;
      }
      waiting_ &= ~(std::size_t{1} << level);
    }
    if (present) {
      slots_[level].store(node);
      waiting_ |= std::size_t{1} << level;
    }
    top_ = level;
  }

  // After 2^k leaves: the slot of the whole subtree, or null where every leaf was absent.
  HWY_INLINE const Slot* whole() const { return waiting_ >> top_ & 1 ? &slots_[top_] : nullptr; }

 private:
  std::size_t leaf_ = 0;
  std::size_t waiting_ = 0;
  std::size_t top_ = 0;
  Slot slots_[kMaxTreeLevels + 1];
};

template <class T, std::size_t kRows, std::size_t kVectors>
struct TileSlot {
  static constexpr std::size_t kStride = kVectors * kRegister<T>;
  alignas(kAlignment) T value[kRows * kStride];

  HWY_INLINE void add_to(Tile<T, kRows, kVectors>& tile) const { tile.add(value, kStride); }
  HWY_INLINE void load(Tile<T, kRows, kVectors>& tile) const {
    tile.clear();
    tile.add(value, kStride);
  }
  HWY_INLINE void store(const Tile<T, kRows, kVectors>& tile) { tile.store(value, kStride); }
};

// to = from, for the columns of a panel; a whole panel without a call.
template <class T>
HWY_INLINE void copy_columns(const T* from, std::size_t cols, T* to) {
  if (cols != kPanel<T>) {
    std::copy_n(from, cols, to);
    return;
  }
  LOCKSTEP_UNROLL for (std::size_t v = 0; v < kTileVectors; ++v) {
    hn::StoreU(hn::LoadU(Tag<T>(), from + v * kRegister<T>), Tag<T>(), to + v * kRegister<T>);
  }
}

template <class T>
void pack_columns(MatrixView<const T> matrix, std::size_t col, std::size_t width, T* packed) {
  const std::size_t cols = std::min(width, matrix.cols - col);
  for (std::size_t i = 0; i < matrix.rows; ++i, packed += width) {
    if (cols == kPanel<T> && width == kPanel<T>) {
      copy_columns(matrix.row(i) + col, cols, packed);
      continue;
    }
    std::copy_n(matrix.row(i) + col, cols, packed);
    std::fill(packed + cols, packed + width, T{0});
  }
}

// One strip of outputs by kVectors registers of one panel: all leaves, then the result is written.
template <std::size_t kVectors, class T>
HWY_INLINE void gradient_tile(const WeightGradient<T>& job, std::size_t strip, std::size_t panel) {
  using Slot = TileSlot<T, kTileRows, kVectors>;
  const T* d_y = job.d_y + strip * job.rows * kTileRows;
  const T* x = job.x + panel * job.rows * kPanel<T>;
  LeafCounter<Tile<T, kTileRows, kVectors>, Slot> counter;
  for (std::size_t leaf = 0; leaf + 1 < job.leaf_rows.size(); ++leaf) {
    const std::size_t begin = job.leaf_rows[leaf];
    const std::size_t end = job.leaf_rows[leaf + 1];
    Tile<T, kTileRows, kVectors> tile;
    tile.clear();
    Slot earlier_blocks;
    for (std::size_t row = begin; row < end; row += kDepthBlock) {
      if (row > begin) {
        earlier_blocks.store(tile);
        tile.clear();
      }
      tile.multiply(std::min(kDepthBlock, end - row), d_y + row * kTileRows, 1, kTileRows,
                    x + row * kPanel<T>, kPanel<T>);
      if (row > begin) earlier_blocks.add_to(tile);
    }
    counter.take(tile, begin < end);
  }

  const std::size_t output = strip * kTileRows;
  const std::size_t col = panel * kPanel<T>;
  const std::size_t cols = std::min(kPanel<T>, job.inputs - col);
  const Slot* whole = counter.whole();
  for (std::size_t r = 0; r < std::min(kTileRows, job.outputs - output); ++r) {
    T* out = job.d_weights + (output + r) * job.inputs + col;
    if (whole != nullptr) {
      copy_columns(whole->value + r * Slot::kStride, cols, out);
    } else {
      std::fill_n(out, cols, T{0});
    }
  }
}

// Picks the tile that is just wide enough for the panel's columns.
template <std::size_t kVectors, class T>
HWY_INLINE void gradient_strips(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                                std::size_t panel) {
  if constexpr (kVectors > 1) {
    if (job.inputs - panel * kPanel<T> <= (kVectors - 1) * kRegister<T>) {
      return gradient_strips<kVectors - 1>(job, begin, end, panel);
    }
  }
  for (std::size_t strip = begin; strip < end; ++strip) gradient_tile<kVectors>(job, strip, panel);
}

template <class T>
void gradient_panel(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                    std::size_t panel) {
  gradient_strips<kTileVectors>(job, begin, end, panel);
}

// The bias is a weight whose input is one: the same tree over a column of ones.
template <class T>
void bias_gradient(MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows, T* d_bias) {
  const Tag<T> d;
  using Slot = TileSlot<T, 1, 1>;
  for (std::size_t col = 0; col < d_y.cols; col += kRegister<T>) {
    LeafCounter<Tile<T, 1, 1>, Slot> counter;
    for (std::size_t leaf = 0; leaf + 1 < leaf_rows.size(); ++leaf) {
      const std::size_t begin = leaf_rows[leaf];
      const std::size_t end = leaf_rows[leaf + 1];
      Tile<T, 1, 1> tile;
      tile.clear();
      for (std::size_t block = begin; block < end; block += kDepthBlock) {
        const auto earlier_blocks = tile.sum[0][0];
        tile.clear();
        for (std::size_t row = block; row < std::min(end, block + kDepthBlock); ++row) {
          tile.sum[0][0] = hn::Add(tile.sum[0][0], hn::Load(d, d_y.row(row) + col));
        }
        if (block > begin) tile.sum[0][0] = hn::Add(earlier_blocks, tile.sum[0][0]);
      }
      counter.take(tile, begin < end);
    }
    const std::size_t cols = std::min(kRegister<T>, d_y.cols - col);
    if (const Slot* whole = counter.whole()) {
      std::copy_n(whole->value, cols, d_bias + col);
    } else {
      std::fill_n(d_bias + col, cols, T{0});
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

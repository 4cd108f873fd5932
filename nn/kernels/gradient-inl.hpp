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

// Outputs [output, output + kRows) of one panel of inputs: all leaves, then the result is written.
template <std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void gradient_tile(const WeightGradient<T>& job, std::size_t output, std::size_t col,
                              std::size_t cols) {
  using Slot = TileSlot<T, kRows, kVectors>;
  LeafCounter<Tile<T, kRows, kVectors>, Slot> counter;
  for (std::size_t leaf = 0; leaf + 1 < job.leaf_rows.size(); ++leaf) {
    const std::size_t begin = job.leaf_rows[leaf];
    const std::size_t end = job.leaf_rows[leaf + 1];
    Tile<T, kRows, kVectors> tile;
    tile.clear();
    Slot earlier_blocks;
    for (std::size_t row = begin; row < end; row += kDepthBlock) {
      if (row > begin) {
        earlier_blocks.store(tile);
        tile.clear();
      }
      tile.multiply(std::min(kDepthBlock, end - row), job.d_y.row(row) + output, 1, job.d_y.stride,
                    job.x.row(row) + col, job.x.stride);
      if (row > begin) earlier_blocks.add_to(tile);
    }
    counter.take(tile, begin < end);
  }
  const Slot* whole = counter.whole();
  for (std::size_t r = 0; r < kRows; ++r) {
    T* out = job.d_weights + (output + r) * job.x.cols + col;
    if (whole != nullptr) {
      std::copy_n(whole->value + r * Slot::kStride, cols, out);
    } else {
      std::fill_n(out, cols, T{0});
    }
  }
}

template <std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void gradient_all_rows(const WeightGradient<T>& job, std::size_t output, std::size_t end,
                                  std::size_t col, std::size_t cols) {
  for (; output + kRows <= end; output += kRows) {
    gradient_tile<kRows, kVectors>(job, output, col, cols);
  }
  if constexpr (kRows > 1) {
    if (output < end) gradient_all_rows<kRows / 2, kVectors>(job, output, end, col, cols);
  }
}

template <std::size_t kVectors, class T>
HWY_INLINE void gradient_columns(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                                 std::size_t col, std::size_t cols) {
  if constexpr (kVectors > 1) {
    if (cols <= (kVectors - 1) * kRegister<T>) {
      return gradient_columns<kVectors - 1>(job, begin, end, col, cols);
    }
  }
  gradient_all_rows<kTileRows, kVectors>(job, begin, end, col, cols);
}

template <class T>
void gradient_panel(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                    std::size_t panel) {
  const std::size_t col = panel * kPanel<T>;
  gradient_columns<kTileVectors>(job, begin, end, col, std::min(kPanel<T>, job.x.cols - col));
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

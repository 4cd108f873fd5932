// Sums over samples: leaf by leaf, the leaves in their binary tree. Included once per instruction
// set.
#if defined(LOCKSTEP_NN_GRADIENT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_GRADIENT_INL
#undef LOCKSTEP_NN_GRADIENT_INL
#else
#define LOCKSTEP_NN_GRADIENT_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/runs-inl.hpp"
#include "nn/kernels/tile-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// A subtree of this many leaves is summed by code that is unrolled for it: its partial sums have
// registers or places on the stack that are known beforehand, and its branches are as predictable
// as the batch is.
inline constexpr std::size_t kUnrolledLeaves = 8;

// The bounds of a subtree's leaves, with empty leaves added up to kUnrolledLeaves: an empty leaf
// changes no sum.
class LeafRows {
 public:
  HWY_INLINE explicit LeafRows(std::span<const std::size_t> bounds)
      : bounds_(bounds.data()), count_(bounds.size() - 1) {
    if (count_ >= kUnrolledLeaves) return;
    std::copy(bounds.begin(), bounds.end(), padded_);
    std::fill(padded_ + bounds.size(), padded_ + kUnrolledLeaves + 1, bounds.back());
    bounds_ = padded_;
    count_ = kUnrolledLeaves;
  }
  LeafRows(const LeafRows&) = delete;
  LeafRows& operator=(const LeafRows&) = delete;

  HWY_INLINE std::size_t count() const { return count_; }
  HWY_INLINE std::size_t begin(std::size_t leaf) const { return bounds_[leaf]; }
  HWY_INLINE bool any_in(std::size_t leaf, std::size_t leaves) const {
    return bounds_[leaf] < bounds_[leaf + leaves];
  }

 private:
  const std::size_t* bounds_;
  std::size_t count_;
  std::size_t padded_[kUnrolledLeaves + 1];
};

// node = the sum over leaves [first, first + kLeaves), of which at least one has samples.
// sum_rows(begin, end, node) gives the sum over the samples of one leaf.
template <std::size_t kLeaves, class Node, class SumRows>
HWY_INLINE void sum_unrolled(const LeafRows& leaves, std::size_t first, const SumRows& sum_rows,
                             Node& node) {
  if constexpr (kLeaves == 1) {
    sum_rows(leaves.begin(first), leaves.begin(first + 1), node);
  } else {
    constexpr std::size_t kHalf = kLeaves / 2;
    const bool left = leaves.any_in(first, kHalf);
    if (left) sum_unrolled<kHalf>(leaves, first, sum_rows, node);
    if (leaves.any_in(first + kHalf, kHalf)) {
      Node right;
      sum_unrolled<kHalf>(leaves, first + kHalf, sum_rows, right);
      if (left) {
        node.add(right);
      } else {
        node = right;
      }
    }
  }
}

// The binary tree over the unrolled subtrees, walked as a counter counts: slot k holds the sum of a
// finished node of 2^k of them that waits for its right sibling.
template <class T, std::size_t kRows, std::size_t kVectors>
class SubtreeCounter {
 public:
  using Node = Tile<T, kRows, kVectors>;

  // Takes in the next subtree. Returns with `node` the sum of the node that it completes, and
  // whether that has any samples.
  HWY_INLINE bool take(Node& node, bool present) {
    std::size_t level = 0;
    for (std::size_t n = next_++; n & 1; n >>= 1, ++level) {
      if (waiting_ >> level & 1) {
        if (present) {
          node.add(slots_[level], Node::kColumns);
        } else {
          node.load(slots_[level], Node::kColumns);
        }
        present = true;
      }
      waiting_ &= ~(std::size_t{1} << level);
    }
    if (present) {
      node.store(slots_[level], Node::kColumns);
      waiting_ |= std::size_t{1} << level;
    }
    return present;
  }

 private:
  std::size_t next_ = 0;
  std::size_t waiting_ = 0;
  alignas(kAlignment) T slots_[kMaxTreeLevels + 1][kRows * Node::kColumns];
};

// node = the sum over all leaves, 0 where none has samples.
template <class T, std::size_t kRows, std::size_t kVectors, class SumRows>
HWY_INLINE void sum_leaves(const LeafRows& leaves, const SumRows& sum_rows,
                           Tile<T, kRows, kVectors>& node) {
  SubtreeCounter<T, kRows, kVectors> counter;
  bool present = false;
  for (std::size_t first = 0; first < leaves.count(); first += kUnrolledLeaves) {
    present = leaves.any_in(first, kUnrolledLeaves);
    if (present) sum_unrolled<kUnrolledLeaves>(leaves, first, sum_rows, node);
    if (leaves.count() > kUnrolledLeaves) present = counter.take(node, present);
  }
  if (!present) node.clear();
}

// Sums the products over the samples of one leaf: in blocks, of which most leaves are one, or in
// runs. The first step of a leaf stands where its first row would, also where steps are fewer than
// rows.
template <class T, class Terms>
struct LeafProducts {
  const T* x;
  std::size_t x_step;
  const T* d_y;
  std::size_t d_y_step;

  template <std::size_t kRows, std::size_t kVectors>
  HWY_INLINE void operator()(std::size_t begin, std::size_t end,
                             Tile<T, kRows, kVectors>& node) const {
    using Node = Tile<T, kRows, kVectors>;
    if constexpr (Terms::kInRuns) {
      alignas(kAlignment) T sums[kRows * Node::kColumns];
      sum_runs<kRows, kVectors>(steps_of<Terms>(end - begin), factors(begin), sums, Node::kColumns,
                                true);
      node.load(sums, Node::kColumns);
    } else {
      node.template multiply<Rows::packed>(std::min(kDepthBlock, end - begin), factors(begin));
      for (std::size_t row = begin + kDepthBlock; HWY_UNLIKELY(row < end); row += kDepthBlock) {
        Node block;
        block.template multiply<Rows::packed>(std::min(kDepthBlock, end - row), factors(row));
        block.add(node);
        node = block;
      }
    }
  }

  HWY_INLINE TileFactors<T, Terms> factors(std::size_t step) const {
    return {x + step * x_step, 1, x_step, d_y + step * d_y_step, d_y_step, 0};
  }
};

// Has the cache lines of `rows` rows of `cols` elements, `stride` apart, brought into the
// second-level cache: asked for in the first, so many lines at once would hold up the factors that
// are read there.
template <class T>
HWY_INLINE void prefetch_rows(const T* values, std::size_t rows, std::size_t cols,
                              std::size_t stride) {
  for (std::size_t r = 0; r < rows; ++r, values += stride) {
    for (std::size_t j = 0; j < cols; j += kAlignment / sizeof(T)) {
      __builtin_prefetch(values + j, 0, 2);
    }
  }
}

// What use_gradient() is about to write. Rows of weights are far apart; they come while the
// products are summed.
template <class T>
HWY_INLINE void prefetch_weights(const WeightGradient<T>& job, std::size_t rows, std::size_t cols,
                                 std::size_t at) {
  if (job.update == nullptr) return prefetch_rows(job.d_weights + at, rows, cols, job.outputs);
  for (const T* values : {job.update->parameters, job.update->moment1, job.update->moment2}) {
    if (values != nullptr) prefetch_rows(values + at, rows, cols, job.outputs);
  }
}

// The gradient of `rows` by `cols` weights, the first of them at `at`, is written, or they move by
// it. Whole registers may be read from its rows.
template <class T>
void use_gradient(const WeightGradient<T>& job, const T* gradient, std::size_t rows,
                  std::size_t stride, std::size_t cols, std::size_t at) {
  if (job.update != nullptr) {
    return update_rows(*job.update, gradient, rows, stride, cols, at, job.outputs);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    std::copy_n(gradient + r * stride, cols, job.d_weights + at + r * job.outputs);
  }
}

// kRows inputs, from `input` on, by kVectors registers of one panel.
template <class Terms, std::size_t kRows, std::size_t kVectors, class T>
void gradient_tile(const WeightGradient<T>& job, std::size_t input, std::size_t panel) {
  Tile<T, kRows, kVectors> tile;
  const std::size_t col = panel * kPanel<T>;
  const std::size_t at = input * job.outputs + col;
  const std::size_t cols = std::min(tile.kColumns, job.outputs - col);
  prefetch_weights(job, kRows, cols, at);
  const LeafProducts<T, Terms> sum_rows{job.x + input / kTileRows * job.x_strip + input % kTileRows,
                                        job.x_step, job.d_y + panel * job.d_y_panel, job.d_y_step};
  sum_leaves(LeafRows(job.leaf_rows), sum_rows, tile);

  if (job.update == nullptr && cols == tile.kColumns) {
    tile.store(job.d_weights + at, job.outputs);
    return;
  }
  alignas(kAlignment) T gradient[kRows * tile.kColumns];
  tile.store(gradient, tile.kColumns);
  use_gradient(job, gradient, kRows, tile.kColumns, cols, at);
}

// Inputs [begin, end) in tiles of kRows, then what is left in tiles of half that many.
template <class Terms, std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void gradient_tiles(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                               std::size_t panel) {
  for (; begin + kRows <= end; begin += kRows) {
    gradient_tile<Terms, kRows, kVectors>(job, begin, panel);
  }
  if constexpr (kRows > 1) {
    if (begin < end) gradient_tiles<Terms, kRows / 2, kVectors>(job, begin, end, panel);
  }
}

template <class Terms, class T>
void weight_gradient_of(const WeightGradient<T>& job, std::size_t input_begin,
                        std::size_t input_end, std::size_t panel) {
  if (job.outputs - panel * kPanel<T> <= kRegister<T>) {
    gradient_tiles<Terms, Terms::kRows, 1>(job, input_begin, input_end, panel);
  } else {
    gradient_tiles<Terms, Terms::kRows, kTileVectors>(job, input_begin, input_end, panel);
  }
}

template <class T>
void weight_gradient(const WeightGradient<T>& job, std::size_t input_begin, std::size_t input_end,
                     std::size_t panel) {
  if (job.precision == Precision::bfloat16) {
    weight_gradient_of<Runs>(job, input_begin, input_end, panel);
  } else {
    weight_gradient_of<Singles>(job, input_begin, input_end, panel);
  }
}

// Sums a group of columns over the samples of one leaf, in blocks. add_row(row, node) adds what a
// sample has to give.
template <class AddRow>
struct LeafColumns {
  AddRow add_row;

  template <class Node>
  HWY_INLINE void operator()(std::size_t begin, std::size_t end, Node& node) const {
    for (std::size_t block = begin; block < end; block += kDepthBlock) {
      Node part;
      part.clear();
      for (std::size_t row = block; row < std::min(end, block + kDepthBlock); ++row) {
        add_row(row, part);
      }
      if (block > begin) part.add(node);
      node = part;
    }
  }
};

// The bias is a weight whose input is one: the same tree over a column of ones.
template <class T>
void bias_gradient(MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows, T* d_bias) {
  using Sum = Tile<T, 1, kRegisters<T>>;
  for (std::size_t col = 0; col < d_y.cols; col += kLanes) {
    const auto add_row = [&](std::size_t row, Sum& sum)
                             LOCKSTEP_LAMBDA { sum.add(d_y.row(row) + col, 0); };
    Sum sum;
    sum_leaves(LeafRows(leaf_rows), LeafColumns<decltype(add_row)>{add_row}, sum);
    alignas(kAlignment) T lanes[kLanes];
    sum.store(lanes, kLanes);
    std::copy_n(lanes, std::min(kLanes, d_y.cols - col), d_bias + col);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

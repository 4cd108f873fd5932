// Sums over samples: leaf by leaf, the leaves in their binary tree. Included once per instruction
// set.
#if defined(LOCKSTEP_NN_LEAVES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_LEAVES_INL
#undef LOCKSTEP_NN_LEAVES_INL
#else
#define LOCKSTEP_NN_LEAVES_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Leaves of the largest subtree whose partial sums are kept in registers.
inline constexpr std::size_t kMostLeavesAtOnce = 8;

// As many leaves as have room for such nodes in the registers of a whole tile: one for each level
// of their subtree, and those that summing a leaf takes.
constexpr std::size_t leaves_at_once(std::size_t registers_of_node, std::size_t nodes_of_leaf) {
  std::size_t leaves = 1;
  for (std::size_t nodes = nodes_of_leaf + 1;
       nodes * registers_of_node <= kTileRows * kTileVectors && leaves < kMostLeavesAtOnce;
       ++nodes) {
    leaves *= 2;
  }
  return leaves;
}

// The bounds of the leaves of a tree. Fewer than kMostLeavesAtOnce are followed by empty ones,
// which change no sum.
class LeafRows {
 public:
  HWY_INLINE explicit LeafRows(std::span<const std::size_t> bounds)
      : bounds_(bounds.data()), count_(bounds.size() - 1) {
    if (count_ >= kMostLeavesAtOnce) return;
    std::copy(bounds.begin(), bounds.end(), padded_);
    std::fill(padded_ + bounds.size(), padded_ + kMostLeavesAtOnce + 1, bounds.back());
    bounds_ = padded_;
  }
  LeafRows(const LeafRows&) = delete;
  LeafRows& operator=(const LeafRows&) = delete;

  HWY_INLINE std::size_t count() const { return count_; }
  HWY_INLINE std::size_t begin(std::size_t leaf) const { return bounds_[leaf]; }
  HWY_INLINE std::size_t rows() const { return bounds_[count_] - bounds_[0]; }

 private:
  const std::size_t* bounds_;
  std::size_t count_;
  std::size_t padded_[kMostLeavesAtOnce + 1];
};

// node = the sum over leaves [first, first + kLeaves), in registers. A leaf without samples is -0,
// which as a summand changes nothing, not even the sign of a zero. sum_rows(leaf, begin, end, node)
// gives the sum over the samples of a leaf that has some, and takes SumRows::kNodes nodes for it.
template <std::size_t kLeaves, class Node, class SumRows>
HWY_INLINE void sum_at_once(const LeafRows& leaves, std::size_t first, const SumRows& sum_rows,
                            Node& node) {
  if constexpr (kLeaves == 1) {
    const std::size_t begin = leaves.begin(first), end = leaves.begin(first + 1);
    if (HWY_LIKELY(begin < end)) {
      sum_rows(first, begin, end, node);
    } else {
      node.fill(-0.0F);
    }
  } else {
    constexpr std::size_t kHalf = kLeaves / 2;
    sum_at_once<kHalf>(leaves, first, sum_rows, node);
    Node right;
    sum_at_once<kHalf>(leaves, first + kHalf, sum_rows, right);
    node.add(right);
  }
}

// node = the sum over all leaves, 0 where none has samples. Leaves go in groups of those that are
// summed at once, and the tree over groups is walked as a counter counts: waiting[k] is the sum of
// a finished node of 2^k groups that waits for its right sibling. That is memory, and all else is
// in registers: left to keep waiting nodes there, a compiler moves them to and fro.
template <class T, std::size_t kRows, std::size_t kVectors, class SumRows>
HWY_INLINE void sum_leaves(const LeafRows& leaves, const SumRows& sum_rows,
                           Tile<T, kRows, kVectors>& node) {
  using Node = Tile<T, kRows, kVectors>;
  constexpr std::size_t kAtOnce = leaves_at_once(kRows * kVectors, SumRows::kNodes);
  alignas(kAlignment) T waiting[kMaxTreeLevels][kRows * Node::kColumns];
  if (leaves.rows() == 0) return node.clear();
  for (std::size_t group = 0, first = 0; first < leaves.count(); ++group, first += kAtOnce) {
    sum_at_once<kAtOnce>(leaves, first, sum_rows, node);
    std::size_t level = 0;
    for (; group >> level & 1; ++level) node.add(waiting[level], Node::kColumns);
    if (first + kAtOnce < leaves.count()) node.store(waiting[level], Node::kColumns);
  }
}

// The same for nodes that are memory themselves, such as those of AMX: where a leaf is summed, it
// stays. Returns whether any of the `count` leaves from `first` on has samples; then nodes[0] has
// their sum. There is one node for each level of the tree, and one more.
template <class Node, class SumRows>
bool sum_leaves_in_memory(const LeafRows& leaves, std::size_t first, std::size_t count,
                          const SumRows& sum_rows, Node* nodes) {
  if (count == 1) {
    const std::size_t begin = leaves.begin(first), end = leaves.begin(first + 1);
    if (begin < end) sum_rows(first, begin, end, nodes[0]);
    return begin < end;
  }
  const std::size_t half = count / 2;
  if (!sum_leaves_in_memory(leaves, first, half, sum_rows, nodes)) {
    return sum_leaves_in_memory(leaves, first + half, half, sum_rows, nodes);
  }
  if (sum_leaves_in_memory(leaves, first + half, half, sum_rows, nodes + 1)) {
    nodes[0].add(nodes[1]);
  }
  return true;
}

// Sums a group of columns over the samples of one leaf, in blocks. add_row(row, node) adds what a
// sample has to give.
template <class AddRow>
struct LeafColumns {
  static constexpr std::size_t kNodes = 2;

  AddRow add_row;

  template <class Node>
  HWY_INLINE void operator()(std::size_t /*leaf*/, std::size_t begin, std::size_t end,
                             Node& node) const {
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

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

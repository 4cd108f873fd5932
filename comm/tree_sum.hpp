// Finishes the fixed tree (leaf_tree.hpp) for one range of elements from the sums of subtrees.
//
// The inputs are sums over subtrees that together cover all leaves once, each n floats or absent.
// The result does not depend on where the inputs lie in memory or on how the leaves were divided
// into subtrees: an addition is elementwise, and its place is given by the tree.
//
// Owns a scratch of log2(L) blocks of 4 KiB and nothing else; refers to the inputs. Not
// thread-safe; local; no MPI; finish() does not allocate.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/leaf_tree.hpp"

namespace lockstep::comm {

class TreeSum {
 public:
  // leaves: a power of two, at least 1; throws std::invalid_argument otherwise.
  explicit TreeSum(std::size_t leaves);

  // The sum over `subtree`: n floats, which must live until finish(), or null if it is absent.
  // Replaces what was set for it before.
  void set(Subtree subtree, const float* values);

  // total = the sum at the root, zeros if all leaves are absent. Every input has total.size()
  // floats; total overlaps none of them.
  void finish(std::span<float> total);

 private:
  struct Input {
    std::size_t size = 0;           // leaves that it covers; 0: no input starts at this leaf
    const float* values = nullptr;  // null: absent
  };

  const float* sum_block(Subtree node, std::size_t depth, std::size_t offset, std::size_t count,
                         float* out);

  std::size_t leaves_;
  std::vector<Input> inputs_;  // by first leaf
  detail::AlignedFloats scratch_;
};

}  // namespace lockstep::comm

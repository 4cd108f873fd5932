// Finishes a node of the fixed tree (leaf_tree.hpp) for one chunk of elements after the other, from
// the sums of subtrees.
//
// A chunk at a time, so that what inner nodes hold stays in the first-level cache: each input is
// read from memory once, and who takes the chunk finds it there. The inputs are sums over subtrees
// that together cover the node's leaves once, or absent. The result does not depend on where the
// inputs lie in memory or on how the leaves were divided into subtrees: an addition is elementwise,
// and its place is given by the tree.
//
// Owns a scratch of log2(L) + 1 chunks and nothing else; refers to the inputs. Not thread-safe;
// local; no MPI; only the constructor allocates.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/leaf_tree.hpp"
#include "comm/shards.hpp"

namespace lockstep::comm {

// left += right; left = right. The two do not overlap.
void add_to(float* left, const float* right, std::size_t count);
void copy_to(float* left, const float* right, std::size_t count);

class TreeSum {
 public:
  // leaves: a power of two, at least 1; throws std::invalid_argument otherwise.
  explicit TreeSum(std::size_t leaves);

  // The sum over `subtree`: floats that must live as long as at() is called, or null if it is
  // absent. Replaces what was set for it, or for subtrees of it, before.
  void set(Subtree subtree, const float* values);

  // Where elements offset..offset+count-1 of the sum at `node` stand: in an input or in `out`; null
  // if the node is absent. count <= chunk; `out` has room for them and overlaps no input. What is
  // set must cover the leaves of `node`.
  const float* at(Subtree node, std::size_t offset, std::size_t count, float* out);

  // Writes elements offset..offset+count-1 of the sum at `node`, which is present, to `out`: any
  // number of them; `out` may be where an input has them.
  void write(Subtree node, std::size_t offset, std::size_t count, float* out);

  // Inputs that the two read for `node`.
  std::size_t terms(Subtree node) const;

  std::size_t leaves() const { return leaves_; }

 private:
  struct Input {
    std::size_t size = 0;           // leaves that it covers; 0: no input starts at this leaf
    const float* values = nullptr;  // null: absent
  };

  const float* sum(Subtree node, std::size_t depth, std::size_t offset, std::size_t count,
                   float* out);

  std::size_t leaves_;
  std::vector<Input> inputs_;  // by first leaf
  detail::AlignedFloats scratch_;
};

}  // namespace lockstep::comm

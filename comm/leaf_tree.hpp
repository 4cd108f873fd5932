// The fixed binary tree over the leaves of a batch, in which everything that mixes samples is
// summed.
//
// L leaves (a power of two) are numbered 0..L-1. A node covers an aligned range: `size` leaves, a
// power of two, from `first`, a multiple of `size`. Its children are its two halves; the root
// covers all leaves. A leaf without samples is absent. The sum at a node is
//   left + right   if both children are present,
//   that child     if only one is present (nothing is added, not even zero),
//   absent         if none is.
// The order of the additions is thus a function of L and of which leaves are present, and of
// nothing else: not of who holds which leaves.
//
// Plain functions of their arguments; thread-safe; local; no MPI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::comm {

// Leaves begin..end-1.
struct LeafRange {
  std::size_t begin;
  std::size_t end;
  bool operator==(const LeafRange&) const = default;
};

// A node of the tree: leaves first..first+size-1; first % size == 0.
struct Subtree {
  std::size_t first;
  std::size_t size;
  bool operator==(const Subtree&) const = default;
};

// The leaves that `rank` computes: [rank*L/R, (rank+1)*L/R). None is empty while ranks <= leaves.
LeafRange leaves_of_rank(std::size_t rank, std::size_t ranks, std::size_t leaves);

// The fewest nodes that cover exactly `range`, in leaf order: at most 2*log2(L) of them.
std::vector<Subtree> maximal_subtrees(LeafRange range);

// Whether any leaf of `subtree` is present. leaf_present has L flags, 0 or 1.
bool is_present(Subtree subtree, std::span<const std::uint8_t> leaf_present);

}  // namespace lockstep::comm

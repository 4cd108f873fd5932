// How the ranks of an exchange lie on nodes: the lower levels of the leaf tree are a node's own.
//
// With `members` ranks on each of `groups` nodes, and a node's ranks neighbours, rank g * members +
// m is member m of group g, and a group's leaves are neighbours as well. Where nodes have different
// numbers of ranks, every rank is a group of its own. Plain values; thread-safe; local; no MPI.
#pragma once

#include <cstddef>
#include <span>

#include "comm/leaf_tree.hpp"

namespace lockstep::comm::detail {

struct Hierarchy {
  std::size_t members = 1;  // ranks of a group
  std::size_t groups = 1;
  std::size_t member = 0;  // this rank's place in its group
  std::size_t group = 0;

  std::size_t rank_of(std::size_t g, std::size_t m) const { return g * members + m; }
};

// The hierarchy of ranks of which rank r runs on node node_of[r], as `rank` sees it.
Hierarchy hierarchy_of(std::span<const std::size_t> node_of, std::size_t rank);

// The same for groups of `members` neighbours, whatever their nodes. Throws std::invalid_argument
// if `members` does not divide the ranks.
Hierarchy hierarchy_of_groups(std::size_t members, std::size_t ranks, std::size_t rank);

// The leaves of all ranks of group g.
LeafRange leaves_of_group(const Hierarchy& hierarchy, std::size_t g, std::size_t leaves);

}  // namespace lockstep::comm::detail

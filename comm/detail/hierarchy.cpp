#include "comm/detail/hierarchy.hpp"

#include <stdexcept>

namespace lockstep::comm::detail {
namespace {

// Whether every run of `members` ranks is on one node of its own.
bool are_nodes(std::span<const std::size_t> node_of, std::size_t members) {
  if (node_of.size() % members != 0) return false;
  for (std::size_t r = 0; r < node_of.size(); ++r) {
    const bool starts_a_group = r % members == 0;
    if (r > 0 && (node_of[r] == node_of[r - 1]) == starts_a_group) return false;
  }
  return true;
}

}  // namespace

Hierarchy hierarchy_of_groups(std::size_t members, std::size_t ranks, std::size_t rank) {
  if (members == 0 || ranks % members != 0) {
    throw std::invalid_argument("groups of equal size must divide the ranks");
  }
  return {members, ranks / members, rank % members, rank / members};
}

Hierarchy hierarchy_of(std::span<const std::size_t> node_of, std::size_t rank) {
  std::size_t members = 1;
  while (members < node_of.size() && node_of[members] == node_of[0]) ++members;
  if (!are_nodes(node_of, members)) members = 1;
  return hierarchy_of_groups(members, node_of.size(), rank);
}

LeafRange leaves_of_group(const Hierarchy& hierarchy, std::size_t g, std::size_t leaves) {
  const std::size_t ranks = hierarchy.members * hierarchy.groups;
  const std::size_t first = hierarchy.rank_of(g, 0);
  const std::size_t last = hierarchy.rank_of(g, hierarchy.members - 1);
  return {leaves_of_rank(first, ranks, leaves).begin, leaves_of_rank(last, ranks, leaves).end};
}

}  // namespace lockstep::comm::detail

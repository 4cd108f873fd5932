#include "comm/leaf_tree.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

namespace lockstep::comm {

LeafRange leaves_of_rank(std::size_t rank, std::size_t ranks, std::size_t leaves) {
  assert(rank < ranks);
  return {rank * leaves / ranks, (rank + 1) * leaves / ranks};
}

std::vector<Subtree> maximal_subtrees(LeafRange range) {
  std::vector<Subtree> subtrees;
  for (std::size_t first = range.begin; first < range.end;) {
    const std::size_t fits = std::bit_floor(range.end - first);
    const std::size_t aligned = first == 0 ? fits : std::size_t{1} << std::countr_zero(first);
    const std::size_t size = std::min(fits, aligned);
    subtrees.push_back({first, size});
    first += size;
  }
  return subtrees;
}

bool is_present(Subtree subtree, std::span<const std::uint8_t> leaf_present) {
  const auto flags = leaf_present.subspan(subtree.first, subtree.size);
  return std::any_of(flags.begin(), flags.end(), [](std::uint8_t flag) { return flag != 0; });
}

}  // namespace lockstep::comm

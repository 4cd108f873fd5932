#include "comm/shards.hpp"

#include <algorithm>
#include <cassert>

namespace lockstep::comm {

Shard shard_of(std::size_t rank, std::size_t ranks, std::size_t elements) {
  assert(rank < ranks);
  const std::size_t lines = elements / shard_alignment + (elements % shard_alignment != 0);
  const auto boundary = [&](std::size_t r) {
    return std::min(elements, r * lines / ranks * shard_alignment);
  };
  return {boundary(rank), boundary(rank + 1)};
}

}  // namespace lockstep::comm

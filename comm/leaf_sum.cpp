#include "comm/leaf_sum.hpp"

#include <algorithm>
#include <limits>

namespace lockstep::comm {
namespace {

ParameterExchange::Options whole_on_every_rank(std::size_t elements) {
  const std::size_t bytes = std::max<std::size_t>(1, elements * sizeof(float));
  return {.buckets = {bytes, bytes},
          .replicated_bytes = std::numeric_limits<std::size_t>::max(),
          .thread = ParameterExchange::Thread::never,
          .watched = false};
}

}  // namespace

LeafSum::LeafSum(Communicator& communicator, std::size_t leaves, std::size_t elements)
    : exchange_(communicator, leaves, elements, whole_on_every_rank(elements)) {
  exchange_.set_move([](std::size_t begin, std::span<const float> sum, std::span<float> moved,
                        unsigned) { std::ranges::copy(sum, moved.subspan(begin).begin()); });
}

std::span<const float> LeafSum::sum(std::span<const std::uint8_t> leaf_present) {
  exchange_.begin(leaf_present, 0);
  exchange_.final_from(0);
  exchange_.finish();
  return exchange_.parameters();
}

}  // namespace lockstep::comm

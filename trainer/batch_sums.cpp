#include "trainer/batch_sums.hpp"

#include <algorithm>
#include <cassert>

namespace lockstep::trainer {

BatchSums::BatchSums(const nn::Network<float>& network, comm::Communicator& communicator,
                     std::size_t leaves) {
  for (const auto& layer : network.layers()) {
    for (const std::size_t elements : layer->batch_sums()) {
      if (std::ranges::find(exchanges_, elements, &Exchange::elements) != exchanges_.end()) {
        continue;
      }
      exchanges_.push_back(
          {elements, std::make_unique<comm::LeafSum>(communicator, leaves, elements)});
    }
  }
  if (!exchanges_.empty()) present_subtrees_.reserve(exchanges_[0].sum->subtrees().size());
}

void BatchSums::set_batch(std::span<const std::uint8_t> leaf_present) {
  leaf_present_ = leaf_present;
  present_subtrees_.clear();
  if (exchanges_.empty()) return;
  const auto subtrees = exchanges_[0].sum->subtrees();
  for (std::size_t i = 0; i < subtrees.size(); ++i) {
    if (comm::is_present(subtrees[i], leaf_present)) present_subtrees_.push_back(i);
  }
}

std::span<float> BatchSums::partial(std::size_t elements, std::size_t i) {
  return of_size(elements).partial(present_subtrees_[i]);
}

std::span<const float> BatchSums::total(std::size_t elements) {
  return of_size(elements).sum(leaf_present_);
}

double BatchSums::seconds_waited() const {
  double seconds = 0;
  for (const Exchange& exchange : exchanges_) seconds += exchange.sum->seconds_waited();
  return seconds;
}

comm::LeafSum& BatchSums::of_size(std::size_t elements) {
  const auto found = std::ranges::find(exchanges_, elements, &Exchange::elements);
  assert(found != exchanges_.end());
  return *found->sum;
}

}  // namespace lockstep::trainer

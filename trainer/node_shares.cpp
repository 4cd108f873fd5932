#include "trainer/node_shares.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "nn/parallel.hpp"

namespace lockstep::trainer {

using OwnSums = comm::ParameterExchange::OwnSums;
using Part = comm::ParameterExchange::Part;

namespace {

// Gradients of fewer weights are read and added up in less time than ranks need to meet.
constexpr std::size_t kWorthSharing = std::size_t{1} << 16;

// Calls work(first element, their number) for neighbouring chunks, on all threads.
template <class Work>
void for_each_block(comm::Shard elements, const Work& work) {
  constexpr std::size_t kBlock = 16 * comm::chunk;
  nn::for_each_part(nn::parts_of(elements.size(), kBlock),
                    4.0 * static_cast<double>(elements.size()), [&](std::size_t part) {
                      const std::size_t begin = elements.begin + part * kBlock;
                      work(begin, std::min(kBlock, elements.end - begin));
                    });
}

// Factors of more samples than this many gradients are large: boards would be most of a rank's
// memory, to spare what is little beside the products of so many samples.
constexpr std::size_t kGradientsWorthShowing = 4;

// Every trained matrix is the weights of a dense layer, which asks for what is shared.
bool is_worth_sharing(const nn::ParameterTensor& tensor, std::size_t samples) {
  if (!tensor.is_trained || tensor.shape.size() != 2 || tensor.size < kWorthSharing) return false;
  return samples * (tensor.shape[0] + tensor.shape[1]) <= kGradientsWorthShowing * tensor.size;
}

// What ranks must have in common to read one another's factors.
std::string kernels_in_words() {
  const auto& kernel = nn::kernels<float>();
  return fmt::format("{} {} {}", kernel.panel_width, kernel.tile_inputs,
                     kernel.pairs == nullptr ? 0 : kernel.pairs->tile_inputs);
}

}  // namespace

NodeShares::Plan NodeShares::plan(const nn::ParameterLayout& layout,
                                  const comm::Communicator& communicator, const CommConfig& config,
                                  std::size_t leaves, std::size_t largest_batch) {
  Plan plan{{}, leaves, largest_batch};
  const bool one_node = communicator.local_size() == communicator.size();
  if (!config.share_weights || !config.shared_memory || !one_node || communicator.size() == 1) {
    return plan;
  }
  for (const nn::ParameterTensor& tensor : layout.tensors()) {
    if (is_worth_sharing(tensor, largest_batch)) plan.matrices.push_back(tensor);
  }
  return plan;
}

std::vector<std::size_t> NodeShares::Plan::cuts() const {
  std::vector<std::size_t> cuts;
  for (const nn::ParameterTensor& tensor : matrices) {
    cuts.push_back(tensor.offset);
    cuts.push_back(tensor.offset + tensor.size);
  }
  return cuts;
}

bool NodeShares::fills_huge_pages() const {
  constexpr std::size_t kTwoHugePages = std::size_t{4} << 20;  // bytes, at both ends of a piece
  std::size_t bytes = 0;
  for (const auto& own : own_sums_) bytes += own.elements.size() * sizeof(float);
  return own_sums_.size() * kTwoHugePages <= bytes;
}

bool NodeShares::kernels_agree(comm::Communicator& communicator) {
  const auto kernels = communicator.gather_strings(kernels_in_words());
  return std::ranges::adjacent_find(kernels, std::not_equal_to()) == kernels.end();
}

std::optional<NodeShares> NodeShares::make(comm::ParameterExchange& exchange,
                                           comm::Communicator& communicator,
                                           comm::ParameterWatch& watch, const Plan& plan,
                                           std::string& why_not) {
  const std::size_t ranks = communicator.size();
  NodeShares shares(exchange, watch, communicator.rank(), ranks, plan.leaves);
  const std::vector<Part> parts = exchange.parts();
  for (const nn::ParameterTensor& tensor : plan.matrices) shares.share_out(tensor, parts);

  const std::size_t most_samples =
      std::min(plan.largest_batch,
               nn::parts_of(plan.leaves, ranks) * nn::parts_of(plan.largest_batch, plan.leaves));
  for (const nn::SharedWeights& weights : shares.weights_) {
    shares.packed_at_.push_back(shares.board_size_);
    shares.board_size_ += nn::round_up(most_samples * nn::shared_factors_size(weights), nn::kLanes);
  }
  why_not = exchange.make_boards(shares.board_size_, shares.weights_.size());
  if (!why_not.empty()) return {};
  exchange.set_own_sums(shares.own_sums_);
  return shares;
}

NodeShares::NodeShares(comm::ParameterExchange& exchange, comm::ParameterWatch& watch,
                       std::size_t rank, std::size_t ranks, std::size_t leaves)
    : exchange_(&exchange),
      watch_(&watch),
      rank_(rank),
      leaf_rows_(leaves + 1),
      factors_(ranks),
      of_leaf_(leaves) {
  for (std::size_t r = 0; r < ranks; ++r) {
    const comm::LeafRange own = comm::leaves_of_rank(r, ranks, leaves);
    leaf_rows_of_rank_.emplace_back(own.end - own.begin + 1);
  }
}

// Rows that one rank owns whole are its own to move, if they begin and end where registers do: with
// 100 outputs every fourth row does.
void NodeShares::share_out(const nn::ParameterTensor& tensor, std::span<const Part> parts) {
  const std::size_t outputs = tensor.shape[0];
  nn::SharedWeights weights{tensor.offset, tensor.shape[1], outputs, weights_.size(), {}};
  const std::size_t together = nn::kLanes / std::gcd(nn::kLanes, outputs);  // rows
  for (const Part& part : parts) {
    const std::size_t begin = std::max(part.elements.begin, tensor.offset);
    const std::size_t end = std::min(part.elements.end, tensor.offset + tensor.size);
    if (begin >= end) continue;
    const bool own = part.everywhere || part.rank == rank_;
    const auto add = [&](std::size_t first, std::size_t last, bool moves) {
      if (first >= last) return;
      weights.rows.push_back({first, last, own, moves});
      if (!own) return;
      own_sums_.push_back({{std::max(begin, tensor.offset + first * outputs),
                            std::min(end, tensor.offset + last * outputs)},
                           moves});
    };
    const std::size_t first = (begin - tensor.offset) / outputs;
    const std::size_t last = nn::parts_of(end - tensor.offset, outputs);
    const std::size_t first_whole =
        nn::round_up(nn::parts_of(begin - tensor.offset, outputs), together);
    const std::size_t last_whole = (end - tensor.offset) / outputs / together * together;
    if (first_whole >= last_whole) {
      add(first, last, false);
      continue;
    }
    add(first, first_whole, false);
    add(first_whole, last_whole, true);
    add(last_whole, last, false);
  }
  weights_.push_back(std::move(weights));
}

void NodeShares::set_batch(const LeafBounds& bounds) {
  for (std::size_t l = 0; l <= bounds.leaves(); ++l) {
    leaf_rows_[l] = l < bounds.leaves() ? bounds.begin(l) : bounds.end(l - 1);
  }
  std::size_t first = 0;
  for (std::vector<std::size_t>& rows : leaf_rows_of_rank_) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] = leaf_rows_[first + i] - leaf_rows_[first];
    first += rows.size() - 1;
  }
}

void NodeShares::begin(const nn::Update<float>* rule, unsigned unless_raised) {
  update_ = rule;
  unless_raised_ = unless_raised;
  flags_seen_ = false;
}

std::string NodeShares::describe() const {
  return fmt::format(
      "the gradient of {} shared out by weights, {:.1f} MiB a rank for factors",
      weights_.size() == 1 ? "one layer is" : fmt::format("{} layers is", weights_.size()),
      static_cast<double>(memory_bytes()) / (1 << 20));
}

const nn::SharedWeights* NodeShares::find(std::size_t offset) const {
  const auto found = std::ranges::find(weights_, offset, &nn::SharedWeights::offset);
  return found == weights_.end() ? nullptr : &*found;
}

void NodeShares::before_moving(std::size_t begin, std::size_t end) {
  const std::span<const float> parameters = exchange_->parameters();
  for_each_block(exchange_->before_moving({begin, end}), [&](std::size_t at, std::size_t count) {
    watch_->before_change(at, parameters.subspan(at, count));
  });
}

void NodeShares::after_moving(std::size_t begin, std::size_t end) {
  const std::span<const float> parameters = exchange_->parameters();
  for_each_block(exchange_->after_moving({begin, end}), [&](std::size_t at, std::size_t count) {
    watch_->after_move(at, parameters.subspan(at, count));
  });
}

std::span<float> NodeShares::packed(const nn::SharedWeights& weights) {
  const std::size_t next = weights.place + 1;
  const std::size_t end = next < packed_at_.size() ? packed_at_[next] : board_size_;
  return exchange_->board().subspan(packed_at_[weights.place], end - packed_at_[weights.place]);
}

std::span<const nn::WeightShares::Factors> NodeShares::wait(const nn::SharedWeights& weights) {
  exchange_->wait_for_posts(weights.place);
  if (!flags_seen_) {
    flags_seen_ = true;
    if ((exchange_->raised() & unless_raised_) != 0) update_ = nullptr;
    exchange_->own_sums_are(update_ != nullptr ? OwnSums::moved : OwnSums::given);
  }
  for (std::size_t r = 0; r < factors_.size(); ++r) {
    factors_[r] = {exchange_->board_of(r).data() + packed_at_[weights.place],
                   leaf_rows_of_rank_[r]};
  }
  return factors_;
}

}  // namespace lockstep::trainer

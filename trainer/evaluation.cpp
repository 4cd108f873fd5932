#include "trainer/evaluation.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "trainer/batch.hpp"

namespace lockstep::trainer {
namespace {

constexpr std::size_t kBlock = 512;  // samples; part of the order of sums, so of the contract

std::size_t blocks_of(std::size_t samples) {
  return (samples + kBlock - 1) / kBlock;
}

// Calls block(index, rows of the block) for each block of this rank.
template <class Block>
void for_each_block(std::span<const std::uint32_t> rows, std::size_t rank, std::size_t ranks,
                    const Block& block) {
  const std::size_t blocks = blocks_of(rows.size());
  for (std::size_t b = rank * blocks / ranks; b < (rank + 1) * blocks / ranks; ++b) {
    block(b, rows.subspan(b * kBlock, std::min(kBlock, rows.size() - b * kBlock)));
  }
}

}  // namespace

Evaluation evaluate(const nn::Network<float>& network, std::span<const float> parameters,
                    const datasets::Dataset& data, std::span<const std::uint32_t> rows,
                    comm::Communicator& communicator) {
  const std::size_t rank = communicator.rank();
  const std::size_t ranks = communicator.size();
  nn::Workspace<float> workspace(network, kBlock, false);
  Batch batch(network, data, kBlock);
  std::vector<float> loss(kBlock);
  std::vector<std::uint8_t> correct(kBlock);
  std::vector<double> mine;  // loss and hits of each block in turn
  for_each_block(rows, rank, ranks, [&](std::size_t, std::span<const std::uint32_t> block) {
    batch.fill(block, workspace.input());
    const auto outputs = network.forward({}, parameters, block.size(), workspace);
    nn::evaluate_loss<float>(network.loss(), outputs, batch.targets(), loss, correct, {});
    double block_loss = 0;
    double block_correct = 0;
    for (std::size_t m = 0; m < block.size(); ++m) {
      block_loss += static_cast<double>(loss[m]);
      block_correct += correct[m];
    }
    mine.push_back(block_loss);
    mine.push_back(block_correct);
  });

  const std::size_t blocks = blocks_of(rows.size());
  std::vector<std::size_t> counts(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    counts[r] = 2 * ((r + 1) * blocks / ranks - r * blocks / ranks);
  }
  std::vector<double> all(2 * blocks);
  communicator.all_gather(mine, counts, all);
  double total_loss = 0;
  double total_correct = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    total_loss += all[2 * b];
    total_correct += all[2 * b + 1];
  }
  const double samples = static_cast<double>(rows.size());
  Evaluation evaluation{.samples = rows.size(), .loss = total_loss / samples, .accuracy = {}};
  if (data.has_classes()) evaluation.accuracy = total_correct / samples;
  return evaluation;
}

void predict(const nn::Network<float>& network, std::span<const float> parameters,
             const datasets::Dataset& data, std::span<const std::uint32_t> rows, std::size_t rank,
             std::size_t ranks,
             const std::function<void(std::uint32_t, std::span<const float>)>& take) {
  nn::Workspace<float> workspace(network, kBlock, false);
  for_each_block(rows, rank, ranks, [&](std::size_t, std::span<const std::uint32_t> block) {
    const auto inputs = workspace.input();
    data.copy_samples(block, inputs.data, inputs.stride);
    network.forward({}, parameters, block.size(), workspace);
    const auto outputs = workspace.output(network.layers().size() - 1).top(block.size());
    network.outputs_to_predictions(outputs);
    for (std::size_t m = 0; m < block.size(); ++m) {
      take(block[m], {outputs.row(m), outputs.cols});
    }
  });
}

std::vector<std::uint32_t> all_rows(std::size_t samples) {
  std::vector<std::uint32_t> rows(samples);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}

}  // namespace lockstep::trainer

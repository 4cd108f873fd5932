// Loss, accuracy and outputs over a set of samples, each counted once, the same bits on any number
// of ranks.
//
// Samples are cut into blocks of kBlock in the order given; a rank evaluates neighbouring blocks,
// sums each in sample order, and every rank adds up all blocks in their order.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "datasets/dataset.hpp"
#include "nn/network.hpp"

namespace lockstep::trainer {

struct Evaluation {
  std::size_t samples = 0;
  double loss = 0;                 // mean over the samples
  std::optional<double> accuracy;  // share of classes found, where targets are classes
};

// Collective; the same result on every rank. Runs on the caller's task arena.
Evaluation evaluate(const nn::Network<float>& network, std::span<const float> parameters,
                    const datasets::Dataset& data, std::span<const std::uint32_t> rows,
                    comm::Communicator& communicator);

// Calls take(row, predictions) for each row of `rows` that is this rank's share, in their order.
// Local, apart from the share: rank and ranks say which neighbouring blocks it is.
void predict(const nn::Network<float>& network, std::span<const float> parameters,
             const datasets::Dataset& data, std::span<const std::uint32_t> rows, std::size_t rank,
             std::size_t ranks,
             const std::function<void(std::uint32_t, std::span<const float>)>& take);

// 0, 1, …, samples - 1.
std::vector<std::uint32_t> all_rows(std::size_t samples);

}  // namespace lockstep::trainer

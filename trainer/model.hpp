// From the configuration to the network and the optimizer, fitted to a dataset.
//
// Local; pure. Throws ConfigError where the model does not fit the data, with both their sizes.
#pragma once

#include "datasets/dataset.hpp"
#include "nn/network.hpp"
#include "nn/optimizer.hpp"
#include "trainer/checkpoint.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer {

// The network for samples of `inputs` numbers.
nn::Network<float> build_network(const Config& config, std::size_t inputs);

// The optimizer of a run of so many updates. Throws ConfigError where its warm-up is no shorter.
nn::OptimizerOptions optimizer_options(const Config& config, std::uint64_t updates);

// Throws ConfigError unless `data` has what the network takes in and what its loss compares with.
// `role` names the file in messages ("data.test").
void check_fits(const nn::Network<float>& network, const datasets::Dataset& data,
                std::string_view role);

// The network that a configuration and its training data make.
nn::Network<float> build_network(const Config& config, const datasets::Dataset& data);

// Throws ConfigError if some layer cannot train on batches of so many samples.
void check_batch_size(const Config& config, std::size_t batch_size);

// A buffer below is the flat one of all parameters, or ends where the statistics begin, as a moment
// does; then these are no part of it.

// buffer = the tensors' values. Throws CheckpointError, which names `origin`, unless names and
// shapes are those of the layout.
void copy_into(std::span<const NamedTensor> tensors, const nn::ParameterLayout& layout,
               std::span<float> buffer, std::string_view origin);

// The tensors of a flat buffer, by name.
std::vector<NamedTensor> tensors_of(const nn::ParameterLayout& layout,
                                    std::span<const float> buffer);

// SHA-256 (hexadecimal) of the parameters' bytes (little-endian float32): tensors in layout order,
// each in the order of its shape, padding left out.
std::string parameters_sha256(const nn::ParameterLayout& layout, std::span<const float> buffer);

}  // namespace lockstep::trainer

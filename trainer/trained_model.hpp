// A network as a checkpoint holds it, ready to be applied to data.
//
// Owns its parameters: the best ones where early stopping kept them, else the last. Immutable;
// local. Throws CheckpointError, ConfigError.
#pragma once

#include <filesystem>
#include <span>

#include "nn/network.hpp"
#include "trainer/checkpoint.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer {

class TrainedModel {
 public:
  static TrainedModel read(const std::filesystem::path& checkpoint);

  const Config& config() const { return config_; }
  const nn::Network<float>& network() const { return network_; }
  std::span<const float> parameters() const { return parameters_.span(); }
  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  TrainedModel(Checkpoint checkpoint, const std::filesystem::path& path);

  Checkpoint checkpoint_;
  Config config_;
  nn::Network<float> network_;
  nn::AlignedBuffer<float> parameters_;
};

}  // namespace lockstep::trainer

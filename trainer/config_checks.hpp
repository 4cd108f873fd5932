// What no single key of a configuration can tell: whether its values go together. Local; pure.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "trainer/config.hpp"

namespace lockstep::trainer {

// Throws ConfigError. `places` says where each key was set ("config.toml:14"), `origin` stands for
// the place of those that were not.
void check_consistency(const Config& config, const std::string& origin,
                       const std::map<std::string, std::string>& places);

// The fewest samples of a step that all layers can train on, the layer that wants them, and why.
struct LeastBatch {
  std::size_t samples = 1;
  std::string key;  // "model.layers[1].batch_norm"
  std::string why;
};
LeastBatch least_batch(const Config& config);

}  // namespace lockstep::trainer

// What no single key of a configuration can tell: whether its values go together. Local; pure.
#pragma once

#include <map>
#include <string>

#include "trainer/config.hpp"

namespace lockstep::trainer {

// Throws ConfigError. `places` says where each key was set ("config.toml:14"), `origin` stands for
// the place of those that were not.
void check_consistency(const Config& config, const std::string& origin,
                       const std::map<std::string, std::string>& places);

}  // namespace lockstep::trainer

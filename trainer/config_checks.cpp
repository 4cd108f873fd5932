#include "trainer/config_checks.hpp"

#include <fmt/format.h>

namespace lockstep::trainer {

void check_consistency(const Config& config, const std::string& origin,
                       const std::map<std::string, std::string>& places) {
  const auto place = [&](const std::string& key) {
    const auto found = places.find(key);
    return found == places.end() ? origin : found->second;
  };
  if (config.data.train.empty()) {
    throw ConfigError(fmt::format(
        "data.train ({}): missing, expected the HDF5 file of the training set", origin));
  }
  const std::vector<LayerConfig>& layers = config.model.layers;
  if (layers.empty()) {
    throw ConfigError(fmt::format(
        "model.layers ({}): missing, expected at least one layer such as [{{ dense = 10 }}]",
        origin));
  }
  for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
    if (layers[i].activation != "softmax") continue;
    const std::string key = fmt::format("model.layers[{}].activation", i);
    throw ConfigError(fmt::format("{} ({}): found \"softmax\", expected it in the last layer alone",
                                  key, place(key)));
  }
  const DataConfig& data = config.data;
  if (!data.validation.empty() && data.validation_fraction > 0.0) {
    throw ConfigError(fmt::format(
        "data.validation ({}): found a file beside data.validation_fraction = {} ({}), expected "
        "one of the two",
        place("data.validation"), data.validation_fraction, place("data.validation_fraction")));
  }
  if (!data.validation.empty() || data.validation_fraction > 0.0) return;
  const auto needs_validation = [&](const std::string& key, auto value) {
    if (value == 0) return;
    throw ConfigError(
        fmt::format("{} ({}): found {} without a validation set, expected 0, or data.validation or "
                    "data.validation_fraction > 0",
                    key, place(key), value));
  };
  needs_validation("early_stopping.patience", config.early_stopping.patience);
  needs_validation("early_stopping.target_accuracy", config.early_stopping.target_accuracy);
}

}  // namespace lockstep::trainer

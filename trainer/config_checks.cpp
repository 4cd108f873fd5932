#include "trainer/config_checks.hpp"

#include <fmt/format.h>

namespace lockstep::trainer {

LeastBatch least_batch(const Config& config) {
  LeastBatch least;
  const std::size_t leaves = config.training.leaves;
  for (std::size_t i = 0; i < config.model.layers.size(); ++i) {
    const LayerConfig& layer = config.model.layers[i];
    if (layer.kind != LayerConfig::Kind::batch_norm) continue;
    const bool leaf = layer.scope == "leaf";
    const std::size_t samples = leaf ? 2 * leaves : 2;
    if (samples <= least.samples) continue;
    const std::string wanted =
        leaf ? fmt::format(
                   "two samples in each of the {} leaves of a batch, which makes {}, for "
                   "scope = \"leaf\"",
                   leaves, samples)
             : "two samples in a batch";
    least = {samples, fmt::format("model.layers[{}].batch_norm", i),
             fmt::format("one sample has no variance, expected at least {}", wanted)};
  }
  return least;
}

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
  const OptimizerConfig& optimizer = config.optimizer;
  if (optimizer.weight_decay > 0 && optimizer.name != "lamb") {
    throw ConfigError(fmt::format(
        "optimizer.weight_decay ({}): found {} beside optimizer.name = \"{}\" ({}), expected 0 for "
        "all but lamb; regularization.l2 adds l2 * w to the gradient",
        place("optimizer.weight_decay"), optimizer.weight_decay, optimizer.name,
        place("optimizer.name")));
  }
  if (optimizer.end_factor > 0 && !optimizer.rate_falls()) {
    throw ConfigError(fmt::format(
        "optimizer.end_factor ({}): found {} beside optimizer.schedule = \"constant\", which does "
        "not fall; expected 0, or another schedule",
        place("optimizer.end_factor"), optimizer.end_factor));
  }
  const TrainingConfig& training = config.training;
  const LeastBatch least = least_batch(config);
  // Of descent = "batch" only the data can tell.
  const std::size_t batch = training.descent == "stochastic" ? 1 : training.batch_size;
  if (training.descent != "batch" && batch < least.samples) {
    const std::string key =
        training.descent == "stochastic" ? "training.descent" : "training.batch_size";
    throw ConfigError(fmt::format("{} ({}): found {} beside {} ({}): {}", key, place(key),
                                  batch == 1 ? "one sample a step" : fmt::format("{}", batch),
                                  least.key, place(least.key), least.why));
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

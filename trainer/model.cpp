#include "trainer/model.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "datasets/sha256.hpp"
#include "trainer/config_checks.hpp"

namespace lockstep::trainer {
namespace {

nn::Activation activation_of(const std::string& name) {
  return name.empty() ? nn::Activation::none : nn::activation_named(name).value();
}

// he for the activations that pass a half of their inputs, xavier for those around zero.
nn::Initializer initializer_of(const LayerConfig& layer) {
  if (layer.initializer != "auto") return nn::initializer_named(layer.initializer).value();
  const bool rectified = layer.activation == "relu" || layer.activation == "leaky_relu";
  return rectified ? nn::Initializer::he : nn::Initializer::xavier;
}

nn::LayerDescription describe(const LayerConfig& layer, std::size_t leaves) {
  nn::LayerDescription description;
  switch (layer.kind) {
    case LayerConfig::Kind::dense:
      description.kind = nn::LayerDescription::Kind::dense;
      description.dense = {
          layer.units,           layer.bias, activation_of(layer.activation), layer.slope,
          initializer_of(layer), layer.scale};
      break;
    case LayerConfig::Kind::activation:
      description.kind = nn::LayerDescription::Kind::activation;
      description.activation = activation_of(layer.activation);
      description.slope = layer.slope;
      break;
    case LayerConfig::Kind::dropout:
      description.kind = nn::LayerDescription::Kind::dropout;
      description.rate = layer.rate;
      break;
    case LayerConfig::Kind::batch_norm:
      description.kind = nn::LayerDescription::Kind::batch_norm;
      description.batch_norm = {layer.momentum, layer.epsilon, layer.affine,
                                nn::norm_scope_named(layer.scope).value(), leaves};
      break;
  }
  return description;
}

std::vector<nn::ParameterTensor> tensors_in(const nn::ParameterLayout& layout,
                                            std::span<const float> buffer) {
  std::vector<nn::ParameterTensor> tensors;
  for (const nn::ParameterTensor& tensor : layout.tensors()) {
    if (tensor.offset < buffer.size()) tensors.push_back(tensor);
  }
  return tensors;
}

std::string shape_text(const std::vector<std::size_t>& shape) {
  return fmt::format("{}", fmt::join(shape, "x"));
}

}  // namespace

nn::Network<float> build_network(const Config& config, std::size_t inputs) {
  std::vector<nn::LayerDescription> layers;
  for (const LayerConfig& layer : config.model.layers) {
    layers.push_back(describe(layer, config.training.leaves));
  }
  try {
    return nn::Network<float>(inputs, layers, nn::loss_named(config.model.loss).value(),
                              nn::precision_named(config.training.precision).value());
  } catch (const std::logic_error& error) {  // invalid_argument, length_error
    throw ConfigError(fmt::format("model.layers: {}", error.what()));
  }
}

nn::OptimizerOptions optimizer_options(const Config& config, std::uint64_t updates) {
  const OptimizerConfig& optimizer = config.optimizer;
  if (optimizer.warmup_steps > 0 && optimizer.warmup_steps >= updates) {
    throw ConfigError(
        fmt::format("optimizer.warmup_steps: found {}, but the whole run has {} updates; expected "
                    "fewer than it has",
                    optimizer.warmup_steps, updates));
  }
  nn::OptimizerOptions options;
  options.rule = nn::update_rule_named(optimizer.name).value();
  options.learning_rate = optimizer.learning_rate;
  options.schedule = {.shape = nn::schedule_named(optimizer.schedule).value(),
                      .end_factor = optimizer.end_factor,
                      .warmup_updates = optimizer.warmup_steps,
                      .updates = updates};
  options.momentum = optimizer.momentum;
  options.averaged = optimizer.averaged;
  options.beta1 = optimizer.beta1;
  options.beta2 = optimizer.beta2;
  options.decay = optimizer.decay;
  options.epsilon = optimizer.epsilon;
  options.epsilon_inside_root = optimizer.epsilon_inside_root.value_or(false);
  options.weight_decay = optimizer.weight_decay;
  options.l1 = config.regularization.l1;
  options.l2 = config.regularization.l2;
  options.clip_norm = optimizer.clip_norm;
  options.penalise_biases = config.regularization.biases;
  return options;
}

void check_fits(const nn::Network<float>& network, const datasets::Dataset& data,
                std::string_view role) {
  const std::string file = data.path().string();
  if (data.features() != network.inputs()) {
    throw ConfigError(fmt::format("{} {}: samples have {} values, but the model takes {}", role,
                                  file, data.features(), network.inputs()));
  }
  const std::size_t outputs = network.outputs();
  if (network.loss() == nn::Loss::cross_entropy) {
    if (outputs < 2) {
      throw ConfigError(
          "model.layers: cross_entropy needs an output for each class, but the last layer has one; "
          "for a single output use model.loss = \"mean_squared_error\"");
    }
    if (!data.has_classes()) {
      throw ConfigError(fmt::format(
          "{} {}: {} holds real targets, but cross_entropy needs classes; use model.loss = "
          "\"mean_squared_error\"",
          role, file, data.y_name()));
    }
    if (data.classes() > outputs) {
      throw ConfigError(fmt::format("{} {}: {} classes, but the model's last layer has {} outputs",
                                    role, file, data.classes(), outputs));
    }
    return;
  }
  const bool one_output_for_two = data.has_classes() && outputs == 1 && data.classes() <= 2;
  const bool one_output_each = data.has_classes() ? data.classes() <= outputs && outputs > 1
                                                  : data.target_width() == outputs;
  if (!one_output_for_two && !one_output_each) {
    throw ConfigError(fmt::format("{} {}: {} {}, but the model's last layer has {} outputs", role,
                                  file, data.target_width(),
                                  data.has_classes() ? "classes" : "targets a sample", outputs));
  }
}

nn::Network<float> build_network(const Config& config, const datasets::Dataset& data) {
  nn::Network<float> network = build_network(config, data.features());
  check_fits(network, data, "data.train");
  return network;
}

void check_batch_size(const Config& config, std::size_t batch_size) {
  const LeastBatch least = least_batch(config);
  if (batch_size >= least.samples) return;
  throw ConfigError(fmt::format("{}: {}, found a batch of {}", least.key, least.why, batch_size));
}

void copy_into(std::span<const NamedTensor> tensors, const nn::ParameterLayout& layout,
               std::span<float> buffer, std::string_view origin) {
  const auto wanted = tensors_in(layout, buffer);
  if (tensors.size() != wanted.size()) {
    throw CheckpointError(fmt::format("{}: holds {} tensors, but the model has {}", origin,
                                      tensors.size(), wanted.size()));
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (tensors[i].name != wanted[i].name || tensors[i].shape != wanted[i].shape) {
      throw CheckpointError(fmt::format("{}: holds {} ({}) where the model has {} ({})", origin,
                                        tensors[i].name, shape_text(tensors[i].shape),
                                        wanted[i].name, shape_text(wanted[i].shape)));
    }
    wanted[i].put(std::span<const float>(tensors[i].values), buffer);
  }
}

std::vector<NamedTensor> tensors_of(const nn::ParameterLayout& layout,
                                    std::span<const float> buffer) {
  std::vector<NamedTensor> tensors;
  for (const nn::ParameterTensor& tensor : tensors_in(layout, buffer)) {
    tensors.push_back({tensor.name, tensor.shape, tensor.values_in(buffer)});
  }
  return tensors;
}

std::string parameters_sha256(const nn::ParameterLayout& layout, std::span<const float> buffer) {
  datasets::Sha256 hash;
  for (const nn::ParameterTensor& tensor : layout.tensors()) {
    const auto values = tensor.values_in(buffer);
    hash.update(std::as_bytes(std::span(values)));
  }
  return hash.hex_digest();
}

}  // namespace lockstep::trainer

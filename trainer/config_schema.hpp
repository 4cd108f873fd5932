// The one table of the configuration's keys: name, limits and meaning of each, with its field.
//
// describe() walks a visitor over every section and key of a Config. Reading, checking, writing,
// comparing and the help text are visitors; none of them names a key. Defaults are those of the
// structs in config.hpp.
//
// A visitor has
//   void section(std::string_view name);
//   template <class T> void field(const Field& field, T& value);
// where T is bool, double, std::uint64_t, std::string, std::optional<bool>, std::optional<double>
// or std::vector<LayerConfig>, const if the Config is. Not thread-safe beyond its arguments; local.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "nn/activation.hpp"
#include "nn/batch_norm.hpp"
#include "nn/initializer.hpp"
#include "nn/learning_rate.hpp"
#include "nn/loss.hpp"
#include "nn/optimizer.hpp"
#include "nn/precision.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer::schema {

// What values a key takes. Numbers: low..high, an end of which may be open; integers beyond 2^63-1,
// which TOML lacks, only where `full_range` is set. Strings: one of `choices` if there are any.
struct Rule {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
  bool power_of_two = false;
  bool full_range = false;
  bool required = false;  // an empty string or list is an error
  std::span<const std::string_view> choices = {};
};

struct Field {
  std::string_view key;
  Rule rule;
  std::string_view meaning;
  std::string_view unset = {};       // what an absent optional or an empty string stands for
  bool applies = true;               // false: nothing reads the key beside the values given so far
  std::string_view applies_to = {};  // the keys or values with which it is read
};

// Just above the least float that has all its digits: what is less may be 0 in training.
inline constexpr double smallest_float = 1.2e-38;
inline constexpr double largest_float = 3.4e38;

inline constexpr Rule any{};
inline constexpr Rule required{.required = true};
inline constexpr Rule fraction{.low = 0, .high = 1, .high_open = true};
inline constexpr Rule positive{.low = 0, .low_open = true};
constexpr Rule at_least(double low) {
  return {.low = low};
}
constexpr Rule one_of(std::span<const std::string_view> choices) {
  return {.choices = choices};
}

// The first activation of nn, "none", is said by leaving the key out.
inline constexpr std::span<const std::string_view> activations =
    std::span(nn::kActivationNames).subspan(1);
inline constexpr auto initializers = [] {
  std::array<std::string_view, nn::kInitializerNames.size() + 1> names{"auto"};
  std::ranges::copy(nn::kInitializerNames, names.begin() + 1);
  return names;
}();
inline constexpr std::span<const std::string_view> norm_scopes = nn::kNormScopeNames;
inline constexpr std::span<const std::string_view> losses = nn::kLossNames;
inline constexpr std::span<const std::string_view> optimizers = nn::kUpdateRuleNames;
inline constexpr std::span<const std::string_view> schedules = nn::kScheduleNames;
inline constexpr std::array<std::string_view, 3> descents{"batch", "minibatch", "stochastic"};
inline constexpr std::span<const std::string_view> precisions = nn::kPrecisionNames;

// The keys of one entry of model.layers. `layer.kind` must be set before; the order matters, since
// whether `slope` and `scale` apply follows from the values read before them.
template <class Visitor, class Layer>
void describe_layer(Visitor& v, Layer& layer) {
  using Kind = LayerConfig::Kind;
  const bool dense = layer.kind == Kind::dense;
  const bool batch_norm = layer.kind == Kind::batch_norm;
  v.field(Field{"dense",
                {.low = 1, .high = 2147483647},
                "outputs of a fully connected layer",
                "-",
                dense,
                "dense layers"},
          layer.units);
  v.field(Field{"activation", one_of(activations), "a layer of its own, or a dense layer's", "none",
                dense || layer.kind == Kind::activation, "dense and activation layers"},
          layer.activation);
  v.field(Field{"dropout", fraction, "share of units dropped in training", "-",
                layer.kind == Kind::dropout, "dropout layers"},
          layer.rate);
  v.field(Field{"batch_norm", any, "each unit to mean 0 and variance 1 over the samples", "-",
                batch_norm, "batch_norm layers"},
          layer.batch_norm);
  v.field(Field{"bias", any, "dense: add a bias", {}, dense, "dense layers"}, layer.bias);
  v.field(Field{"slope",
                {.low = 0, .high = 1},
                "leaky_relu: slope below zero",
                {},
                layer.activation == "leaky_relu",
                "layers with activation = \"leaky_relu\""},
          layer.slope);
  v.field(Field{"initializer",
                one_of(initializers),
                "dense: first weights (auto: he for relu and leaky_relu, else xavier)",
                {},
                dense,
                "dense layers"},
          layer.initializer);
  const bool spread = layer.initializer == "normal" || layer.initializer == "uniform";
  v.field(Field{"scale",
                spread ? at_least(0) : any,
                "standard deviation (normal), half width (uniform), value (constant)",
                {},
                dense && (spread || layer.initializer == "constant"),
                "layers with initializer = \"normal\", \"uniform\" or \"constant\""},
          layer.scale);
  v.field(Field{"momentum",
                {.low = 0, .high = 1, .low_open = true},
                "batch_norm: share of a batch in the running statistics, which evaluation uses",
                {},
                batch_norm,
                "batch_norm layers"},
          layer.momentum);
  v.field(Field{"epsilon",
                {.low = smallest_float, .high = largest_float},
                "batch_norm: added to the variance",
                {},
                batch_norm,
                "batch_norm layers"},
          layer.epsilon);
  v.field(Field{"affine",
                any,
                "batch_norm: then times a weight, plus a bias, which are trained",
                {},
                batch_norm,
                "batch_norm layers"},
          layer.affine);
  v.field(Field{"scope",
                one_of(norm_scopes),
                "batch_norm: over all samples of a batch, or of each leaf by itself",
                {},
                batch_norm,
                "batch_norm layers"},
          layer.scope);
}

template <class Visitor, class C>
void describe(Visitor& v, C& c) {
  v.section("data");
  v.field(Field{"train", required, "HDF5 file of the training set"}, c.data.train);
  v.field(Field{"test", any, "HDF5 file tested after training", "no test"}, c.data.test);
  v.field(Field{"x", any, "name of the inputs in the files", "recognised"}, c.data.x);
  v.field(Field{"y", any, "name of the targets in the files", "recognised"}, c.data.y);
  v.field(Field{"validation_fraction", fraction, "share of the training set held out"},
          c.data.validation_fraction);
  v.field(Field{"validation", any, "HDF5 file to validate on instead, after every epoch",
                "data.validation_fraction"},
          c.data.validation);

  v.section("model");
  v.field(Field{"layers", required, "the layers in order"}, c.model.layers);
  v.field(Field{"loss", one_of(losses), "what training makes small"}, c.model.loss);
  v.field(Field{"initial_parameters", any, "checkpoint or HDF5 file to start from", "drawn"},
          c.model.initial_parameters);

  v.section("optimizer");
  auto& o = c.optimizer;
  v.field(Field{"name", one_of(optimizers), "how a gradient becomes an update"}, o.name);
  v.field(
      Field{"learning_rate", {.low = 0, .high = largest_float, .low_open = true}, "size of a step"},
      o.learning_rate);
  v.field(Field{"schedule", one_of(schedules),
                "how the learning rate falls from there to the last update of the run"},
          o.schedule);
  v.field(
      Field{"warmup_steps", at_least(0), "updates in which the learning rate rises before that"},
      o.warmup_steps);
  v.field(Field{"end_factor",
                {.low = 0, .high = 1},
                "linear, cosine: share of the learning rate that is left at the end"},
          o.end_factor);
  v.field(Field{"momentum", fraction, "momentum: share b of the velocity kept"}, o.momentum);
  v.field(Field{"averaged", any, "momentum: v = b*v + (1-b)*g instead of v = b*v + g"}, o.averaged);
  v.field(Field{"beta1", fraction, "adam, lamb: share of the mean gradient kept"}, o.beta1);
  v.field(Field{"beta2", fraction, "adam, lamb: share of the mean square kept"}, o.beta2);
  v.field(Field{"decay", fraction, "rmsprop: share of the mean square kept"}, o.decay);
  v.field(Field{"epsilon", at_least(smallest_float),
                "keeps the divisor from zero (1e-8; adagrad 1e-10, lamb 1e-6)", "by optimizer"},
          o.epsilon);
  v.field(Field{"epsilon_inside_root", any, "sqrt(s + epsilon) instead of sqrt(s) + epsilon",
                "by optimizer"},
          o.epsilon_inside_root);
  v.field(
      Field{"weight_decay", at_least(0), "lamb: adds weight_decay * w to the direction of a step"},
      o.weight_decay);
  v.field(Field{"clip_norm", at_least(0), "scales a longer gradient down to this norm (0: off)"},
          o.clip_norm);

  v.section("regularization");
  auto& r = c.regularization;
  v.field(Field{"l1", at_least(0), "adds l1 * sign(w) to the gradient"}, r.l1);
  v.field(Field{"l2", at_least(0), "adds l2 * w to the gradient"}, r.l2);
  v.field(Field{"biases", any, "penalise biases too (lamb: decay and trust ratio too)"}, r.biases);

  v.section("early_stopping");
  v.field(Field{"patience", at_least(0), "epochs without a better validation loss (0: off)"},
          c.early_stopping.patience);
  v.field(Field{"minimum_improvement", at_least(0), "a smaller gain does not count as better"},
          c.early_stopping.minimum_improvement);
  v.field(Field{"target_accuracy",
                {.low = 0, .high = 1},
                "stop after the first epoch of this validation accuracy (0: off)"},
          c.early_stopping.target_accuracy);

  v.section("training");
  auto& t = c.training;
  v.field(Field{"descent", one_of(descents), "samples per update: all, batch_size or one"},
          t.descent);
  v.field(Field{"batch_size", at_least(1), "samples per update of descent = \"minibatch\""},
          t.batch_size);
  v.field(Field{"epochs", at_least(1), "passes over the training set"}, t.epochs);
  v.field(Field{"steps", at_least(0), "stop after this many updates instead (0: after epochs)"},
          t.steps);
  v.field(Field{"seed", {.low = 0, .full_range = true}, "keys every random number"}, t.seed);
  v.field(
      Field{"leaves",
            {.low = 1, .high = nn::kMaxLeaves, .power_of_two = true},
            "slices of a batch, at least as many as ranks; with one, small batches are fastest"},
      t.leaves);
  v.field(Field{"shuffle", any, "a new order of samples every epoch (false: that of the file)"},
          t.shuffle);
  v.field(Field{"threads",
                {.low = 0, .high = 4096},
                "per rank (0: the cores of the node divided by its ranks)"},
          t.threads);
  v.field(Field{"precision", one_of(precisions), "of what is multiplied; sums are float32"},
          t.precision);

  v.section("checkpoint");
  v.field(Field{"every_epochs", at_least(0), "save after every N epochs (0: only at the end)"},
          c.checkpoint.every_epochs);
  v.field(Field{"every_steps", at_least(0), "save after every N updates (0: not by updates)"},
          c.checkpoint.every_steps);
  v.field(Field{"keep", at_least(1), "newest checkpoints kept"}, c.checkpoint.keep);

  v.section("comm");
  v.field(Field{"timeout", positive, "seconds without word from another rank until the run ends"},
          c.comm.timeout);
  constexpr Rule mebibytes{.low = 0.001, .high = 1024};
  v.field(
      Field{"first_bucket_mib", mebibytes,
            "of gradients that are exchanged as one, the first (not where ranks share weights)"},
      c.comm.first_bucket_mib);
  v.field(Field{"bucket_mib", mebibytes,
                "of gradients that are exchanged as one, the others; 64 times as much where ranks "
                "share weights"},
          c.comm.bucket_mib);
  v.field(Field{"overlap", any, "exchange while computing (false: one after the other)"},
          c.comm.overlap);
  v.field(Field{"wire", one_of(precisions),
                "of gradients between nodes (bfloat16: half the bytes, but bits that depend on the "
                "number of nodes)"},
          c.comm.wire);
  v.field(
      Field{"shared_memory", any, "ranks of a node read one another's memory (false: messages)"},
      c.comm.shared_memory);
  v.field(Field{"share_weights", any,
                "ranks that are all of one node share out large gradients by weights (false: by "
                "samples)"},
          c.comm.share_weights);
  v.field(Field{"compare_every", at_least(0),
                "compare the replicas after every N updates (0: only when saving)"},
          c.comm.compare_every);
}

}  // namespace lockstep::trainer::schema

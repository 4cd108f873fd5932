// The configuration of a run, as the TOML file, the command line and the defaults give it.
//
// Plain values, one struct per TOML section, each field named as its key. Owns everything; safe to
// read from many threads; local (no call here is collective).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

// The command line or the configuration is wrong (exit code 2). The text says what was found, where
// (file, line, key) and what was expected.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct DataConfig {
  std::string train;                 // path; relative paths are relative to the working directory
  std::string test;                  // path, or empty: no test after training
  std::string x;                     // name of the inputs in the files; empty: recognised
  std::string y;                     // name of the targets in the files; empty: recognised
  double validation_fraction = 0.0;  // share of `train` held out, [0, 1)
  std::string validation;            // path, or empty; beside it `validation_fraction` is 0
};

// One entry of model.layers: { dense = N, ... }, { activation = "..." }, { batch_norm = true, ... }
// or { dropout = p }.
struct LayerConfig {
  enum class Kind { dense, activation, dropout, batch_norm };
  Kind kind = Kind::dense;
  std::size_t units = 0;   // dense = N
  bool bias = true;        // dense
  std::string activation;  // dense: after the sum, may be empty; activation: the layer itself
  double slope = 0.01;     // leaky_relu below zero, [0, 1]
  std::string initializer = "auto";  // dense: auto (he for relu and leaky_relu, xavier otherwise),
                                     // he, xavier, normal, uniform, zero, constant
  double scale = 0.05;     // normal: standard deviation; uniform: half width; constant: value
  double rate = 0.0;       // dropout = p, [0, 1): share of units dropped
  bool batch_norm = true;  // batch_norm: what its key says; false is an error
  double momentum = 0.1;   // batch_norm: share that a batch has in the running statistics, (0, 1]
  double epsilon = 1e-5;   // batch_norm: added to the variance, > 0
  bool affine = true;      // batch_norm: learn a weight and a bias for each unit
  std::string scope = "batch";  // batch_norm: what has a mean and variance of its own: batch, leaf
};

struct ModelConfig {
  std::vector<LayerConfig> layers;
  std::string loss = "cross_entropy";  // cross_entropy, mean_squared_error
  std::string initial_parameters;      // path of a checkpoint or HDF5 file to start from, or empty
};

struct OptimizerConfig {
  std::string name = "sgd";                 // sgd, momentum, adagrad, rmsprop, adam, lamb
  double learning_rate = 0.01;              // > 0
  std::string schedule = "constant";        // of the learning rate: constant, linear, cosine
  std::uint64_t warmup_steps = 0;           // updates in which it rises, fewer than the run has
  double end_factor = 0;                    // linear, cosine: share of it at the end, [0, 1]
  double momentum = 0.9;                    // momentum: b, [0, 1)
  bool averaged = false;                    // momentum: v = b*v + (1-b)*g instead of v = b*v + g
  double beta1 = 0.9;                       // adam, lamb, [0, 1)
  double beta2 = 0.999;                     // adam, lamb, [0, 1)
  double decay = 0.99;                      // rmsprop: share of the old mean square kept, [0, 1)
  std::optional<double> epsilon;            // default: 1e-8; adagrad 1e-10, lamb 1e-6
  double weight_decay = 0;                  // lamb: adds weight_decay * w to the direction, >= 0
  double clip_norm = 0;                     // 0: off
  std::optional<bool> epsilon_inside_root;  // default: as the optimizer's source has it

  // Besides its warm-up: along the length of the run.
  bool rate_falls() const { return schedule != "constant"; }
};

struct RegularizationConfig {
  double l1 = 0.0;      // adds l1 * sign(w) to the gradient of every weight (not bias), >= 0
  double l2 = 0.0;      // adds l2 * w, >= 0
  bool biases = false;  // penalise biases too; lamb: decay and trust ratio too
};

struct EarlyStoppingConfig {
  std::size_t patience = 0;  // epochs without a better validation loss before stopping; 0: off
  double minimum_improvement = 0.0;  // a smaller gain does not count as better, >= 0
  double target_accuracy = 0.0;      // validation accuracy that is enough, [0, 1]; 0: none is
};

struct TrainingConfig {
  std::string descent = "minibatch";  // batch, minibatch, stochastic
  std::size_t batch_size = 128;       // samples per update; only minibatch reads it
  std::size_t epochs = 10;
  std::size_t steps = 0;  // > 0: stop after this many updates instead of after `epochs`
  std::uint64_t seed = 1;
  std::size_t leaves = 8;  // a power of two; at least the number of ranks
  bool shuffle = true;
  std::size_t threads = 0;            // per rank; 0: cores of the node divided by its ranks
  std::string precision = "float32";  // of factors: nn/precision.hpp
};

struct CheckpointConfig {
  std::size_t every_epochs = 1;  // 0: only at the end
  std::size_t every_steps = 0;   // 0: not by steps
  std::size_t keep = 3;          // newest checkpoints kept, >= 1
};

struct CommConfig {
  double timeout = 300.0;        // seconds without word from another rank before the run ends
  double first_bucket_mib = 1;   // of the gradients that backward has first
  double bucket_mib = 1;         // of the others
  bool overlap = true;           // exchange while computing
  std::string wire = "float32";  // how gradients go between nodes: also "bfloat16"
  bool shared_memory = true;     // between ranks of a node
  bool share_weights = true;     // between ranks of one node (trainer/node_shares.hpp)
  std::uint64_t compare_every =
      100;  // updates, after which replicas are compared; 0: only when saving
};

struct Config {
  DataConfig data;
  ModelConfig model;
  OptimizerConfig optimizer;
  RegularizationConfig regularization;
  EarlyStoppingConfig early_stopping;
  TrainingConfig training;
  CheckpointConfig checkpoint;
  CommConfig comm;
};

// Reads `file`, then applies each of `settings` ("section.key=value") over it, and checks every
// value. Throws ConfigError.
Config read_config(const std::filesystem::path& file, std::span<const std::string> settings = {});

// The same from text; `origin` stands for the file's name in messages.
Config parse_config(std::string_view text, std::string_view origin,
                    std::span<const std::string> settings = {});

// The whole resolved configuration as TOML that parse_config() reads back to the same values.
std::string to_toml(const Config& config);

// Names of the keys ("training.batch_size"; the layers are one, "model.layers") in which two
// configurations differ.
std::vector<std::string> differences(const Config& a, const Config& b);

// One line per key: name, default, range and meaning; for `lockstep train --help-config`.
std::string describe_keys();

}  // namespace lockstep::trainer

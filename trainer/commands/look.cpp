// lockstep inspect, lockstep diff: what is in a checkpoint, and where two differ.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "datasets/numbers.hpp"
#include "trainer/checkpoint_diff.hpp"
#include "trainer/commands/commands.hpp"
#include "trainer/model.hpp"
#include "trainer/trained_model.hpp"

namespace lockstep::trainer {
namespace {

void print_layers(const nn::Network<float>& network) {
  fmt::print("layers\n");
  for (std::size_t i = 0; i < network.layers().size(); ++i) {
    fmt::print("  {:<3} {}\n", i, network.layers()[i]->describe());
  }
  fmt::print("loss        {}\n", nn::kLossNames[static_cast<std::size_t>(network.loss())]);
  fmt::print("parameters  {}\n", datasets::with_commas(network.layout().count()));
}

void print_tensors(const nn::ParameterLayout& layout, std::span<const float> parameters) {
  fmt::print("\n  {:<14} {:>12} {:>12} {:>12} {:>12}\n", "tensor", "shape", "mean", "deviation",
             "largest |x|");
  for (const nn::ParameterTensor& tensor : layout.tensors()) {
    double sum = 0;
    double squares = 0;
    double most = 0;
    for (const float x : parameters.subspan(tensor.offset, tensor.size)) {
      sum += x;
      squares += static_cast<double>(x) * x;
      most = std::max(most, std::abs(static_cast<double>(x)));
    }
    const double n = static_cast<double>(tensor.size);
    const double mean = sum / n;
    fmt::print("  {:<14} {:>12} {:>12.4g} {:>12.4g} {:>12.4g}\n", tensor.name,
               fmt::format("{}", fmt::join(tensor.shape, "x")), mean,
               std::sqrt(std::max(0.0, squares / n - mean * mean)), most);
  }
}

void inspect_checkpoint(const std::filesystem::path& file) {
  const TrainedModel model = TrainedModel::read(file);
  const Checkpoint& checkpoint = model.checkpoint();
  const TrainingState& state = checkpoint.state;
  fmt::print("checkpoint  {}\n", file.string());
  fmt::print("written by  lockstep {} ({}), {} kernels\n", checkpoint.program_version,
             checkpoint.build, checkpoint.instruction_set);
  fmt::print("state       {} epochs and {} steps done, {}\n", state.epoch, state.step,
             state.finished ? "finished" : "not finished");
  if (std::isfinite(state.best_validation_loss)) {
    fmt::print("validation  best loss {:.6f} after epoch {}{}\n", state.best_validation_loss,
               state.best_epoch, checkpoint.best.empty() ? "" : " (its parameters are kept)");
  }
  std::vector<std::string> moments;
  for (const auto& moment : checkpoint.moments) moments.push_back(moment.first);
  fmt::print("optimizer   {}{}\n", model.config().optimizer.name,
             moments.empty() ? "" : fmt::format(" ({})", fmt::join(moments, ", ")));
  print_layers(model.network());
  fmt::print("sha256      {}\n", parameters_sha256(model.network().layout(), model.parameters()));
  print_tensors(model.network().layout(), model.parameters());
}

void inspect_configuration(const std::filesystem::path& file) {
  const Config config = read_config(file);
  const auto data = datasets::Dataset::read(config.data.train, {config.data.x, config.data.y});
  const nn::Network<float> network = build_network(config, data);
  nn::AlignedBuffer<float> parameters(network.layout().buffer_size());
  network.initialize(config.training.seed, parameters.span());
  fmt::print("configuration  {} (initial parameters, seed {})\n", file.string(),
             config.training.seed);
  print_layers(network);
  fmt::print("sha256      {}\n", parameters_sha256(network.layout(), parameters.span()));
  print_tensors(network.layout(), parameters.span());
}

}  // namespace

ExitCode inspect(const std::filesystem::path& file) {
  if (file.extension() == ".toml") {
    inspect_configuration(file);
  } else {
    inspect_checkpoint(file);
  }
  return ExitCode::done;
}

ExitCode diff(const std::filesystem::path& a, const std::filesystem::path& b) {
  const Checkpoint first = read_checkpoint(a);
  const Checkpoint second = read_checkpoint(b);
  const CheckpointDifference difference = compare(first, second);
  if (difference.first) {
    fmt::print("{}\n", *difference.first);
    for (const std::string& detail : difference.details) fmt::print("  {}\n", detail);
    for (const std::string& note : difference.notes) fmt::print("  note: {}\n", note);
    return ExitCode::different;
  }
  fmt::print("same bits\n");
  return ExitCode::done;
}

}  // namespace lockstep::trainer

#include "trainer/commands/introduction.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "datasets/numbers.hpp"
#include "nn/kernels/kernels.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {
namespace {

using datasets::with_commas;

double mebibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

std::string program_line(const Placed& placed) {
  return fmt::format("lockstep {}, {} rank{} x {} thread{}, {} kernels", kProgramVersion,
                     placed.ranks, placed.ranks == 1 ? "" : "s", placed.threads,
                     placed.threads == 1 ? "" : "s", nn::kernels<float>().instruction_set);
}

std::string data_line(const Config& config, const Training& training,
                      const datasets::Dataset& data) {
  std::string to_validate;
  if (training.validation_samples() > 0) {
    to_validate = fmt::format(" and {} to validate", with_commas(training.validation_samples()));
    if (!config.data.validation.empty())
      to_validate += fmt::format(" ({})", config.data.validation);
  }
  return fmt::format("data    {}: {} samples to train{} of {} values, {} {}", config.data.train,
                     with_commas(training.training_samples()), to_validate, data.features(),
                     data.target_width(), data.has_classes() ? "classes" : "targets");
}

std::string model_line(const Config& config, const nn::Network<float>& network) {
  std::vector<std::string> layers;
  for (const auto& layer : network.layers()) layers.push_back(layer->describe());
  return fmt::format("model   {}; {}; {} parameters", fmt::join(layers, "; "), config.model.loss,
                     with_commas(network.layout().count()));
}

// Nothing where it stays as it is.
std::string schedule_line(const OptimizerConfig& optimizer, std::uint64_t updates) {
  std::vector<std::string> parts;
  if (optimizer.warmup_steps > 0) {
    parts.push_back(
        fmt::format("rises in the first {} updates", with_commas(optimizer.warmup_steps)));
  }
  if (optimizer.rate_falls()) {
    parts.push_back(fmt::format("falls along a {} to {:g} after update {}",
                                optimizer.schedule == "linear" ? "line" : optimizer.schedule,
                                optimizer.learning_rate * optimizer.end_factor,
                                with_commas(updates)));
  }
  if (parts.empty()) return "";
  return fmt::format("train   the learning rate {}", fmt::join(parts, ", then "));
}

void introduce_training(RunRecord& record, const Config& config, const Training& training) {
  if (training.network().precision() == nn::Precision::bfloat16) {
    record.say(
        nn::kernels<float>().pairs != nullptr
            ? "train   bfloat16 factors, multiplied by this processor's instructions for them"
            : "train   bfloat16 by rounding: this processor's factors are multiplied in "
              "float32 registers, so that it runs no faster than float32");
  }
  record.say(fmt::format("train   {}, learning rate {}, {} samples a step, {} leaves, seed {}",
                         config.optimizer.name, config.optimizer.learning_rate,
                         with_commas(training.batch_size()), config.training.leaves,
                         config.training.seed));
  const std::string schedule = schedule_line(config.optimizer, training.updates());
  if (!schedule.empty()) record.say(schedule);
}

void introduce_ranks(RunRecord& record, const Training& training) {
  const Training::Memory memory = training.memory();
  record.say(fmt::format(
      "ranks   {}; {:.1f} MiB a rank for the exchange, {:.1f} MiB for its moments",
      training.exchange().describe(), mebibytes(memory.exchange), mebibytes(memory.moments)));
  const std::string why = training.exchange().why_not_shared();
  if (!why.empty()) {
    record.warn(fmt::format("ranks of a node exchange by messages, which is slower: {}", why));
  }
  if (const auto& shares = training.step().shares()) {
    record.say(fmt::format("ranks   {}", shares->describe()));
  } else if (const std::string& why_not = training.step().why_not_by_weights(); !why_not.empty()) {
    record.warn(fmt::format(
        "ranks of a node sum gradients by samples, not by weights, which is slower: {}", why_not));
  }
}

}  // namespace

void introduce(RunRecord& record, const Config& config, const Training& training,
               const datasets::Dataset& data, const Placed& placed) {
  record.say(program_line(placed));
  if (placed.warning) record.warn(*placed.warning);
  record.say(data_line(config, training, data));
  record.say(model_line(config, training.network()));
  introduce_training(record, config, training);
  if (placed.ranks > 1) introduce_ranks(record, training);
  if (config.comm.wire != "float32") {
    record.say(
        fmt::format("ranks   gradients go between nodes as {}: the bits of the result depend "
                    "on the number of nodes",
                    config.comm.wire));
  }
  record.say(fmt::format("run     {}", record.directory().path().string()));
}

}  // namespace lockstep::trainer

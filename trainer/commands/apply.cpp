// lockstep evaluate, lockstep predict: a checkpoint's network applied to a dataset.
#include <fmt/format.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include "datasets/error.hpp"
#include "datasets/writer.hpp"
#include "trainer/commands/commands.hpp"
#include "trainer/evaluation.hpp"
#include "trainer/model.hpp"
#include "trainer/placement.hpp"
#include "trainer/trained_model.hpp"

namespace lockstep::trainer {
namespace {

datasets::Names names_for(const datasets::Names& given, const Config& config) {
  return {given.x.empty() ? config.data.x : given.x, given.y.empty() ? config.data.y : given.y};
}

template <class Work>
void with_threads(std::size_t wanted, comm::Communicator& world, const Work& work) {
  const std::size_t threads = threads_for(wanted, world);
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
  tbb::task_arena(static_cast<int>(threads)).execute(work);
}

// Every rank's share of the predictions, in the samples' order, on every rank.
std::vector<float> gather_predictions(const TrainedModel& model, const datasets::Dataset& data,
                                      comm::Communicator& world) {
  const std::size_t width = model.network().outputs();
  std::vector<double> mine;
  predict(model.network(), model.parameters(), data, all_rows(data.samples()), world.rank(),
          world.size(), [&](std::uint32_t, std::span<const float> outputs) {
            mine.insert(mine.end(), outputs.begin(), outputs.end());
          });
  std::vector<std::size_t> counts;
  for (const std::string& count : world.gather_strings(std::to_string(mine.size()))) {
    counts.push_back(std::stoull(count));
  }
  std::vector<double> all(data.samples() * width);
  world.all_gather(mine, counts, all);
  return {all.begin(), all.end()};
}

void write_all(const PredictOptions& options, const TrainedModel& model,
               const datasets::Dataset& data, std::span<const float> outputs) {
  const std::size_t width = model.network().outputs();
  std::vector<std::int32_t> classes;
  if (model.network().loss() == nn::Loss::cross_entropy || data.has_classes()) {
    for (std::size_t i = 0; i < data.samples(); ++i) {
      classes.push_back(nn::predicted_class(outputs.subspan(i * width, width)));
    }
  }
  datasets::write_predictions(
      options.out,
      {data.samples(), width, outputs, classes,
       fmt::format("{} applied to {}", options.checkpoint.string(), options.data.string())});
}

}  // namespace

ExitCode evaluate(const EvaluateOptions& options, comm::Communicator& world) {
  const TrainedModel model = TrainedModel::read(options.checkpoint);
  const auto data = datasets::Dataset::read(options.data, names_for(options.names, model.config()));
  check_fits(model.network(), data, "data");
  Evaluation result;
  with_threads(options.threads, world, [&] {
    result = evaluate(model.network(), model.parameters(), data, all_rows(data.samples()), world);
  });
  if (world.rank() == 0) {
    fmt::print("samples   {}\nloss      {:.6f}\n", result.samples, result.loss);
    if (result.accuracy) fmt::print("accuracy  {:.2f} %\n", 100 * *result.accuracy);
  }
  return ExitCode::done;
}

ExitCode predict(const PredictOptions& options, comm::Communicator& world) {
  const TrainedModel model = TrainedModel::read(options.checkpoint);
  const auto data =
      datasets::Dataset::read(options.data, names_for(options.names, model.config()), false);
  if (data.features() != model.network().inputs()) {
    throw datasets::DataError(fmt::format("{}: samples have {} values, but the model takes {}",
                                          options.data.string(), data.features(),
                                          model.network().inputs()));
  }
  with_threads(options.threads, world, [&] {
    const std::vector<float> outputs = gather_predictions(model, data, world);
    if (world.rank() == 0) {
      write_all(options, model, data, outputs);
      fmt::print("{}: {} predictions of {} outputs\n", options.out.string(), data.samples(),
                 model.network().outputs());
    }
  });
  return ExitCode::done;
}

}  // namespace lockstep::trainer

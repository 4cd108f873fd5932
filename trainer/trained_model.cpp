#include "trainer/trained_model.hpp"

#include <fmt/format.h>

#include "trainer/model.hpp"

namespace lockstep::trainer {
namespace {

// The first weight matrix is outputs × inputs, whatever comes before it.
std::size_t inputs_of(const Checkpoint& checkpoint, const std::filesystem::path& path) {
  for (const NamedTensor& tensor : checkpoint.parameters) {
    if (tensor.shape.size() == 2) return tensor.shape[1];
  }
  throw CheckpointError(fmt::format("{}: holds no weight matrix", path.string()));
}

}  // namespace

TrainedModel TrainedModel::read(const std::filesystem::path& path) {
  return TrainedModel(read_checkpoint(path), path);
}

TrainedModel::TrainedModel(Checkpoint checkpoint, const std::filesystem::path& path)
    : checkpoint_(std::move(checkpoint)),
      config_(parse_config(checkpoint_.config, path.string() + " (configuration)")),
      network_(build_network(config_, inputs_of(checkpoint_, path))),
      parameters_(network_.layout().buffer_size()) {
  copy_into(checkpoint_.best.empty() ? checkpoint_.parameters : checkpoint_.best, network_.layout(),
            parameters_.span(), path.string());
}

}  // namespace lockstep::trainer

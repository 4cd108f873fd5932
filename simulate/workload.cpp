#include "simulate/workload.hpp"

namespace lockstep::simulate {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kPieceElements = std::size_t{1} << 18;
constexpr std::size_t kTileRows = 64;

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

// From the last row of the weights to the first. What the input gradient still reads may not move
// yet.
void add_weight_gradient(const Layer& layer, double rows, std::vector<Stretch>& stretches) {
  const std::size_t piece =
      round_up((kPieceElements + layer.outputs - 1) / layer.outputs, kTileRows);
  for (std::size_t end = layer.inputs; end > 0;) {
    const std::size_t begin = (end - 1) / piece * piece;
    const double share = static_cast<double>(end - begin) / static_cast<double>(layer.inputs);
    const std::size_t final_from = layer.begin + begin * layer.outputs;
    stretches.push_back(
        {share * layer.multiply_adds(rows), final_from, layer.begin == 0 ? final_from : layer.end});
    end = begin;
  }
}

}  // namespace

std::vector<Layer> layers_of(const std::vector<std::size_t>& widths) {
  std::vector<Layer> layers;
  std::size_t begin = 0;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    const std::size_t size =
        round_up(widths[l] * widths[l + 1], kLanes) + round_up(widths[l + 1], kLanes);
    layers.push_back({widths[l], widths[l + 1], begin, begin + size});
    begin += size;
  }
  return layers;
}

std::vector<Stretch> backward_of(const std::vector<Layer>& layers, double rows) {
  std::vector<Stretch> stretches;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    add_weight_gradient(*layer, rows, stretches);
    if (layer->begin > 0) {
      stretches.push_back({layer->multiply_adds(rows), layer->begin, layer->begin});
    }
  }
  return stretches;
}

}  // namespace lockstep::simulate

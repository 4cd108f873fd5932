#include "nn/trust_ratios.hpp"

#include <algorithm>
#include <cmath>

namespace lockstep::nn {

TrustRatios::TrustRatios(const ParameterLayout& layout, std::size_t chunk, bool biases_too)
    : chunk_(chunk) {
  for (const ParameterTensor& tensor : layout.tensors()) {
    if (!tensor.is_trained) continue;
    const std::size_t end = tensor.offset + round_up(tensor.size, kLanes);
    for (std::size_t at = tensor.offset; at < end;) {
      if (at / chunk == first_of_chunk_.size()) first_of_chunk_.push_back(pieces_.size());
      const std::size_t stop = std::min(end, (at / chunk + 1) * chunk);
      pieces_.push_back({at, stop, is_scaled_.size()});
      at = stop;
    }
    is_scaled_.push_back(biases_too || !tensor.is_bias);
  }
  squares_.resize(kNumbers * pieces_.size());
  ratios_.resize(is_scaled_.size(), 1);
}

std::size_t TrustRatios::pieces_before(std::size_t element) const {
  const std::size_t chunk = (element + chunk_ - 1) / chunk_;
  return chunk < first_of_chunk_.size() ? first_of_chunk_[chunk] : pieces_.size();
}

void TrustRatios::set(std::size_t piece, SquaredNorms squares) {
  squares_[kNumbers * piece] = squares.parameters;
  squares_[kNumbers * piece + 1] = squares.direction;
}

void TrustRatios::update() {
  std::size_t piece = 0;
  for (std::size_t tensor = 0; tensor < ratios_.size(); ++tensor) {
    double parameters = 0;
    double direction = 0;
    for (; piece < pieces_.size() && pieces_[piece].tensor == tensor; ++piece) {
      parameters += squares_[kNumbers * piece];
      direction += squares_[kNumbers * piece + 1];
    }
    const bool scaled = is_scaled_[tensor] && parameters > 0 && direction > 0;
    ratios_[tensor] = scaled ? std::sqrt(parameters) / std::sqrt(direction) : 1;
  }
}

}  // namespace lockstep::nn

// LAMB's trust ratios: what each tensor's step is multiplied by (nn/optimizer.hpp).
//
// With w a tensor and r the direction that it is to move in, ratio = |w| / |r|, Euclidean norms;
// where one of the two is zero, the ratio is 1. Biases and weights of normalisation have ratio 1 as
// well, unless asked.
//
// Squares are summed over fixed pieces: what a tensor and a chunk of the flat buffer have in
// common. A tensor's pieces are added in their order. So the ratios do not depend on who has summed
// which pieces: threads, or ranks that gather one another's. Distinct pieces may be set from any
// threads. Local; nothing is allocated after the constructor.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "nn/kernels/kernels.hpp"
#include "nn/parameters.hpp"

namespace lockstep::nn {

class TrustRatios {
 public:
  // Elements begin..end-1 of the flat buffer, of the tensor of that number among those trained.
  struct Piece {
    std::size_t begin;
    std::size_t end;
    std::size_t tensor;
  };

  // `chunk` is a multiple of kLanes.
  TrustRatios(const ParameterLayout& layout, std::size_t chunk, bool biases_too);

  // In the order of the buffer. Those of the elements before `element`, which starts a chunk or is
  // the end, come first: so many.
  std::span<const Piece> pieces() const { return pieces_; }
  std::size_t pieces_before(std::size_t element) const;

  void set(std::size_t piece, SquaredNorms squares);

  // Two numbers a piece, where others may have theirs put.
  static constexpr std::size_t kNumbers = 2;
  std::span<double> squares() { return squares_; }

  // When all pieces are set.
  void update();

  // After update(), of a tensor.
  double operator[](std::size_t tensor) const { return ratios_[tensor]; }

 private:
  std::size_t chunk_;
  std::vector<Piece> pieces_;
  std::vector<std::size_t> first_of_chunk_;  // pieces before each chunk
  std::vector<double> squares_;              // of each piece: |w|^2, |r|^2
  std::vector<bool> is_scaled_;              // by tensor
  std::vector<double> ratios_;
};

}  // namespace lockstep::nn

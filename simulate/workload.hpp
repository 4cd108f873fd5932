// A training step of a dense network as the exchange sees it: which parameters a pass needs and
// when gradients are final, with the seconds of computing in between.
//
// The pieces of a weight gradient and their order are those of nn/product.hpp (gradient_in_pieces)
// and nn/dense.cpp; a tensor takes a multiple of 16 floats, as in nn's layout. Plain values; no
// MPI.
#pragma once

#include <cstddef>
#include <vector>

namespace lockstep::simulate {

struct Layer {
  std::size_t inputs;
  std::size_t outputs;
  std::size_t begin;  // its first parameter: weights inputs × outputs, then the bias
  std::size_t end;    // past its last one

  double multiply_adds(double rows) const {
    return static_cast<double>(inputs) * static_cast<double>(outputs) * rows;
  }
};

// A stretch of backward, after which gradients are final from element `sums_final_from` on, and
// parameters from `movable_from` on are read no more.
struct Stretch {
  double multiply_adds;
  std::size_t sums_final_from;
  std::size_t movable_from;
};

// The layers of a network of these widths, the inputs' first.
std::vector<Layer> layers_of(const std::vector<std::size_t>& widths);

inline std::size_t elements_of(const std::vector<Layer>& layers) {
  return layers.back().end;
}

// All of backward in its order: a layer's weight gradient, then its input gradient, which the first
// layer has none of.
std::vector<Stretch> backward_of(const std::vector<Layer>& layers, double rows);

}  // namespace lockstep::simulate

// Inverted dropout: in training each unit is dropped with probability `rate` and the kept ones are
// scaled by 1 / (1 - rate); in evaluation y = x.
//
// N. Srivastava et al., JMLR 15 (2014), scaled in training instead of evaluation. The mask is a
// function of (seed, step, layer, place in the batch, unit), so it is the same on any number of
// ranks, and backward draws it again instead of keeping it. See nn/layer.hpp for ownership.
#pragma once

#include "nn/layer.hpp"
#include "nn/random.hpp"

namespace lockstep::nn {

template <class T>
class Dropout final : public Layer<T> {
 public:
  // `index` is the layer's place in the network, `rate` in [0, 1).
  Dropout(std::size_t width, std::uint32_t index, double rate);

  std::string describe() const override;
  void forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
               MatrixView<T> y, std::span<T> scratch) const override;
  void backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                MatrixView<const T> y, MatrixView<T> d_y, MatrixView<T> d_x,
                std::span<const SubtreeGradient<T>> subtrees, std::span<T> scratch) const override;

 private:
  // to = from * mask / (1 - rate), or to = from in evaluation.
  void apply(const Pass& pass, MatrixView<const T> from, MatrixView<T> to) const;

  std::uint32_t index_;
  double rate_;
  std::uint64_t kept_below_;  // a unit is kept if its 32 random bits are below this
  T scale_;                   // 1 / (1 - rate)
};

}  // namespace lockstep::nn

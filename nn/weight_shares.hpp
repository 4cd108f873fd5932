// Weight gradients of several ranks, shared out by weights instead of by samples.
//
// Ranks that read one another's memory need not sum the gradient of all weights over their own
// samples each, a gradient a rank to be written, read and added up. Instead each packs the two
// factors of its samples where the others read them, and sums its share of the weights over the
// samples of all: in the same tree, in registers, and moves them right there, as the threads of one
// rank do. What goes from rank to rank is an input and a derivative for each sample and unit, and
// not a number for each weight.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <span>
#include <vector>

#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/parallel.hpp"
#include "nn/weight_gradient.hpp"

namespace lockstep::nn {

// The weights of a dense layer, inputs × outputs at `offset` of the flat buffer.
struct SharedWeights {
  // The weights of consecutive inputs.
  struct Rows {
    std::size_t begin;
    std::size_t end;
    bool own;    // this rank sums them
    bool moves;  // and moves them where they are summed, if it moves any
  };

  std::size_t offset;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t place;  // of their factors
  // Of all ranks, in ascending order; the next ones begin where one ends, or with its last row, of
  // which each sums the whole.
  std::vector<Rows> rows;
};

// Where a pass meets the ranks that it shares weights with. Called by the thread that runs the
// pass, all but find() for the layers in the same order on all ranks.
class WeightShares {
 public:
  // Factors as share_factors() has packed them on one rank.
  struct Factors {
    const float* packed;
    std::span<const std::size_t> leaf_rows;  // bounds of its leaves, in rows of its pass
  };

  virtual ~WeightShares() = default;

  // Null if those at `offset` are summed by samples, in this pass.
  virtual const SharedWeights* find(std::size_t offset) const = 0;

  // Where this rank's factors go; and that they are there.
  virtual std::span<float> packed(const SharedWeights& weights) = 0;
  virtual void post(const SharedWeights& weights) = 0;

  // Waits for all ranks to have posted theirs: of all ranks, in the order of their leaves. Valid
  // until the next call.
  virtual std::span<const Factors> wait(const SharedWeights& weights) = 0;

  // After wait(): how own rows that move do so, or null: then they do not, and where sums go.
  virtual const Update<float>* update() const = 0;
  virtual std::span<float> gradient() = 0;

  // Elements [begin, end) of the flat buffer are about to move, or have moved.
  virtual void before_moving(std::size_t begin, std::size_t end) = 0;
  virtual void after_moving(std::size_t begin, std::size_t end) = 0;

  // The bounds of this rank's leaves in rows of its pass, and of all leaves in samples of the batch;
  // room for something of each of these.
  virtual std::span<const std::size_t> own_leaf_rows() const = 0;
  virtual std::span<const std::size_t> leaf_rows() const = 0;
  virtual std::span<LeafFactors<float>> of_leaf() = 0;
};

namespace detail {

// What rows of weights become as strips, and how many inputs the strips before them hold.
struct SharedStrips {
  std::size_t step;  // inputs of a strip
  std::size_t inputs_before = 0;

  void pass(const SharedWeights::Rows& rows) {
    inputs_before += round_up(rows.end - rows.begin, step);
  }
};

// Those of all strips of so many inputs: larger strips may be fewer or more in all.
inline std::size_t inputs_in_strips(const SharedWeights& weights, std::size_t step) {
  SharedStrips strips{step};
  for (const SharedWeights::Rows& rows : weights.rows) strips.pass(rows);
  return strips.inputs_before;
}

inline const PairKernels<float>* shared_pairs(std::span<const std::size_t> leaf_rows,
                                              Precision precision) {
  return precision == Precision::bfloat16 ? pair_kernels<float>(leaf_rows) : nullptr;
}

inline std::size_t step_of(const PairKernels<float>* pairs) {
  return pairs != nullptr ? pairs->tile_inputs : kernels<float>().tile_inputs;
}

}  // namespace detail

// Floats that the packed factors of a sample take, whichever kernels pack them.
inline std::size_t shared_factors_size(const SharedWeights& weights) {
  const Kernels<float>& kernel = kernels<float>();
  std::size_t inputs = detail::inputs_in_strips(weights, kernel.tile_inputs);
  if (kernel.pairs != nullptr) {
    inputs = std::max(inputs, detail::inputs_in_strips(weights, kernel.pairs->tile_inputs));
  }
  return round_up(weights.outputs, kernel.panel_width) + inputs;
}

// Packs the factors of this rank's samples for the others: panels of d_y, then strips of x, those of
// each element of weights.rows on their own.
inline void share_factors(MatrixView<const float> x, MatrixView<const float> d_y,
                          const SharedWeights& weights, Precision precision, WeightShares& shares) {
  const Kernels<float>& kernel = kernels<float>();
  const PairKernels<float>* pairs = detail::shared_pairs(shares.leaf_rows(), precision);
  const std::span<float> packed = shares.packed(weights);
  assert(x.rows * shared_factors_size(weights) <= packed.size());
  float* const panels = packed.data();
  float* const strips = panels + x.rows * round_up(weights.outputs, kernel.panel_width);
  const auto pack_strips = [&](std::size_t begin, std::size_t end, std::size_t step) {
    detail::SharedStrips before{detail::step_of(pairs)};
    for (const SharedWeights::Rows& rows : weights.rows) {
      detail::pack_strips_of<float>({x.data + rows.begin, x.rows, rows.end - rows.begin, x.stride},
                                    begin, end, step, pairs,
                                    strips + before.inputs_before * x.rows);
      before.pass(rows);
    }
  };
  detail::pack_in_parts(x, d_y, shares.own_leaf_rows(), pairs, panels, pack_strips);
  shares.post(weights);
}

namespace detail {

// Tells of each leaf where its factors stand, of rows of weights whose strips are `before`.
inline void find_leaf_factors(std::span<const WeightShares::Factors> all, std::size_t outputs,
                              const SharedStrips& before, std::span<LeafFactors<float>> of_leaf) {
  const std::size_t width = kernels<float>().panel_width;
  auto leaf = of_leaf.begin();
  for (const WeightShares::Factors& one : all) {
    const std::size_t samples = one.leaf_rows.back();
    const float* strips = one.packed + samples * (round_up(outputs, width) + before.inputs_before);
    for (std::size_t l = 0; l + 1 < one.leaf_rows.size(); ++l, ++leaf) {
      const std::size_t row = one.leaf_rows[l];
      *leaf = {strips + row * before.step, before.step * samples, one.packed + row * width,
               width * samples};
    }
  }
}

}  // namespace detail

// The gradient of this rank's rows over the samples of all ranks, from the last rows to the first;
// `flow` is told of them. The parameters there move by it, or it is written.
inline void sum_own_rows(const SharedWeights& weights, Precision precision, WeightShares& shares,
                         ParameterFlow* flow) {
  const auto all = shares.wait(weights);
  const PairKernels<float>* pairs = detail::shared_pairs(shares.leaf_rows(), precision);
  const auto tiles = pairs != nullptr ? pairs->weight_gradient : kernels<float>().weight_gradient;
  detail::SharedStrips strips{detail::step_of(pairs)};
  strips.inputs_before = detail::inputs_in_strips(weights, strips.step);
  WeightGradient<float> job{.d_y_step = kernels<float>().panel_width,
                            .outputs = weights.outputs,
                            .leaf_rows = detail::without_absent_halves(shares.leaf_rows()),
                            .precision = precision};
  job.x_step = strips.step;
  job.of_leaf = shares.of_leaf().subspan(
      static_cast<std::size_t>(job.leaf_rows.data() - shares.leaf_rows().data()),
      job.leaf_rows.size() - 1);
  for (auto rows = weights.rows.rbegin(); rows != weights.rows.rend(); ++rows) {
    strips.inputs_before -= round_up(rows->end - rows->begin, strips.step);
    if (!rows->own) continue;
    const std::size_t first = weights.offset + rows->begin * weights.outputs;
    Update<float> update;
    job.inputs = rows->end - rows->begin;
    job.update = nullptr;
    if (rows->moves && shares.update() != nullptr) {
      update = shares.update()->at(first, false);
      job.update = &update;
    }
    job.d_weights = shares.gradient().data() + first;
    detail::find_leaf_factors(all, weights.outputs, strips, shares.of_leaf());
    // A piece stays in the cache from when it is looked at until others are told of it.
    const std::size_t inputs =
        round_up(parts_of(detail::kElementsWorthTelling, weights.outputs), 8 * strips.step);
    for (std::size_t end = job.inputs; end > 0;) {
      const std::size_t begin = (end - 1) / inputs * inputs;
      const std::size_t from = first + begin * weights.outputs;
      const std::size_t to = first + end * weights.outputs;
      // Of what lies behind it this rank has done its share.
      if (flow != nullptr) flow->final_from(to, ParameterFlow::Parameters::free);
      if (job.update != nullptr) shares.before_moving(from, to);
      detail::gradient_in_tiles(job, begin, end, tiles);
      if (job.update != nullptr) shares.after_moving(from, to);
      end = begin;
    }
  }
}

}  // namespace lockstep::nn

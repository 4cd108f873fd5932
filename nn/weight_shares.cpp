#include "nn/weight_shares.hpp"

#include <algorithm>
#include <cassert>

#include "nn/parallel.hpp"
#include "nn/weight_gradient.hpp"

namespace lockstep::nn {
namespace {

using Rows = SharedWeights::Rows;

// The kernels for a batch, the same on all ranks, and the order that they want factors in. What a
// rank has packed is, each with a step for each of its samples,
//   panel 0 of d_y | panel 1 | …  ‖  strips of rows[0] | strips of rows[1] | …  of weights.rows
struct Packing {
  Packing(std::span<const std::size_t> leaf_rows, Precision precision)
      : pairs(precision == Precision::bfloat16 ? detail::pair_kernels<float>(leaf_rows) : nullptr),
        strip_inputs(pairs != nullptr ? pairs->tile_inputs : kernels<float>().tile_inputs),
        panel_width(kernels<float>().panel_width) {}

  // Inputs that these rows take as strips.
  std::size_t inputs_of(const Rows& rows) const {
    return round_up(rows.end - rows.begin, strip_inputs);
  }
  // Where strips begin behind the panels of so many samples and `inputs_before` inputs.
  std::size_t strips_at(std::size_t samples, std::size_t outputs, std::size_t inputs_before) const {
    return samples * (round_up(outputs, panel_width) + inputs_before);
  }

  const PairKernels<float>* pairs;  // null: single factors
  std::size_t strip_inputs;
  std::size_t panel_width;
};

// Tells of each leaf where its factors stand, of rows before which so many inputs are packed.
void find_leaf_factors(std::span<const WeightShares::Factors> all, const Packing& packing,
                       std::size_t outputs, std::size_t inputs_before,
                       std::span<LeafFactors<float>> of_leaf) {
  auto leaf = of_leaf.begin();
  for (const WeightShares::Factors& one : all) {
    const std::size_t samples = one.leaf_rows.back();
    const float* strips = one.packed + packing.strips_at(samples, outputs, inputs_before);
    for (std::size_t l = 0; l + 1 < one.leaf_rows.size(); ++l, ++leaf) {
      const std::size_t row = one.leaf_rows[l];
      *leaf = {strips + row * packing.strip_inputs, packing.strip_inputs * samples,
               one.packed + row * packing.panel_width, packing.panel_width * samples};
    }
  }
}

// The gradient of one element of weights.rows, whose first weight is at `first` of the flat buffer:
// in pieces, each of which stays in the cache from when it is looked at until others are told of
// it.
void sum_rows(WeightGradient<float>& job, std::size_t first, const Packing& packing,
              WeightShares& shares, ParameterFlow* flow) {
  const detail::GradientTiles<float> tiles(packing.pairs);
  const std::size_t inputs =
      round_up(parts_of(detail::kElementsWorthTelling, job.outputs), 8 * packing.strip_inputs);
  for (std::size_t end = job.inputs; end > 0;) {
    const std::size_t begin = (end - 1) / inputs * inputs;
    const std::size_t from = first + begin * job.outputs;
    const std::size_t to = first + end * job.outputs;
    // Of what lies behind it this rank has done its share.
    if (flow != nullptr) flow->final_from(to, ParameterFlow::Parameters::free);
    if (job.update != nullptr) shares.before_moving(from, to);
    detail::gradient_in_tiles(job, begin, end, tiles);
    if (job.update != nullptr) shares.after_moving(from, to);
    end = begin;
  }
}

}  // namespace

std::size_t inputs_in_strips(const SharedWeights& weights, std::size_t strip_inputs) {
  std::size_t inputs = 0;
  for (const Rows& rows : weights.rows) inputs += round_up(rows.end - rows.begin, strip_inputs);
  return inputs;
}

std::size_t shared_factors_size(const SharedWeights& weights) {
  const Kernels<float>& kernel = kernels<float>();
  std::size_t inputs = inputs_in_strips(weights, kernel.tile_inputs);
  if (kernel.pairs != nullptr) {
    inputs = std::max(inputs, inputs_in_strips(weights, kernel.pairs->tile_inputs));
  }
  return round_up(weights.outputs, kernel.panel_width) + inputs;
}

void share_factors(MatrixView<const float> x, MatrixView<const float> d_y,
                   const SharedWeights& weights, Precision precision, WeightShares& shares) {
  const Packing packing(shares.leaf_rows(), precision);
  const std::span<float> packed = shares.packed(weights);
  assert(x.rows * shared_factors_size(weights) <= packed.size());
  const auto pack_strips = [&](std::size_t begin, std::size_t end, std::size_t step) {
    std::size_t inputs_before = 0;
    for (const Rows& rows : weights.rows) {
      detail::pack_strips_of<float>(
          {x.data + rows.begin, x.rows, rows.end - rows.begin, x.stride}, begin, end, step,
          packing.pairs, packed.data() + packing.strips_at(x.rows, weights.outputs, inputs_before));
      inputs_before += packing.inputs_of(rows);
    }
  };
  detail::pack_in_parts(x, d_y, {}, shares.own_leaf_rows(), packing.pairs, packed.data(),
                        pack_strips);
  shares.post(weights);
}

void sum_own_rows(const SharedWeights& weights, Precision precision, WeightShares& shares,
                  ParameterFlow* flow) {
  const auto all = shares.wait(weights);
  const std::span<const std::size_t> leaf_rows = shares.leaf_rows();
  const Packing packing(leaf_rows, precision);
  WeightGradient<float> job{.d_y_step = packing.panel_width,
                            .outputs = weights.outputs,
                            .leaf_rows = detail::without_absent_halves(leaf_rows),
                            .precision = precision};
  job.x_step = packing.strip_inputs;
  job.x = job.d_y = all.front().packed;  // some address that tiles may count from
  const auto absent = static_cast<std::size_t>(job.leaf_rows.data() - leaf_rows.data());
  job.of_leaf = shares.of_leaf().subspan(absent, job.leaf_rows.size() - 1);
  std::size_t inputs_before = inputs_in_strips(weights, packing.strip_inputs);
  for (auto rows = weights.rows.rbegin(); rows != weights.rows.rend(); ++rows) {
    inputs_before -= packing.inputs_of(*rows);
    if (!rows->own) continue;
    const std::size_t first = weights.offset + rows->begin * weights.outputs;
    const bool moves = rows->moves && shares.update() != nullptr;
    const Update<float> update = moves ? shares.update()->at(first, false) : Update<float>();
    job.inputs = rows->end - rows->begin;
    job.update = moves ? &update : nullptr;
    job.d_weights = shares.gradient().data() + first;
    find_leaf_factors(all, packing, weights.outputs, inputs_before, shares.of_leaf());
    sum_rows(job, first, packing, shares, flow);
  }
}

}  // namespace lockstep::nn

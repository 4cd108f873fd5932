// Gradients of weights and biases: sums over samples in the leaf tree, cut into parts for the
// threads of the task arena.
//
// Thread-safe for distinct outputs; local.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "nn/gradient_factors.hpp"
#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/parallel.hpp"
#include "nn/product.hpp"

namespace lockstep::nn {

// d_bias[i] = sum over rows m of d_y[m, i], in the leaf tree. d_bias has any alignment.
template <class T>
void bias_gradient(MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows, T* d_bias) {
  constexpr std::size_t kColsPerPart = 4 * kLanes;
  // An addition for which its summand comes from memory, row by row.
  const double operations = 8.0 * static_cast<double>(d_y.rows) * static_cast<double>(d_y.cols);
  for_each_part(parts_of(d_y.cols, kColsPerPart), operations, [&](std::size_t part) {
    const std::size_t begin = part * kColsPerPart;
    const std::size_t cols = std::min(kColsPerPart, d_y.cols - begin);
    kernels<T>().bias_gradient({d_y.data + begin, d_y.rows, cols, d_y.stride}, leaf_rows,
                               d_bias + begin);
  });
}

// Asks the processor for the cache lines at these addresses (Pass::upcoming), all at once.
inline void ask_for(std::span<const void* const> lines) {
  for (const void* line : lines) __builtin_prefetch(line);
}

// Who is told of pieces of a weight gradient, and whether the pass still reads the weights there.
struct GradientListener {
  ParameterFlow* flow = nullptr;
  ParameterFlow::Parameters weights = ParameterFlow::Parameters::free;
};

namespace detail {

// The smallest subtree that holds all samples of a subtree: the rest of it changes no sum.
inline std::span<const std::size_t> without_absent_halves(std::span<const std::size_t> leaf_rows) {
  while (leaf_rows.size() > 2) {
    const std::size_t half = (leaf_rows.size() - 1) / 2;
    if (leaf_rows[half] == leaf_rows.back()) {
      leaf_rows = leaf_rows.first(half + 1);
    } else if (leaf_rows[half] == leaf_rows.front()) {
      leaf_rows = leaf_rows.subspan(half);
    } else {
      break;
    }
  }
  return leaf_rows;
}

// Floating-point operations, or what takes as long: a weight is read and written in the time of
// several.
template <class T>
double gradient_operations(const WeightGradient<T>& job, std::size_t inputs) {
  const std::size_t rows = job.leaf_rows.back() - job.leaf_rows.front();
  return 2.0 * static_cast<double>(rows + 4) * static_cast<double>(job.outputs) *
         static_cast<double>(inputs);
}

// Up to how many samples few_gradient is faster than tiles, all as measured. Tiles ask for what
// they will write, which pays as soon as another core may have it; but a tile of one register of
// outputs has too few sums. The tree leaves fewer registers to a tile of few_gradient than to those
// that keep its nodes in memory.
template <class T>
std::size_t few_samples(const WeightGradient<T>& job) {
  const std::size_t leaves = job.leaf_rows.size() - 1;
  if (job.outputs <= kLanes) return leaves <= 2 ? 512 : 64;
  const bool shared_out =
      gradient_operations(job, job.inputs) >= kOperationsWorthATask && others_can_work();
  if (shared_out) return kFewRows;
  if (leaves <= 2) return std::max<std::size_t>(64, 8192 / job.outputs);
  return job.outputs <= 256 ? 32 : 16;
}

template <class T>
bool has_few_samples(const WeightGradient<T>& job) {
  const std::size_t leaves = job.leaf_rows.size() - 1;
  const std::size_t samples = job.leaf_rows.back() - job.leaf_rows.front();
  if (leaves > kFewLeaves || samples == 0 || samples > few_samples(job)) {
    return false;
  }
  // A sum of more than a run is no sequence under bfloat16; instructions for pairs repay packing as
  // soon as a product of pairs does (goes_by_pairs).
  const std::size_t most_rounded = kernels<T>().pairs != nullptr ? kFewRows : kRun;
  const std::size_t most = job.precision == Precision::bfloat16 ? most_rounded : kDepthBlock;
  for (std::size_t l = 0; l < leaves; ++l) {
    if (job.leaf_rows[l + 1] - job.leaf_rows[l] > most) return false;
  }
  return true;
}

// Inputs of a part, where few samples have `inputs` in all: so few that many threads find work, but
// enough for half a tile.
inline std::size_t inputs_of_few(std::size_t inputs) {
  return std::clamp<std::size_t>(round_up(parts_of(inputs, kPartsWanted), 8), 8, 64);
}

// Whether parts of the gradient are blocks of the depth, as in multiply_by_blocks(): then the
// thread that has read these weights moves them.
template <class T>
bool in_blocks(const WeightGradient<T>& job) {
  return job.leaf_rows.back() - job.leaf_rows.front() <= kFewRows;
}

template <class T>
void gradient_of_few(const WeightGradient<T>& job, std::size_t first_input, std::size_t end_input) {
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t inputs = end_input - first_input;
  const double operations = gradient_operations(job, inputs);
  if (operations < kOperationsWorthATask) return kernel.few_gradient(job, first_input, end_input);
  const std::size_t in_part = in_blocks(job) ? kDepthBlock : inputs_of_few(inputs);
  for_each_part_of_memory(parts_of(inputs, in_part), operations, [&](std::size_t part) {
    const std::size_t begin = first_input + part * in_part;
    kernel.few_gradient(job, begin, std::min(end_input, begin + in_part));
  });
}

// Asks for as many lines as a processor waits for at the same time, and returns the others. What
// takes longest may be to find the pages that lines are in: of these it looks them up side by side.
inline std::span<const void* const> all_but_first(std::span<const void* const> lines) {
  constexpr std::size_t kAtOnce = 16;
  const std::size_t first = std::min(kAtOnce, lines.size());
  ask_for(lines.first(first));
  return lines.subspan(first);
}

// Weight gradients of at least this many elements are told of as they come, so that what follows
// may begin with them: 1 MiB.
inline constexpr std::size_t kElementsWorthTelling = std::size_t{1} << 18;

// What sums a weight gradient in tiles: of pairs, or, without kernels for them, of single factors.
template <class T>
struct GradientTiles {
  explicit GradientTiles(const PairKernels<T>* pairs)
      : compute(pairs != nullptr ? pairs->weight_gradient : kernels<T>().weight_gradient),
        inputs(pairs != nullptr ? pairs->tile_inputs : kernels<T>().tile_inputs),
        fewest_inputs(pairs != nullptr ? inputs : std::min(inputs, kInputsOfSmallTile)) {}

  static constexpr std::size_t kInputsOfSmallTile = 6;  // of few samples a leaf

  decltype(Kernels<T>::weight_gradient) compute;
  std::size_t inputs;         // of a tile
  std::size_t fewest_inputs;  // of a part: a whole strip, or, of single factors, half of a wide one
};

// Rows of weights that are gone through side by side, panel by panel: whole tiles. Many samples
// make a panel of d_y too large for the first-level cache, so more tiles share it. Of few, what
// takes time is the memory of weights and moments, which gives a few rows at a time faster than
// many.
template <class T>
std::size_t inputs_side_by_side(std::size_t samples, const GradientTiles<T>& tiles) {
  constexpr std::size_t kMany = 512;
  constexpr std::size_t kFew = 64;
  if (samples <= kFew) return tiles.fewest_inputs;
  return round_up(samples >= kMany ? 96 : 48, tiles.inputs);
}

// A part has some rows of weights by some panels, and the next part the panels beside it: weights
// and moments, which are read and written once, then come row after row, as memory gives them
// fastest.
template <class T>
void gradient_in_tiles(const WeightGradient<T>& job, std::size_t first_input, std::size_t end_input,
                       const GradientTiles<T>& tiles) {
  constexpr std::size_t kPanelsPerPart = 4;
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t rows = job.leaf_rows.back() - job.leaf_rows.front();
  const std::size_t inputs_per_part = inputs_side_by_side(rows, tiles);
  const std::size_t blocks = parts_of(end_input - first_input, inputs_per_part);
  const std::size_t panels = parts_of(job.outputs, kernel.panel_width);
  const std::size_t groups = parts_of(panels, kPanelsPerPart);
  const double operations = gradient_operations(job, end_input - first_input);
  for_each_part(blocks * groups, operations, [&](std::size_t part) {
    const std::size_t begin = first_input + part / groups * inputs_per_part;
    const std::size_t end = std::min(end_input, begin + inputs_per_part);
    const std::size_t panel = part % groups * kPanelsPerPart;
    for (std::size_t p = panel; p < std::min(panels, panel + kPanelsPerPart); ++p) {
      tiles.compute(job, begin, end, p);
    }
  });
}

// Calls compute(begin, end) for all inputs; where somebody waits for them, in pieces of whole
// `units` of inputs, from the last input to the first.
template <class T, class Compute>
void in_pieces(const WeightGradient<T>& job, std::size_t offset, const GradientListener& told,
               std::size_t unit, const Compute& compute) {
  std::size_t end = job.inputs;
  if (told.flow != nullptr) {
    const std::size_t inputs = round_up(parts_of(kElementsWorthTelling, job.outputs), unit);
    for (; end > inputs; told.flow->final_from(offset + end * job.outputs, told.weights)) {
      const std::size_t begin = (end - 1) / inputs * inputs;
      compute(begin, end);
      end = begin;
    }
  }
  compute(0, end);
}

}  // namespace detail

// For each subtree, the slice of its gradient at `offset`, inputs × outputs, = sum over its leaves'
// samples of xᵀ d_y, in their tree; or, where the subtree says so, the parameters there move by it.
// Who listens is told of pieces on the way, but not of the last one. Under bfloat16 both factors
// are rounded already. `upcoming` is asked for meanwhile (Pass::upcoming).
template <class T>
void weight_gradients(MatrixView<const T> x, MatrixView<const T> d_y,
                      std::span<const SubtreeGradient<T>> subtrees, std::size_t offset,
                      std::span<T> scratch, Precision precision = Precision::float32,
                      const GradientListener& told = {},
                      std::span<const void* const> upcoming = {}) {
  WeightGradient<T> job{.inputs = x.cols, .outputs = d_y.cols, .precision = precision};
  bool singles_placed = false;  // pairs are packed for each subtree on its own
  for (const SubtreeGradient<T>& subtree : subtrees) {
    assert(std::has_single_bit(subtree.leaf_rows.size() - 1) &&
           subtree.leaf_rows.size() - 1 <= kMaxLeaves);
    Update<T> update;
    job.leaf_rows = detail::without_absent_halves(subtree.leaf_rows);
    if (subtree.update != nullptr) {
      update = subtree.update->at(offset, false);
      job.update = &update;
    } else {
      job.d_weights = subtree.gradient.data() + offset;
    }
    // A piece is final when the last subtree's is.
    const GradientListener listener = &subtree == &subtrees.back() ? told : GradientListener{};
    if (detail::has_few_samples(job)) {
      detail::leave_factors(x, d_y, job);
      job.upcoming = detail::all_but_first(std::exchange(upcoming, {}));
      // A piece of blocks of the depth would have one or two for all threads.
      const bool whole = detail::in_blocks(job) && others_can_work();
      detail::in_pieces(
          job, offset, whole ? GradientListener{} : listener, 64,
          [&](std::size_t begin, std::size_t end) { detail::gradient_of_few(job, begin, end); });
      singles_placed = false;
      continue;
    }
    const PairKernels<T>* pairs =
        precision == Precision::bfloat16 ? detail::pair_kernels<T>(job.leaf_rows) : nullptr;
    if (!singles_placed || pairs != nullptr) {
      detail::place_factors(x, d_y, scratch.data(), pairs, job);
    }
    singles_placed = pairs == nullptr;
    const detail::GradientTiles<T> tiles(pairs);
    detail::in_pieces(job, offset, listener, 8 * tiles.inputs,
                      [&](std::size_t begin, std::size_t end) {
                        detail::gradient_in_tiles(job, begin, end, tiles);
                      });
  }
  ask_for(upcoming);
}

}  // namespace lockstep::nn

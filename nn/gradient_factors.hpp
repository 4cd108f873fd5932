// Where the factors of a weight gradient stand while it is summed: inputs and derivatives as layers
// hold them, or packed into the order in which tiles read them, by the threads of the task arena.
//
// Thread-safe for distinct outputs; local.
#pragma once

#include <algorithm>
#include <span>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

// Elements of scratch that weight_gradients() needs.
template <class T>
std::size_t weight_gradient_scratch(std::size_t rows, std::size_t inputs, std::size_t outputs) {
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t tiles = round_up(inputs, kernel.tile_inputs);
  const std::size_t pairs =
      kernel.pairs != nullptr ? round_up(inputs, kernel.pairs->tile_inputs) : 0;
  return rows * (round_up(std::max(tiles, pairs), kLanes) + round_up(outputs, kernel.panel_width));
}

namespace detail {

// Calls pack(begin, end, step) for the samples in [begin, end), leaf by leaf and whole groups of
// `at_once` of a leaf: those whose first sample is in there. The steps are those of PairKernels.
template <class Pack>
void for_each_leaf_in(std::span<const std::size_t> leaf_rows, std::size_t at_once,
                      std::size_t begin, std::size_t end, const Pack& pack) {
  const auto after = std::ranges::upper_bound(leaf_rows, begin) - leaf_rows.begin();
  for (auto l = static_cast<std::size_t>(std::max<std::ptrdiff_t>(after, 1)) - 1;
       l + 1 < leaf_rows.size() && leaf_rows[l] < end; ++l) {
    const std::size_t leaf = leaf_rows[l];
    const std::size_t from = begin <= leaf ? 0 : round_up(begin - leaf, at_once);
    const std::size_t to = std::min(leaf_rows[l + 1] - leaf, round_up(end - leaf, at_once));
    if (from < to) pack(leaf + from, leaf + to, leaf + from / 2);
  }
}

// Which factors of a weight gradient are packed.
struct Packed {
  bool x = true;
  bool d_y = true;
};

// Packs factors of a weight gradient: panels of d_y, and what pack_strips(begin, end, step) makes of
// the samples in [begin, end) of x, with pairs such as are of one leaf, the first of them at `step`.
template <class T, class PackStrips>
void pack_in_parts(MatrixView<const T> x, MatrixView<const T> d_y, Packed which,
                   std::span<const std::size_t> leaf_rows, const PairKernels<T>* pairs, T* panels,
                   const PackStrips& pack_strips) {
  constexpr std::size_t kRowsPerPart = 32;
  const std::size_t blocks = parts_of(x.rows, kRowsPerPart);
  const std::size_t factors = (which.x ? 1 : 0) + (which.d_y ? 1 : 0);
  const std::size_t columns = (which.x ? x.cols : 0) + (which.d_y ? d_y.cols : 0);
  const double operations = 2.0 * static_cast<double>(x.rows * columns);
  for_each_part(factors * blocks, operations, [&](std::size_t part) {
    const std::size_t begin = part / factors * kRowsPerPart;
    const std::size_t end = std::min(x.rows, begin + kRowsPerPart);
    const bool is_x = which.x && part % factors == 0;
    if (pairs != nullptr) {
      for_each_leaf_in(leaf_rows, pairs->terms_at_once, begin, end,
                       [&](std::size_t first, std::size_t last, std::size_t step) {
                         if (is_x) {
                           pack_strips(first, last, step);
                         } else {
                           pairs->pack_panels(d_y, first, last, step, panels);
                         }
                       });
    } else if (is_x) {
      pack_strips(begin, end, begin);
    } else {
      kernels<T>().pack_panels(d_y, begin, end, panels);
    }
  });
}

// One matrix's rows as strips.
template <class T>
void pack_strips_of(MatrixView<const T> x, std::size_t begin, std::size_t end, std::size_t step,
                    const PairKernels<T>* pairs, T* packed) {
  if (pairs != nullptr) {
    pairs->pack_strips(x, begin, end, step, packed);
  } else {
    kernels<T>().pack_strips(x, begin, end, packed);
  }
}

// Tells the job of factors that stay where they are.
template <class T>
void leave_factors(MatrixView<const T> x, MatrixView<const T> d_y, WeightGradient<T>& job) {
  const Kernels<T>& kernel = kernels<T>();
  job.x = x.data;
  job.x_step = x.stride;
  job.x_strip = kernel.tile_inputs;
  job.d_y = d_y.data;
  job.d_y_step = d_y.stride;
  job.d_y_panel = kernel.panel_width;
}

// What a tile reads of a factor where it stands is a line or two a sample, which stay in the
// first-level cache until the next tiles of its part have read them: unless rows are so long that
// each is on a page of its own, or lines of x, of which a tile reads a part, so many that they push
// one another out.
inline constexpr std::size_t kLongestRowInPlace = 4096 + kAlignment;  // bytes
inline constexpr std::size_t kMostLinesInPlace = 256;

template <class T>
Packed worth_packing(MatrixView<const T> x, MatrixView<const T> d_y) {
  const auto is_long = [](MatrixView<const T> factor) {
    return factor.stride * sizeof(T) > kLongestRowInPlace;
  };
  return {is_long(x) || x.rows > kMostLinesInPlace, is_long(d_y)};
}

// Tells the job of both factors, of which those that are worth it are packed into `scratch`. As
// pairs both are, for the leaves of this one subtree.
template <class T>
void place_factors(MatrixView<const T> x, MatrixView<const T> d_y, T* scratch,
                   const PairKernels<T>* pairs, WeightGradient<T>& job) {
  const Kernels<T>& kernel = kernels<T>();
  leave_factors(x, d_y, job);
  const Packed which = pairs != nullptr ? Packed() : worth_packing(x, d_y);
  T* packed_x = scratch + x.rows * round_up(d_y.cols, kernel.panel_width);
  pack_in_parts(x, d_y, which, job.leaf_rows, pairs, scratch,
                [&](std::size_t begin, std::size_t end, std::size_t step) {
                  pack_strips_of(x, begin, end, step, pairs, packed_x);
                });
  if (which.d_y) {
    job.d_y = scratch;
    job.d_y_step = kernel.panel_width;
    job.d_y_panel = kernel.panel_width * x.rows;
  }
  if (which.x) {
    job.x = packed_x;
    job.x_step = pairs != nullptr ? pairs->tile_inputs : kernel.tile_inputs;
    job.x_strip = job.x_step * x.rows;
  }
}

// Those for this subtree, or null: they fill up a leaf to whole groups of terms, half as many steps,
// for which there must be room.
template <class T>
const PairKernels<T>* pair_kernels(std::span<const std::size_t> leaf_rows) {
  const PairKernels<T>* pairs = kernels<T>().pairs;
  if (pairs == nullptr) return nullptr;
  for (std::size_t l = 0; l + 1 < leaf_rows.size(); ++l) {
    const std::size_t rows = leaf_rows[l + 1] - leaf_rows[l];
    if (round_up(rows, pairs->terms_at_once) / 2 > rows) return nullptr;
  }
  return pairs;
}

}  // namespace detail

}  // namespace lockstep::nn

// Matrix products and sums over samples, cut into parts for the threads of the task arena.
//
// Thread-safe for distinct outputs; local.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>

#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

// Rows per part: enough that packing a panel of the other factor costs little beside its use.
inline constexpr std::size_t kRowsPerPart = 384;

// c = activation(a · b + bias).
template <class T>
void multiply(const Product<T>& product) {
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t rows = product.a.rows;
  const std::size_t panels = round_up(product.c.cols, kernel.panel_width) / kernel.panel_width;
  const std::size_t blocks = round_up(rows, kRowsPerPart) / kRowsPerPart;
  const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(product.a.cols) *
                            static_cast<double>(product.c.cols);
  for_each_part(panels * blocks, operations, [&](std::size_t part) {
    const std::size_t begin = part / panels * kRowsPerPart;
    kernel.product_panel(product, begin, std::min(rows, begin + kRowsPerPart), part % panels);
  });
}

// Packs all columns of `matrix`, `width` at a time, one after the other, for WeightGradient.
template <class T>
void pack_all_columns(MatrixView<const T> matrix, std::size_t width, T* packed) {
  const std::size_t parts = round_up(matrix.cols, width) / width;
  const double operations = 4.0 * static_cast<double>(matrix.rows * matrix.cols);
  for_each_part(parts, operations, [&](std::size_t part) {
    kernels<T>().pack_columns(matrix, part * width, width, packed + part * width * matrix.rows);
  });
}

// Elements of scratch that weight_gradients() needs.
template <class T>
std::size_t weight_gradient_scratch(std::size_t rows, std::size_t outputs, std::size_t inputs) {
  const Kernels<T>& kernel = kernels<T>();
  return rows * (round_up(round_up(outputs, kernel.tile_outputs), kLanes) +
                 round_up(inputs, kernel.panel_width));
}

// For each subtree, the slice of its gradient at `offset`, outputs × inputs, = sum over its leaves'
// samples of d_yᵀ x, in their tree.
template <class T>
void weight_gradients(MatrixView<const T> d_y, MatrixView<const T> x,
                      std::span<const SubtreeGradient<T>> subtrees, std::size_t offset,
                      std::span<T> scratch) {
  constexpr std::size_t kStripsPerPart = 8;
  const Kernels<T>& kernel = kernels<T>();
  WeightGradient<T> job{.rows = x.rows, .outputs = d_y.cols, .inputs = x.cols};
  T* packed_x = scratch.data();
  T* packed_d_y = packed_x + x.rows * round_up(x.cols, kernel.panel_width);
  pack_all_columns(x, kernel.panel_width, packed_x);
  pack_all_columns(d_y, kernel.tile_outputs, packed_d_y);
  job.x = packed_x;
  job.d_y = packed_d_y;

  const std::size_t panels = round_up(x.cols, kernel.panel_width) / kernel.panel_width;
  const std::size_t strips = round_up(d_y.cols, kernel.tile_outputs) / kernel.tile_outputs;
  const std::size_t blocks = round_up(strips, kStripsPerPart) / kStripsPerPart;
  for (const SubtreeGradient<T>& subtree : subtrees) {
    assert(std::has_single_bit(subtree.leaf_rows.size() - 1) &&
           subtree.leaf_rows.size() - 1 <= kMaxLeaves);
    job.leaf_rows = subtree.leaf_rows;
    job.d_weights = subtree.gradient.data() + offset;
    const std::size_t rows = subtree.leaf_rows.back() - subtree.leaf_rows.front();
    const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(d_y.cols) *
                              static_cast<double>(x.cols);
    for_each_part(panels * blocks, operations, [&](std::size_t part) {
      const std::size_t begin = part % blocks * kStripsPerPart;
      kernel.gradient_panel(job, begin, std::min(strips, begin + kStripsPerPart), part / blocks);
    });
  }
}

}  // namespace lockstep::nn

// Matrix products and sums over samples, cut into parts for the threads of the task arena.
//
// Thread-safe for distinct outputs; local.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

// Rows per part: enough that packing a panel of the other factor costs little beside its use.
inline constexpr std::size_t kRowsPerPart = 192;

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

// d_weights = sum over the leaves' samples, in their tree.
template <class T>
void weight_gradient(const WeightGradient<T>& job) {
  constexpr std::size_t kOutputsPerPart = 96;
  assert(std::has_single_bit(job.leaf_rows.size() - 1) && job.leaf_rows.size() - 1 <= kMaxLeaves);
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t outputs = job.d_y.cols;
  const std::size_t panels = round_up(job.x.cols, kernel.panel_width) / kernel.panel_width;
  const std::size_t blocks = round_up(outputs, kOutputsPerPart) / kOutputsPerPart;
  const std::size_t rows = job.leaf_rows.back() - job.leaf_rows.front();
  const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(outputs) *
                            static_cast<double>(job.x.cols);
  for_each_part(panels * blocks, operations, [&](std::size_t part) {
    const std::size_t begin = part / panels * kOutputsPerPart;
    kernel.gradient_panel(job, begin, std::min(outputs, begin + kOutputsPerPart), part % panels);
  });
}

}  // namespace lockstep::nn

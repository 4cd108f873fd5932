// Matrix products, cut into parts for the threads of the task arena.
//
// Thread-safe for distinct outputs; local.
#pragma once

#include <algorithm>
#include <cassert>
#include <span>

#include "nn/kernels/kernels.hpp"
#include "nn/layer.hpp"
#include "nn/parallel.hpp"

namespace lockstep::nn {

// Parts below this number are made smaller, down to one panel, so that many threads find work.
inline constexpr std::size_t kPartsWanted = 16;

// So few rows leave the sums of several panels in the registers at once, and take as long as the
// other factor takes to come from memory.
inline constexpr std::size_t kFewRows = 4;

namespace detail {

// Kernels of one instruction set that multiply alike, of single factors or of pairs.
template <class T>
using ProductPanels = decltype(Kernels<T>::product_panels);

// Few rows times a large matrix: a part has some rows of that, which lie together in memory, and
// are those that its thread moves when it comes to their gradient (gradient_of_few). Each block
// of the depth has its sums in `scratch`, and they are added up in the end.
template <class T>
void multiply_by_blocks(const Product<T>& product, double operations, T* scratch) {
  const Kernels<T>& kernel = kernels<T>();
  const MatrixView<const T> a = product.a;
  const MatrixView<T> c = product.c;
  const std::size_t blocks = parts_of(a.cols, kDepthBlock);
  const std::size_t panels = parts_of(c.cols, kernel.panel_width);
  for_each_part_of_memory(blocks, operations, [&](std::size_t i) {
    const std::size_t p = i * kDepthBlock;
    Product<T> block = product;
    block.a = {a.data + p, a.rows, std::min(kDepthBlock, a.cols - p), a.stride};
    block.b = product.b + p * product.b_stride;
    block.c.data = scratch + i * a.rows * c.stride;
    block.bias = nullptr;
    block.activation = Activation::none;
    block.derivative = Activation::none;
    for (std::size_t panel = 0; panel < panels; panel += kPanelsAtOnce) {
      kernel.product_panels(block, 0, a.rows, panel, std::min(kPanelsAtOnce, panels - panel));
    }
  });
  for (std::size_t m = 0; m < a.rows; ++m) {
    T* sum = c.row(m);
    std::copy_n(scratch + m * c.stride, c.cols, sum);
    for (std::size_t i = 1; i < blocks; ++i) {
      const T* part = scratch + (i * a.rows + m) * c.stride;
      for (std::size_t j = 0; j < c.cols; ++j) sum[j] += part[j];
    }
    if (product.bias == nullptr) continue;
    for (std::size_t j = 0; j < c.cols; ++j) sum[j] += product.bias[j];
  }
  kernel.activate(product.activation, product.slope, c);
  kernel.activation_backward(product.derivative, product.slope, product.y, c);
}

// Where the pairs of a product stand in its scratch: those of a, and then those of b.
template <class T>
struct PairLayout {
  PairLayout(std::size_t rows, std::size_t depth, std::size_t cols) {
    const Kernels<T>& kernel = kernels<T>();
    const std::size_t steps = round_up(depth, kernel.pairs->terms_at_once) / 2;
    a_stride = padded_stride(steps);
    b_begin = (rows + kRowsBeyond) * a_stride;
    b_panel = steps * kernel.panel_width;
    size = b_begin + parts_of(cols, kernel.panel_width) * b_panel;
  }

  std::size_t a_stride, b_begin, b_panel, size;
};

template <class T>
bool goes_by_pairs(std::size_t rows, Precision precision) {
  return precision == Precision::bfloat16 && kernels<T>().pairs != nullptr && rows > kFewRows;
}

}  // namespace detail

// Elements of scratch of which multiply() can make use: the sums of blocks, or pairs of factors.
template <class T>
std::size_t multiply_scratch(std::size_t rows, std::size_t depth, std::size_t cols,
                             Precision precision = Precision::float32) {
  const std::size_t sums =
      std::min(rows, kFewRows) * parts_of(depth, kDepthBlock) * padded_stride(cols);
  if (!detail::goes_by_pairs<T>(rows, precision)) return sums;
  return std::max(sums, detail::PairLayout<T>(rows, depth, cols).size);
}

namespace detail {

// A part has some rows and some panels; little work is one part.
template <class T>
void multiply_in_parts(const Product<T>& product, double operations,
                       ProductPanels<T> product_panels) {
  const std::size_t rows = product.a.rows;
  const std::size_t panels = parts_of(product.c.cols, kernels<T>().panel_width);
  if (operations < kOperationsWorthATask) {
    for (std::size_t panel = 0; panel < panels; panel += kPanelsAtOnce) {
      product_panels(product, 0, rows, panel, std::min(kPanelsAtOnce, panels - panel));
    }
    return;
  }
  // Enough rows a part that packing a panel of the other factor costs little beside its use. Where
  // there is little of that, fewer will do.
  constexpr std::size_t kRowsPerPart = 512;
  constexpr std::size_t kRowsPerNarrowPart = 32;
  constexpr std::size_t kNarrow = 2;  // panels
  const std::size_t row_blocks =
      parts_of(rows, panels <= kNarrow ? kRowsPerNarrowPart : kRowsPerPart);
  const std::size_t at_once =
      rows <= kFewRows
          ? kPanelsAtOnce
          : std::clamp<std::size_t>(panels * row_blocks / kPartsWanted, 1, kPanelsAtOnce);
  const std::size_t groups = parts_of(panels, at_once);
  const auto compute = [&](std::size_t part) {
    const std::size_t block = part / groups;
    const std::size_t panel = part % groups * at_once;
    product_panels(product, block * rows / row_blocks, (block + 1) * rows / row_blocks, panel,
                   std::min(at_once, panels - panel));
  };
  if (rows <= kFewRows) {
    for_each_part_of_memory(groups * row_blocks, operations, compute);
  } else {
    for_each_part(groups * row_blocks, operations, compute);
  }
}

// The product with both factors packed into `scratch`.
template <class T>
Product<T> in_pairs(const PairKernels<T>& kernel, const Product<T>& product, T* scratch) {
  const MatrixView<const T> a = product.a;
  const PairLayout<T> layout(a.rows, a.cols, product.c.cols);
  const MatrixView<T> pairs{scratch, a.rows, a.cols, layout.a_stride};
  for_each_row_block(a.rows, static_cast<double>(a.cols), [&](std::size_t begin, std::size_t end) {
    kernel.pack_pairs({a.row(begin), end - begin, a.cols, a.stride},
                      {pairs.row(begin), end - begin, pairs.cols, pairs.stride});
  });
  T* b = scratch + layout.b_begin;
  Product<T> packed = product;
  packed.b_panel = layout.b_panel;
  constexpr std::size_t kPanelsPerPart = 8;
  const std::size_t panels = parts_of(product.c.cols, kernels<T>().panel_width);
  const std::size_t groups = parts_of(panels, kPanelsPerPart);
  const double operations = 2.0 * static_cast<double>(a.cols) * static_cast<double>(product.c.cols);
  for_each_part(parts_of(a.cols, kDepthBlock) * groups, operations, [&](std::size_t part) {
    const std::size_t p = part / groups * kDepthBlock;
    const std::size_t panel = part % groups * kPanelsPerPart;
    kernel.pack_factor(packed, p, std::min(kDepthBlock, a.cols - p), panel,
                       std::min(kPanelsPerPart, panels - panel), b + panel * layout.b_panel);
  });
  packed.a = pairs;
  packed.b_pairs = b;
  return packed;
}

}  // namespace detail

// c = activation(a · b + bias), or what else the product tells. With scratch, which may be empty,
// few rows are shared out better, and bfloat16 goes by pairs where the processor can.
template <class T>
void multiply(const Product<T>& product, std::span<T> scratch = {}) {
  assert(product.derivative == Activation::none ||
         (product.activation == Activation::none && product.precision == Precision::float32));
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t rows = product.a.rows;
  const std::size_t depth = product.a.cols;
  const double operations = 2.0 * static_cast<double>(rows) * static_cast<double>(depth) *
                            static_cast<double>(product.c.cols);
  const auto enough_scratch = [&] {
    return scratch.size() >= multiply_scratch<T>(rows, depth, product.c.cols, product.precision);
  };
  if (detail::goes_by_pairs<T>(rows, product.precision) && enough_scratch()) {
    const PairKernels<T>& pairs = *kernel.pairs;
    detail::multiply_in_parts(detail::in_pairs(pairs, product, scratch.data()), operations,
                              pairs.product_panels);
  } else if (operations >= kOperationsWorthATask && rows <= kFewRows && !product.b_transposed &&
             depth > kDepthBlock && product.precision == Precision::float32 && enough_scratch()) {
    detail::multiply_by_blocks(product, operations, scratch.data());
  } else {
    detail::multiply_in_parts(product, operations, kernel.product_panels);
  }
}

}  // namespace lockstep::nn

#include "nn/batch_norm.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <sstream>
#include <type_traits>

#include "nn/parallel.hpp"

namespace lockstep::nn {
namespace {

// Bounds of leaves that have one row each: for tables with a row for every leaf.
constexpr auto kRowEach = [] {
  std::array<std::size_t, kMaxLeaves + 1> bounds{};
  std::iota(bounds.begin(), bounds.end(), std::size_t{0});
  return bounds;
}();

constexpr std::size_t kColsPerPart = 4 * kLanes;

template <class T>
MatrixView<T> part_of(MatrixView<T> m, std::size_t row, std::size_t rows, std::size_t col,
                      std::size_t cols) {
  return {m.row(row) + col, rows, cols, m.stride};
}

template <class T>
MatrixView<T> columns_of(MatrixView<T> m, std::size_t col, std::size_t cols) {
  return part_of(m, 0, m.rows, col, cols);
}

// work(begin, cols) for parts of the columns, of which each element takes so many operations.
template <class Work>
void for_each_column_part(std::size_t rows, std::size_t cols, double operations, const Work& work) {
  operations *= static_cast<double>(rows) * static_cast<double>(cols);
  for_each_part(parts_of(cols, kColsPerPart), operations, [&](std::size_t part) {
    const std::size_t begin = part * kColsPerPart;
    work(begin, std::min(kColsPerPart, cols - begin));
  });
}

// work(leaf, first row, rows, first column, columns) for parts of every leaf of the pass, with or
// without samples.
template <class Work>
void for_each_leaf_part(const Pass& pass, std::size_t rows, std::size_t cols, double operations,
                        const Work& work) {
  const std::size_t parts = parts_of(cols, kColsPerPart);
  operations *= static_cast<double>(rows) * static_cast<double>(cols);
  std::size_t first_leaf = 0;
  for (const SubtreeRows& bounds : pass.subtrees) {
    const std::size_t leaves = bounds.size() - 1;
    for_each_part(leaves * parts, operations, [&](std::size_t i) {
      const std::size_t leaf = i / parts;
      const std::size_t begin = i % parts * kColsPerPart;
      work(first_leaf + leaf, bounds[leaf], bounds[leaf + 1] - bounds[leaf], begin,
           std::min(kColsPerPart, cols - begin));
    });
    first_leaf += leaves;
  }
}

// The sum over the batch, where sum(i, sums) gives that over subtree i of the pass. A rank alone
// has it in `own`, all of whose elements are summed.
template <class T, class Sum>
std::span<const T> sum_over_batch(const Pass& pass, std::span<T> own, const Sum& sum) {
  if constexpr (std::is_same_v<T, float>) {
    if (pass.sums != nullptr) {
      for (std::size_t i = 0; i < pass.subtrees.size(); ++i) {
        sum(i, pass.sums->partial(own.size(), i).data());
      }
      return pass.sums->total(own.size());
    }
  }
  assert(pass.sums == nullptr && pass.subtrees.size() == 1);
  sum(0, own.data());
  return own;
}

}  // namespace

template <class T>
BatchNorm<T>::BatchNorm(const std::string& name, std::size_t width, const BatchNormOptions& options,
                        ParameterLayout& layout)
    : Layer<T>(width, width),
      options_(options),
      padded_(round_up(width, kLanes)),
      batch_sums_{2 * padded_, padded_} {
  if (options.affine) {
    const std::size_t weight = layout.add(name + ".weight", {width}, true);
    layout.add(name + ".bias", {width}, true);
    weight_offset_ = layout.tensors()[weight].offset;
  }
  const std::size_t mean = layout.add_statistic(name + ".running_mean", {width});
  const std::size_t variance = layout.add_statistic(name + ".running_var", {width});
  mean_from_end_ = layout.buffer_size() - layout.tensors()[mean].offset;
  variance_from_end_ = layout.buffer_size() - layout.tensors()[variance].offset;
}

template <class T>
std::string BatchNorm<T>::describe() const {
  std::ostringstream text;
  text << "batch_norm";
  if (options_.scope == NormScope::leaf) text << ", each leaf by itself";
  if (!options_.affine) text << ", no weight";
  return text.str();
}

template <class T>
std::span<const std::size_t> BatchNorm<T>::batch_sums() const {
  return std::span(batch_sums_).first(options_.scope == NormScope::batch ? 2 : 1);
}

template <class T>
std::size_t BatchNorm<T>::scratch_size(std::size_t) const {
  const std::size_t groups = options_.scope == NormScope::batch ? 1 : options_.leaves;
  return groups * kGroupRows * padded_;
}

template <class T>
void BatchNorm<T>::initialize(std::uint64_t, std::span<T> parameters) const {
  const std::size_t width = this->outputs();
  if (options_.affine) {
    std::ranges::fill(parameters.subspan(weight_offset_, width), T{1});
    std::ranges::fill(parameters.subspan(weight_offset_ + padded_, width), T{0});
  }
  std::ranges::fill(parameters.last(mean_from_end_).first(width), T{0});
  std::ranges::fill(parameters.last(variance_from_end_).first(width), T{1});
}

template <class T>
BatchNorm<T>::Group BatchNorm<T>::group(std::span<T> scratch, std::size_t i) const {
  assert((i + 1) * kGroupRows * padded_ <= scratch.size());
  T* rows = scratch.data() + i * kGroupRows * padded_;
  return {rows, rows + padded_, rows + 2 * padded_, rows + 3 * padded_, rows + 4 * padded_};
}

template <class T>
MatrixView<const T> BatchNorm<T>::of_groups(std::span<T> scratch, std::size_t i, std::size_t count,
                                            std::size_t first) const {
  const std::size_t stride = kGroupRows * padded_;
  return {scratch.data() + i * stride + first * padded_, count, 2 * padded_, stride};
}

template <class T>
Normalization<T> BatchNorm<T>::normalization(const Group& group,
                                             std::span<const T> parameters) const {
  Normalization<T> to{.mean = group.mean, .inverse = group.inverse};
  if (options_.affine) {
    to.weight = parameters.data() + weight_offset_;
    to.bias = to.weight + padded_;
  }
  return to;
}

template <class T>
void BatchNorm<T>::set_mean(const Group& group, const T* sums, std::size_t begin, std::size_t cols,
                            std::size_t samples) const {
  const T count = static_cast<T>(samples);
  for (std::size_t j = begin; j < begin + cols; ++j) group.mean[j] = sums[j] / count;
}

template <class T>
void BatchNorm<T>::set_variance(const Group& group, const T* squares, std::size_t begin,
                                std::size_t cols, std::size_t samples) const {
  const T count = static_cast<T>(samples);
  const T others = static_cast<T>(std::max<std::size_t>(1, samples - 1));
  const T epsilon = static_cast<T>(options_.epsilon);
  for (std::size_t j = begin; j < begin + cols; ++j) {
    group.inverse[j] = T{1} / std::sqrt(squares[j] / count + epsilon);
    group.variance[j] = squares[j] / others;
  }
}

template <class T>
void BatchNorm<T>::forward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                           MatrixView<T> y, std::span<T> scratch) const {
  if (pass.training) {
    return options_.scope == NormScope::batch ? forward_batch(pass, parameters, x, y, scratch)
                                              : forward_leaves(pass, parameters, x, y, scratch);
  }
  const Group statistics = group(scratch, 0);
  std::ranges::copy(parameters.last(mean_from_end_).first(padded_), statistics.mean);
  const T* variance = parameters.last(variance_from_end_).data();
  const T epsilon = static_cast<T>(options_.epsilon);
  for (std::size_t j = 0; j < x.cols; ++j) {
    statistics.inverse[j] = T{1} / std::sqrt(variance[j] + epsilon);
  }
  const Normalization<T> to = normalization(statistics, parameters);
  const double operations_per_row = 4.0 * static_cast<double>(x.cols);
  for_each_row_block(x.rows, operations_per_row, [&](std::size_t begin, std::size_t end) {
    kernels<T>().normalize(to, part_of(x, begin, end - begin, 0, x.cols),
                           part_of(y, begin, end - begin, 0, x.cols));
  });
}

template <class T>
void BatchNorm<T>::forward_batch(const Pass& pass, std::span<const T> parameters,
                                 MatrixView<const T> x, MatrixView<T> y,
                                 std::span<T> scratch) const {
  const Kernels<T>& kernel = kernels<T>();
  const Group batch = group(scratch, 0);
  const std::size_t width = this->outputs();
  // Every element comes from memory for an operation or two. Sums of columns are what a bias's
  // gradient is.
  const double operations = 8;
  const auto sums = sum_over_batch<T>(pass, {batch.mean, padded_}, [&](std::size_t i, T* sum) {
    for_each_column_part(x.rows, width, operations, [&](std::size_t begin, std::size_t cols) {
      kernel.bias_gradient(columns_of(x, begin, cols), pass.subtrees[i], sum + begin);
    });
  });
  set_mean(batch, sums.data(), 0, width, pass.batch_samples);
  const auto squares =
      sum_over_batch<T>(pass, {batch.variance, padded_}, [&](std::size_t i, T* sum) {
        for_each_column_part(x.rows, width, operations, [&](std::size_t begin, std::size_t cols) {
          kernel.squared_deviations(columns_of(x, begin, cols), batch.mean + begin,
                                    pass.subtrees[i], sum + begin);
        });
      });
  set_variance(batch, squares.data(), 0, width, pass.batch_samples);
  const Normalization<T> to = normalization(batch, parameters);
  for_each_column_part(x.rows, width, operations, [&](std::size_t begin, std::size_t cols) {
    kernel.normalize(to.from(begin), columns_of(x, begin, cols), columns_of(y, begin, cols));
  });
}

template <class T>
void BatchNorm<T>::forward_leaves(const Pass& pass, std::span<const T> parameters,
                                  MatrixView<const T> x, MatrixView<T> y,
                                  std::span<T> scratch) const {
  const Kernels<T>& kernel = kernels<T>();
  for_each_leaf_part(pass, x.rows, x.cols, 24,
                     [&](std::size_t leaf, std::size_t row, std::size_t rows, std::size_t begin,
                         std::size_t cols) {
                       const Group own = group(scratch, leaf);
                       if (rows == 0) {  // adds nothing to the statistics
                         std::fill_n(own.mean + begin, cols, T{0});
                         std::fill_n(own.variance + begin, cols, T{0});
                         return;
                       }
                       const auto inputs = part_of(x, row, rows, begin, cols);
                       const std::array<std::size_t, 2> bounds{0, rows};
                       kernel.bias_gradient(inputs, bounds, own.mean + begin);
                       set_mean(own, own.mean, begin, cols, rows);
                       kernel.squared_deviations(inputs, own.mean + begin, bounds,
                                                 own.variance + begin);
                       set_variance(own, own.variance, begin, cols, rows);
                       kernel.normalize(normalization(own, parameters).from(begin), inputs,
                                        part_of(y, row, rows, begin, cols));
                     });
}

template <class T>
void BatchNorm<T>::backward(const Pass& pass, std::span<const T> parameters, MatrixView<const T> x,
                            MatrixView<const T>, MatrixView<T> d_y, MatrixView<T> d_x,
                            std::span<const SubtreeGradient<T>> subtrees,
                            std::span<T> scratch) const {
  assert(subtrees.size() == pass.subtrees.size());
  if (options_.scope == NormScope::batch) {
    backward_batch(pass, parameters, x, d_y, d_x, subtrees, scratch);
  } else {
    backward_leaves(pass, parameters, x, d_y, d_x, subtrees, scratch);
  }
  // Last, since d_x is that of the weight as it was.
  if (!options_.affine) return;
  for (const SubtreeGradient<T>& subtree : subtrees) {
    if (subtree.update == nullptr) continue;
    kernels<T>().update(subtree.update->at(weight_offset_, true),
                        subtree.gradient.data() + weight_offset_, 2 * padded_);
  }
}

template <class T>
void BatchNorm<T>::backward_batch(const Pass& pass, std::span<const T> parameters,
                                  MatrixView<const T> x, MatrixView<const T> d_y, MatrixView<T> d_x,
                                  std::span<const SubtreeGradient<T>> subtrees,
                                  std::span<T> scratch) const {
  const Kernels<T>& kernel = kernels<T>();
  const Group batch = group(scratch, 0);
  const Normalization<T> to = normalization(batch, parameters);
  const std::size_t width = this->outputs();
  const auto sum = [&](std::size_t i, T* sums) {
    for_each_column_part(x.rows, width, 16, [&](std::size_t begin, std::size_t cols) {
      kernel.normalization_gradient(to.from(begin), columns_of(x, begin, cols),
                                    columns_of(d_y, begin, cols), subtrees[i].leaf_rows,
                                    sums + padded_ + begin, sums + begin);
    });
    if (options_.affine) {
      // The columns alone: what stands between them and the next tensor is not this layer's.
      T* gradient = subtrees[i].gradient.data() + weight_offset_;
      std::copy_n(sums, this->inputs(), gradient);
      std::copy_n(sums + padded_, this->inputs(), gradient + padded_);
    }
  };
  if (d_x.empty()) {  // nobody needs their sum over the batch
    for (std::size_t i = 0; i < subtrees.size(); ++i) sum(i, batch.d_weight);
    return;
  }
  const auto sums = sum_over_batch<T>(pass, {batch.d_weight, 2 * padded_}, sum);
  const T count = static_cast<T>(pass.batch_samples);
  for (std::size_t j = 0; j < 2 * padded_; ++j) batch.d_weight[j] = sums[j] / count;
  for_each_column_part(x.rows, width, 16, [&](std::size_t begin, std::size_t cols) {
    kernel.normalization_backward(to.from(begin), columns_of(x, begin, cols),
                                  columns_of(d_y, begin, cols), batch.d_bias + begin,
                                  batch.d_weight + begin, columns_of(d_x, begin, cols));
  });
}

template <class T>
void BatchNorm<T>::backward_leaves(const Pass& pass, std::span<const T> parameters,
                                   MatrixView<const T> x, MatrixView<const T> d_y,
                                   MatrixView<T> d_x, std::span<const SubtreeGradient<T>> subtrees,
                                   std::span<T> scratch) const {
  const Kernels<T>& kernel = kernels<T>();
  for_each_leaf_part(pass, x.rows, x.cols, 16,
                     [&](std::size_t leaf, std::size_t row, std::size_t rows, std::size_t begin,
                         std::size_t cols) {
                       const Group own = group(scratch, leaf);
                       const std::array<std::size_t, 2> bounds{0, rows};
                       // Zeros where it has no rows, which add nothing.
                       kernel.normalization_gradient(normalization(own, parameters).from(begin),
                                                     part_of(x, row, rows, begin, cols),
                                                     part_of(d_y, row, rows, begin, cols), bounds,
                                                     own.d_bias + begin, own.d_weight + begin);
                     });
  if (options_.affine) {
    std::size_t first_leaf = 0;
    for (const SubtreeGradient<T>& subtree : subtrees) {
      const std::size_t leaves = subtree.leaf_rows.size() - 1;
      kernel.bias_gradient(of_groups(scratch, first_leaf, leaves, 3),
                           std::span(kRowEach).first(leaves + 1),
                           subtree.gradient.data() + weight_offset_);
      first_leaf += leaves;
    }
  }
  if (d_x.empty()) return;
  for_each_leaf_part(pass, x.rows, x.cols, 16,
                     [&](std::size_t leaf, std::size_t row, std::size_t rows, std::size_t begin,
                         std::size_t cols) {
                       if (rows == 0) return;
                       const Group own = group(scratch, leaf);
                       const T count = static_cast<T>(rows);
                       for (std::size_t j = begin; j < begin + cols; ++j) {
                         own.d_bias[j] /= count;
                         own.d_weight[j] /= count;
                       }
                       kernel.normalization_backward(normalization(own, parameters).from(begin),
                                                     part_of(x, row, rows, begin, cols),
                                                     part_of(d_y, row, rows, begin, cols),
                                                     own.d_bias + begin, own.d_weight + begin,
                                                     part_of(d_x, row, rows, begin, cols));
                     });
}

template <class T>
void BatchNorm<T>::update_statistics(const Pass& pass, std::span<T> parameters,
                                     std::span<T> scratch) const {
  const bool leaves_apart = options_.scope == NormScope::leaf;
  if (pass.batch_samples < 2 * (leaves_apart ? options_.leaves : 1)) return;
  const Group first = group(scratch, 0);
  std::span<const T> values(first.mean, 2 * padded_);
  T groups = 1;
  if (leaves_apart) {
    std::size_t first_leaf = 0;
    // Backward is done, so its sums' place is free.
    values = sum_over_batch<T>(pass, {first.d_weight, 2 * padded_}, [&](std::size_t i, T* sums) {
      const std::size_t leaves = pass.subtrees[i].size() - 1;
      kernels<T>().bias_gradient(of_groups(scratch, first_leaf, leaves, 1),
                                 std::span(kRowEach).first(leaves + 1), sums);
      first_leaf += leaves;
    });
    groups = static_cast<T>(options_.leaves);
  }
  const T keep = static_cast<T>(1 - options_.momentum);
  const T take = static_cast<T>(options_.momentum);
  T* mean = parameters.last(mean_from_end_).data();
  T* variance = parameters.last(variance_from_end_).data();
  for (std::size_t j = 0; j < this->outputs(); ++j) {
    mean[j] = keep * mean[j] + take * (values[j] / groups);
    variance[j] = keep * variance[j] + take * (values[padded_ + j] / groups);
  }
}

template class BatchNorm<float>;
template class BatchNorm<double>;

}  // namespace lockstep::nn

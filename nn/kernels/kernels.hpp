// The arithmetic of the training step, once per instruction set, chosen when the program starts.
//
// Every kernel is single-threaded work on views; the layers cut work into such calls. What makes a
// result the same bits on every processor, and for any cut of the rows:
//   - kernels vectorise over outputs; a sum over the inner dimension runs in sequence, in blocks of
//     kDepthBlock, each step one fused multiply-add, and the blocks' sums are added in order; that
//     of bfloat16 factors in runs of kRun, as runs-inl.hpp tells; steps that add a product with
//     zero may be left out, which changes no bit while all is finite (steps-inl.hpp);
//   - where a sum must run along a row, it runs over kLanes lanes on every processor, and the lanes
//     are added pairwise at the end;
//   - exp, log and tanh are Highway's polynomials, built of the same IEEE operations everywhere.
// T is float for training and double for checks of gradients. Pointers of rows are aligned to
// kAlignment and rows padded to whole groups of kLanes, unless said otherwise.
// Thread-safe (no state); local; no errors: sizes are the caller's promise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/activation.hpp"
#include "nn/buffer.hpp"
#include "nn/precision.hpp"

namespace lockstep::nn {

// A block of a panel fits into the first-level cache, and a few blocks may be summed side by side.
inline constexpr std::size_t kDepthBlock = 256;

// Panels of one call of product_panels.
inline constexpr std::size_t kPanelsAtOnce = 4;

// Terms of a run, of which sums of bfloat16 factors consist.
inline constexpr std::size_t kRun = 16;

// Rows of a that PairKernels::product_panels may read beyond those that are there.
inline constexpr std::size_t kRowsBeyond = 15;

// A leaf tree is at most this deep.
inline constexpr std::size_t kMaxTreeLevels = 12;
inline constexpr std::size_t kMaxLeaves = std::size_t{1} << kMaxTreeLevels;

// c = activation(a · b + bias), with b stored as depth × cols, or transposed as cols × depth.
template <class T>
struct Product {
  MatrixView<const T> a;     // rows × depth
  const T* b = nullptr;      // any alignment; kLanes elements beyond its last may be read
  std::size_t b_stride = 0;  // elements from one stored row of b to the next
  bool b_transposed = false;
  MatrixView<T> c;                           // rows × cols
  const T* bias = nullptr;                   // cols, read as b is; null: none
  Activation activation = Activation::none;  // all but softmax
  T slope = 0;                               // of leaky_relu
  Precision precision = Precision::float32;  // bfloat16: b is rounded on its way; a is already
  // For PairKernels: b in panels of pairs, and elements from one panel to the next.
  const T* b_pairs = nullptr;
  std::size_t b_panel = 0;
  // In the end c is multiplied by the derivative of this activation, as activation_backward does,
  // where its output is y, rows × cols. Only of float32 factors, and instead of an activation.
  Activation derivative = Activation::none;
  MatrixView<const T> y = {};
};

enum class UpdateRule { sgd, momentum, adagrad, rmsprop, adam, lamb };

// How parameters move in one update. The formulas stand in nn/optimizer.hpp; moments smaller than
// 2^-96 (double: 2^-960) count as zero.
template <class T>
struct Update {
  UpdateRule rule = UpdateRule::sgd;
  bool epsilon_inside_root = false;
  bool penalise_biases = false;
  T* parameters = nullptr;
  T* moment1 = nullptr;  // null where the rule has none
  T* moment2 = nullptr;
  T per_sample = 1;  // 1 / samples: the gradient is multiplied by it, here and nowhere else
  T l1 = 0;          // gradient += l1 sign(w) + l2 w
  T l2 = 0;
  T step_size = 0;  // learning rate; Adam: learning rate / (1 - beta1^t)
  T keep1 = 0;      // share of the old first moment kept
  T take1 = 0;      // share of the gradient taken into it
  T keep2 = 0;      // the same for the second moment and the squared gradient
  T take2 = 0;
  T correction1 = 1;  // LAMB: 1 / (1 - beta1^t), on the first moment; Adam has it in step_size
  T correction2 = 1;  // Adam, LAMB: 1 / (1 - beta2^t), on the second moment
  T epsilon = 0;
  T weight_decay = 0;  // LAMB: direction += weight_decay w

  // The same for the parameters of one tensor, `offset` elements further on.
  Update at(std::size_t offset, bool is_bias) const {
    Update u = *this;
    u.parameters += offset;
    if (moment1 != nullptr) u.moment1 += offset;
    if (moment2 != nullptr) u.moment2 += offset;
    if (is_bias && !penalise_biases) u.l1 = u.l2 = u.weight_decay = 0;
    return u;
  }
};

// Of some parameters, and of the direction that LAMB moves them in.
struct SquaredNorms {
  double parameters = 0;
  double direction = 0;
};

// Where the factors of one leaf's samples stand, from its first sample on (WeightGradient).
template <class T>
struct LeafFactors {
  const T* x = nullptr;
  std::size_t x_strip = 0;
  const T* d_y = nullptr;
  std::size_t d_y_panel = 0;
};

// The gradient of a dense layer's weights over one subtree of leaves: d_weights[i, j] = sum over
// rows m of x[m, i] d_y[m, j], leaf by leaf, leaves in the binary tree. Leaf l of the subtree holds
// rows [leaf_rows[l], leaf_rows[l + 1]); empty leaves are no part of it.
//
// The factors may stand where they are or be packed, so that the sums run through consecutive
// memory. x[m, i] is x[i / tile_inputs * x_strip + m * x_step + i % tile_inputs], and d_y[m, j] is
// d_y[j / panel_width * d_y_panel + m * d_y_step + j % panel_width]. Where the leaves of a subtree
// do not stand together, of_leaf tells of each.
template <class T>
struct WeightGradient {
  const T* x = nullptr;
  std::size_t x_strip = 0, x_step = 0;
  const T* d_y = nullptr;
  std::size_t d_y_panel = 0, d_y_step = 0;
  // Empty, or as many as there are leaves: then x and d_y, the strip and the panel above mean
  // nothing, and the m of a leaf counts from its first sample. Not for few_gradient.
  std::span<const LeafFactors<T>> of_leaf = {};
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::span<const std::size_t> leaf_rows = {};  // 2^k + 1 bounds
  // inputs × outputs, no padding. Written (=), unless there is an update: then d_weights stays as
  // it is, and the parameters move by the gradient at once.
  T* d_weights = nullptr;
  const Update<T>* update = nullptr;
  Precision precision = Precision::float32;  // bfloat16: both factors are rounded already
  // few_gradient asks the processor for the cache lines at these addresses on its way, each part of
  // the inputs for its share.
  std::span<const void* const> upcoming = {};
};

// Columns brought to mean 0 and deviation 1, and from there to what is learnt (nn/batch_norm.hpp):
// n = (x - mean) * inverse, y = n * weight + bias. An element for each column, aligned and padded
// as a row.
template <class T>
struct Normalization {
  const T* mean = nullptr;
  const T* inverse = nullptr;  // 1 / sqrt(variance + epsilon)
  const T* weight = nullptr;   // null: one
  const T* bias = nullptr;     // null: zero

  // The same for the columns from `col` on, a multiple of kLanes.
  Normalization from(std::size_t col) const {
    return {mean + col, inverse + col, weight == nullptr ? nullptr : weight + col,
            bias == nullptr ? nullptr : bias + col};
  }
};

// few_gradient takes 1, 2, 4 or 8 leaves, not all empty. Each has one block of the depth of samples
// at most; of bfloat16 factors, one run.
inline constexpr std::size_t kFewLeaves = 8;

// Products of bfloat16 factors by instructions for pairs of them, where the processor has these:
// the same bits as Kernels gives for the same factors. A pair is an element of T
// (pack-pairs-inl.hpp).
template <class T>
struct PairKernels {
  std::size_t terms_at_once;  // terms are packed in groups of so many, half as many steps
  std::size_t tile_inputs;    // as in Kernels; panels are as wide as there

  // Rows become rows of pairs, the last group of terms filled up with zeros. The factors are
  // rounded already, here and in the packing below.
  void (*pack_pairs)(MatrixView<const T> rows, MatrixView<T> pairs);
  // Rows [p, p + length) of b, at most kDepthBlock from a multiple of that on, become the steps of
  // their terms in `panels` panels of product.b_panel elements each, rounded on their way. `packed`
  // is the first element of the panel `panel`.
  void (*pack_factor)(const Product<T>&, std::size_t p, std::size_t length, std::size_t panel,
                      std::size_t panels, T* packed);
  // As in Kernels, but rows of a are pairs, and b_pairs is b; a.cols is still the depth. Up to
  // kRowsBeyond rows after row_end may be read, for nothing.
  void (*product_panels)(const Product<T>&, std::size_t row_begin, std::size_t row_end,
                         std::size_t panel, std::size_t panels);
  // As in Kernels, with pairs of rows: rows [begin, end), which are of one leaf, become the steps
  // from `step` on. The first step of a leaf stands where its first row would.
  void (*pack_panels)(MatrixView<const T>, std::size_t begin, std::size_t end, std::size_t step,
                      T* packed);
  void (*pack_strips)(MatrixView<const T>, std::size_t begin, std::size_t end, std::size_t step,
                      T* packed);
  void (*weight_gradient)(const WeightGradient<T>&, std::size_t input_begin, std::size_t input_end,
                          std::size_t panel);
};

template <class T>
struct Kernels {
  std::string_view instruction_set;  // "AVX2", "AVX3" (AVX-512), "AVX3_BF16", …
  const PairKernels<T>* pairs;       // null: there are no instructions for bfloat16
  std::size_t panel_width;  // columns of a product or outputs of a weight gradient in a tile
  std::size_t tile_inputs;  // inputs of a weight gradient in a tile

  // Rows [row_begin, row_end) of the columns of `panels` panels, at most kPanelsAtOnce.
  void (*product_panels)(const Product<T>&, std::size_t row_begin, std::size_t row_end,
                         std::size_t panel, std::size_t panels);
  // Rows [begin, end) of the matrix brought into the order that WeightGradient tells of, with steps
  // of panel_width or tile_inputs, and panels or strips of as many steps as the matrix has rows.
  void (*pack_panels)(MatrixView<const T>, std::size_t begin, std::size_t end, T* packed);
  void (*pack_strips)(MatrixView<const T>, std::size_t begin, std::size_t end, T* packed);
  // Inputs [input_begin, input_end) for the outputs of a panel; input_begin is a multiple of
  // tile_inputs, or all of these inputs are of one strip.
  void (*weight_gradient)(const WeightGradient<T>&, std::size_t input_begin, std::size_t input_end,
                          std::size_t panel);
  // The same for a few samples (few-samples-inl.hpp), for inputs [input_begin, input_end) and all
  // outputs. Factors stand where they are: x_strip is tile_inputs, d_y_panel is panel_width. Of x a
  // register beyond input_end may be read. Where plain SGD moves parameters by one sample, those of
  // inputs that are zero may be neither read nor written.
  void (*few_gradient)(const WeightGradient<T>&, std::size_t input_begin, std::size_t input_end);
  // d_bias[i] = sum over rows m of d_y[m, i], in the same tree. d_bias has any alignment.
  void (*bias_gradient)(MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows, T* d_bias);

  // sums[j] = sum over rows m of (x[m, j] - mean[j])^2, in the same tree. sums has any alignment.
  void (*squared_deviations)(MatrixView<const T> x, const T* mean,
                             std::span<const std::size_t> leaf_rows, T* sums);
  // d_bias[j] = sum over rows m of d_y[m, j], d_weight[j] that of d_y[m, j] n[m, j], in the same
  // tree. Both have any alignment.
  void (*normalization_gradient)(const Normalization<T>&, MatrixView<const T> x,
                                 MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows,
                                 T* d_bias, T* d_weight);
  // y = n * weight + bias, row by row.
  void (*normalize)(const Normalization<T>&, MatrixView<const T> x, MatrixView<T> y);
  // d_x = weight * inverse * (d_y - mean_d_y - n * mean_d_y_n), row by row, where what is smaller
  // than 2^-96 counts as zero (see activation_backward). The means are those of d_y and of d_y * n.
  void (*normalization_backward)(const Normalization<T>&, MatrixView<const T> x,
                                 MatrixView<const T> d_y, const T* mean_d_y, const T* mean_d_y_n,
                                 MatrixView<T> d_x);

  // Every element rounded to bfloat16 as nn/precision.hpp tells; NaN stays NaN, and what is too
  // large becomes infinite.
  void (*round_to_bfloat16)(MatrixView<T>);

  // z = activation(z), row by row.
  void (*activate)(Activation, T slope, MatrixView<T> z);
  // d_y *= activation'(y), row by row; softmax: d_y = y (d_y - sum y d_y). What is smaller than
  // 2^-96 (double: 2^-960) counts as zero, here and in the loss's gradient.
  void (*activation_backward)(Activation, T slope, MatrixView<const T> y, MatrixView<T> d_y);

  // Cross-entropy of softmax(z) against a class. loss[m] = -log softmax(z[m])[label[m]];
  // d_z[m] = softmax(z[m]) - one_hot(label[m]) unless d_z is empty.
  void (*cross_entropy)(MatrixView<const T> z, const std::int32_t* labels, T* loss,
                        MatrixView<T> d_z);
  // loss[m] = sum_j (y[m,j] - t[m,j])^2 / cols; d_y = 2 (y - t) / cols unless d_y is empty.
  void (*mean_squared_error)(MatrixView<const T> y, MatrixView<const T> t, T* loss,
                             MatrixView<T> d_y);

  // Moves `count` consecutive parameters by their gradient's sum over the batch; count is a
  // multiple of kLanes.
  void (*update)(const Update<T>&, const T* gradient, std::size_t count);
  // The two halves of LAMB, which `update` does not know: between them the norms of whole tensors
  // become a part of step_size. The first takes the gradient into the moments, the second moves the
  // parameters in the direction that follows from these. count is a multiple of kLanes.
  SquaredNorms (*lamb_moments)(const Update<T>&, const T* gradient, std::size_t count);
  void (*lamb_move)(const Update<T>&, std::size_t count);
  // Sum of (scale * v)^2, added up over kLanes lanes in T; count is a multiple of kLanes.
  double (*sum_of_squares)(const T* values, std::size_t count, T scale);

  // Natural logarithm of one positive number, the same bits everywhere (libm's are not).
  T (*log)(T);
};

// The kernels for this processor's best instruction set that is allowed (see below). Throws
// std::runtime_error on a processor without fused multiply-add.
template <class T>
const Kernels<T>& kernels();

// The instruction sets built in that this processor has, best first. Not while samples are decoded,
// which asks Highway too.
std::vector<std::string> available_instruction_sets();

// Holds the choice at `name` from now on ("AVX2"), for tests of the contract, and with it all that
// Highway chooses in this process, the decoding of samples too. Not thread-safe: call before any
// other use. Throws std::invalid_argument, naming what there is.
void hold_instruction_set(std::string_view name);

}  // namespace lockstep::nn

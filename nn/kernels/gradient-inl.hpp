// Gradients of weights and biases, in register tiles. Included once per instruction set.
#if defined(LOCKSTEP_NN_GRADIENT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_GRADIENT_INL
#undef LOCKSTEP_NN_GRADIENT_INL
#else
#define LOCKSTEP_NN_GRADIENT_INL
#endif

#include <hwy/highway.h>

#include <limits>

#include "nn/kernels/leaves-inl.hpp"
#include "nn/kernels/runs-inl.hpp"
#include "nn/kernels/tile-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Whether such a tile asks for a row of what will be written at each step, or for some at each
// leaf.
template <class Terms, std::size_t kRows>
inline constexpr bool kAsksBySteps = kRows == Terms::kRows;
inline constexpr std::size_t kRowsAskedByLeaf = 3;

// A tile of up to so many samples asks for what the next panel's will write: memory, or another
// core's cache, may take longer to answer than its own products do, and gives the lines of a row
// fastest one after the other. Of more samples, what is asked for so early has been driven out of
// the first-level cache again until it is written.
inline constexpr std::size_t kMostSamplesToAskAhead = 256;

// Sums the products over the samples of one leaf, in blocks: of kDepthBlock terms, which most
// leaves are shorter than, or of two runs. The first step of a leaf stands where its first row
// would, also where steps are fewer than rows. `meanwhile` is called for half of the steps or more,
// or, by tiles of fewer rows, whose leaves may be short, kRowsAskedByLeaf times a leaf.
//
// In a tile `input` and `panel` are the first of what it sums.
template <class T, class Terms, class Meanwhile>
struct LeafProducts {
  static constexpr std::size_t kNodes = Terms::kInRuns ? 2 : 1;
  static constexpr std::size_t kBlock =
      Terms::kInRuns ? kTwoRuns<Terms> : steps_of<Terms>(kDepthBlock);  // steps

  HWY_INLINE LeafProducts(const WeightGradient<T>& gradient, std::size_t first_input,
                          std::size_t of_panel, const Meanwhile& call)
      : job(gradient),
        x(gradient.x + first_input / kTileRows * gradient.x_strip + first_input % kTileRows),
        x_step(gradient.x_step),
        d_y(gradient.d_y + of_panel * gradient.d_y_panel),
        d_y_step(gradient.d_y_step),
        together(gradient.of_leaf.empty()),
        input(first_input),
        panel(of_panel),
        meanwhile(call) {}

  const WeightGradient<T>& job;
  const T* x;  // and d_y: of the first sample, where all stand together
  std::size_t x_step;
  const T* d_y;
  std::size_t d_y_step;
  bool together;
  std::size_t input;
  std::size_t panel;
  Meanwhile meanwhile;

  // Of the sample `begin`, the first of the leaf.
  HWY_INLINE TileFactors<T, Terms> factors(std::size_t leaf, std::size_t begin) const {
    if (HWY_LIKELY(together)) {
      return {x + begin * x_step, 1, x_step, d_y + begin * d_y_step, d_y_step, 0};
    }
    const LeafFactors<T>& own = job.of_leaf[leaf];
    return {own.x + input / kTileRows * own.x_strip + input % kTileRows,
            1,
            x_step,
            own.d_y + panel * own.d_y_panel,
            d_y_step,
            0};
  }

  template <std::size_t kRows, std::size_t kVectors>
  HWY_INLINE void operator()(std::size_t leaf, std::size_t begin, std::size_t end,
                             Tile<T, kRows, kVectors>& node) const {
    constexpr std::size_t kColumns = Tile<T, kRows, kVectors>::kColumns;
    if constexpr (!kAsksBySteps<Terms, kRows>) {
      LOCKSTEP_UNROLL for (std::size_t i = 0; i < kRowsAskedByLeaf; ++i) meanwhile();
    }
    const TileFactors<T, Terms> first = factors(leaf, begin);
    const std::size_t steps = steps_of<Terms>(end - begin);
    sum_one_block(std::min(steps, kBlock), first, node);
    for (std::size_t step = kBlock; step < steps; step += kBlock) {
      alignas(kAlignment) T before[kRows * kColumns];
      node.store(before, kColumns);
      sum_one_block(std::min(steps - step, kBlock), first.from(step), node);
      node.add(before, kColumns);
    }
  }

  template <std::size_t kRows, std::size_t kVectors>
  HWY_INLINE void sum_one_block(std::size_t steps, const TileFactors<T, Terms>& factors,
                                Tile<T, kRows, kVectors>& node) const {
    const auto each_step = [this]() LOCKSTEP_LAMBDA {
      if constexpr (kAsksBySteps<Terms, kRows>) meanwhile();
    };
    if constexpr (Terms::kInRuns) {
      sum_two_runs(steps, factors, node, each_step);
    } else {
      node.template multiply<Rows::packed>(EveryStep{steps}, factors, each_step);
    }
  }
};

// No place in the weights.
inline constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

// Calls f(values) for everything that use_gradient() is about to write.
template <class T, class F>
HWY_INLINE void for_each_written(const WeightGradient<T>& job, const F& f) {
  if (job.update == nullptr) return f(job.d_weights);
  for (const T* values : {job.update->parameters, job.update->moment1, job.update->moment2}) {
    if (values != nullptr) f(values);
  }
}

// The lines that a tile of kRows inputs, the first of its weights at `at`, will write; none where
// that is kNowhere. Rows of weights are far apart, and another core may have used them last: they
// come, to be one's own, while products are summed. They are asked for row by row: many at once
// would hold up the factors that are read then. On x86-64 they come into the first-level cache (a
// Haswell ignores it), on aarch64 into the second.
template <std::size_t kRows, std::size_t kColumns, class T>
class LinesToWrite {
 public:
  HWY_INLINE LinesToWrite(const WeightGradient<T>& job, std::size_t at) {
    if (at == kNowhere) return;
    for_each_written(job, [&](const T* values) LOCKSTEP_LAMBDA {
      for (std::size_t r = 0; r < kRows; ++r) *end_++ = values + at + r * job.outputs;
    });
  }
  LinesToWrite(const LinesToWrite&) = delete;
  LinesToWrite& operator=(const LinesToWrite&) = delete;

  HWY_INLINE void ask_for_row() {
    if (next_ == end_) return;
    const T* row = *next_++;
    // By its last element: of rows that begin within a line, the line before was the last panel's.
    LOCKSTEP_UNROLL for (std::size_t j = kLine; j < kColumns + kLine; j += kLine) {
      __builtin_prefetch(row + std::min(j, kColumns) - 1, 1, 2);
    }
  }

  // Leaves no more than `steps` rows to ask for.
  HWY_INLINE void ask_for_all_but(std::size_t steps) {
    while (static_cast<std::size_t>(end_ - next_) > steps) ask_for_row();
  }

 private:
  static constexpr std::size_t kLine = kAlignment / sizeof(T);

  const T* rows_[3 * kRows];
  const T** next_ = rows_;
  const T** end_ = rows_;
};

// The gradient of `rows` by `cols` weights, the first of them at `at`, is written, or they move by
// it. Whole registers may be read from its rows.
template <class T>
void use_gradient(const WeightGradient<T>& job, const T* gradient, std::size_t rows,
                  std::size_t stride, std::size_t cols, std::size_t at) {
  if (job.update != nullptr) {
    return update_rows(*job.update, gradient, rows, stride, cols, at, job.outputs);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    std::copy_n(gradient + r * stride, cols, job.d_weights + at + r * job.outputs);
  }
}

// kRows inputs, from `input` on, by kVectors registers of one panel. Meanwhile it asks for the
// lines of such a tile whose first weight is at `asked`, of none where that is kNowhere.
template <class Terms, std::size_t kRows, std::size_t kVectors, class T>
void gradient_tile(const WeightGradient<T>& job, std::size_t input, std::size_t panel,
                   std::size_t asked) {
  Tile<T, kRows, kVectors> tile;
  const std::size_t col = panel * kPanel<T>;
  const std::size_t at = input * job.outputs + col;
  const std::size_t cols = std::min(tile.kColumns, job.outputs - col);
  const LeafRows leaves(job.leaf_rows);
  LinesToWrite<kRows, tile.kColumns, T> lines(job, asked);
  lines.ask_for_all_but(kAsksBySteps<Terms, kRows>
                            ? leaves.rows() / Terms::kTerms / (Terms::kInRuns ? 2 : 1)
                            : kRowsAskedByLeaf * leaves.count());
  const auto ask_for_row = [&lines]() LOCKSTEP_LAMBDA { lines.ask_for_row(); };
  const LeafProducts<T, Terms, decltype(ask_for_row)> sum_rows(job, input, panel, ask_for_row);
  sum_leaves(leaves, sum_rows, tile);

  if (job.update == nullptr && cols == tile.kColumns) {
    tile.store(job.d_weights + at, job.outputs);
    return;
  }
  alignas(kAlignment) T gradient[kRows * tile.kColumns];
  tile.store(gradient, tile.kColumns);
  if (cols == tile.kColumns) {
    update_rows<kRows, tile.kColumns>(*job.update, gradient, kRows, tile.kColumns, cols, at,
                                      job.outputs);
  } else {
    use_gradient(job, gradient, kRows, tile.kColumns, cols, at);
  }
}

// The rows of the tile that takes what a tile of so many rows leaves. A step of four or fewer takes
// as long, since each sum waits for the one before.
constexpr std::size_t rows_of_smaller_tile(std::size_t rows) {
  return rows > 6 ? rows / 2 : rows == 6 ? 4 : rows - 1;
}

// The first weight of the same tile in the next panel, whose lines are the next ones of its rows;
// or, behind the last panel, of one in the first, from `next_input` on.
template <std::size_t kRows, class T>
std::size_t next_place(const WeightGradient<T>& job, std::size_t input, std::size_t panel,
                       std::size_t next_input) {
  const std::size_t col = (panel + 1) * kPanel<T>;
  if (col < job.outputs) return input * job.outputs + col;
  return next_input + kRows <= job.inputs ? next_input * job.outputs : kNowhere;
}

// Inputs [begin, end) in tiles of kRows, then what is left in smaller ones.
template <class Terms, std::size_t kRows, std::size_t kVectors, class T>
HWY_INLINE void gradient_tiles(const WeightGradient<T>& job, std::size_t begin, std::size_t end,
                               std::size_t panel) {
  const std::size_t samples = job.leaf_rows.back() - job.leaf_rows.front();
  const std::size_t tiles = (end - begin) / kRows;
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    const std::size_t input = begin + tile * kRows;
    const std::size_t asked = samples > kMostSamplesToAskAhead
                                  ? input * job.outputs + panel * kPanel<T>
                                  : next_place<kRows>(job, input, panel, end + tile * kRows);
    gradient_tile<Terms, kRows, kVectors>(job, input, panel, asked);
  }
  if constexpr (kRows > 1) {
    begin += tiles * kRows;
    if (begin == end) return;
    gradient_tiles<Terms, rows_of_smaller_tile(kRows), kVectors>(job, begin, end, panel);
  }
}

// Tiles of half or a quarter of the rows keep the sums of several leaves in registers, but read
// each derivative twice or four times. That pays with so many samples a leaf or fewer, where there
// are
// 32 registers; half of 16 would be too few sums to keep the multiply-adds busy. Three rows are
// the fewest that are worth loading a step's derivatives for. The whole tile of sums in runs has
// half the rows, so for them halves change nothing.
inline constexpr std::size_t kSamplesForHalves = 32;
inline constexpr std::size_t kSamplesForQuarters = 4;
inline constexpr bool kRoomForLeaves = kTileRows * kTileVectors >= 24;
inline constexpr std::size_t kHalfRows = kRoomForLeaves ? kTileRows / 2 : kTileRows;
inline constexpr std::size_t kQuarterRows =
    kRoomForLeaves ? std::max<std::size_t>(3, kTileRows / 4) : kTileRows;

template <class Terms, class T>
void weight_gradient_of(const WeightGradient<T>& job, std::size_t input_begin,
                        std::size_t input_end, std::size_t panel) {
  constexpr std::size_t kHalf = std::min(Terms::kRows, kHalfRows);
  constexpr std::size_t kQuarter = std::min(Terms::kRows, kQuarterRows);
  const std::size_t leaves = job.leaf_rows.size() - 1;
  const std::size_t samples = job.leaf_rows.back() - job.leaf_rows.front();
  if (job.outputs - panel * kPanel<T> <= kRegister<T>) {
    gradient_tiles<Terms, Terms::kRows, 1>(job, input_begin, input_end, panel);
  } else if (leaves == 1 || samples > kSamplesForHalves * leaves) {
    gradient_tiles<Terms, Terms::kRows, kTileVectors>(job, input_begin, input_end, panel);
  } else if (samples > kSamplesForQuarters * leaves) {
    gradient_tiles<Terms, kHalf, kTileVectors>(job, input_begin, input_end, panel);
  } else {
    gradient_tiles<Terms, kQuarter, kTileVectors>(job, input_begin, input_end, panel);
  }
}

template <class T>
void weight_gradient(const WeightGradient<T>& job, std::size_t input_begin, std::size_t input_end,
                     std::size_t panel) {
  if (job.precision == Precision::bfloat16) {
    weight_gradient_of<Runs>(job, input_begin, input_end, panel);
  } else {
    weight_gradient_of<Singles>(job, input_begin, input_end, panel);
  }
}

// The bias is a weight whose input is one: the same tree over a column of ones.
template <class T>
void bias_gradient(MatrixView<const T> d_y, std::span<const std::size_t> leaf_rows, T* d_bias) {
  using Sum = Tile<T, 1, kRegisters<T>>;
  for (std::size_t col = 0; col < d_y.cols; col += kLanes) {
    const auto add_row = [&](std::size_t row, Sum& sum)
                             LOCKSTEP_LAMBDA { sum.add(d_y.row(row) + col, 0); };
    Sum sum;
    sum_leaves(LeafRows(leaf_rows), LeafColumns<decltype(add_row)>{add_row}, sum);
    alignas(kAlignment) T lanes[kLanes];
    sum.store(lanes, kLanes);
    std::copy_n(lanes, std::min(kLanes, d_y.cols - col), d_bias + col);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// The weight gradient of a few samples: stochastic descent and small batches. Included once per
// instruction set.
//
// With so few samples there is little to multiply, and what takes time is the tree: its branches,
// and partial sums on their way to memory and back. So nothing is packed; the tree over up to
// kFewLeaves leaves is straight-line code whose partial sums stay in registers, in tiles that are
// the larger the fewer leaves there are; and an absent leaf is -0, which as a summand changes
// nothing, not even the sign of a zero.
#if defined(LOCKSTEP_NN_FEW_SAMPLES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_FEW_SAMPLES_INL
#undef LOCKSTEP_NN_FEW_SAMPLES_INL
#else
#define LOCKSTEP_NN_FEW_SAMPLES_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/tile-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// The samples, one after the other.
template <class T>
struct FewSamples {
  HWY_INLINE explicit FewSamples(const WeightGradient<T>& job)
      : x(job.x + job.leaf_rows.front() * job.x_step),
        d_y(job.d_y + job.leaf_rows.front() * job.d_y_step),
        x_step(job.x_step),
        d_y_step(job.d_y_step) {
    for (std::size_t l = 0; l + 1 < job.leaf_rows.size(); ++l) {
      in_leaf[l] = static_cast<std::uint32_t>(job.leaf_rows[l + 1] - job.leaf_rows[l]);
    }
  }

  const T* x;
  const T* d_y;
  std::size_t x_step, d_y_step;
  std::uint32_t in_leaf[kFewLeaves];  // samples of each leaf
};

// Asks the processor for cache lines while inputs go by, a few now and then: asked for all at once
// they would wait for one another, and the inputs with them.
class Upcoming {
 public:
  // The share of inputs [begin, end) of all `inputs`.
  HWY_INLINE Upcoming(std::span<const void* const> lines, std::size_t begin, std::size_t end,
                      std::size_t inputs) {
    if (lines.empty()) return;
    next_ = lines.data() + begin * lines.size() / inputs;
    end_ = lines.data() + end * lines.size() / inputs;
  }

  // How many to ask for with every `inputs` of those that are left.
  HWY_INLINE std::size_t lines_for(std::size_t inputs, std::size_t left) const {
    if (next_ == end_ || left == 0) return 0;
    return (static_cast<std::size_t>(end_ - next_) * inputs + left - 1) / left;
  }

  HWY_INLINE void ask(std::size_t lines) {
    for (; lines > 0 && next_ != end_; --lines) __builtin_prefetch(*next_++);
  }

  HWY_INLINE void ask_for_rest() { ask(static_cast<std::size_t>(end_ - next_)); }

 private:
  const void* const* next_ = nullptr;
  const void* const* end_ = nullptr;
};

// kRows inputs by kVectors registers of outputs.
template <class T, std::size_t kRows, std::size_t kVectors>
struct OuterTile : Tile<T, kRows, kVectors> {
  // sum = xᵀ d_y + sum for one sample.
  HWY_INLINE void accumulate(const T* x, const T* d_y) {
    const Tag<T> d;
    // The next tile begins a line earlier, or half of one; that of a short tile the processor finds
    // by itself.
    if constexpr (kRows >= 8) __builtin_prefetch(x - kAlignment / sizeof(T));
    Vector<T> factor[kVectors];
    unrolled<kVectors>([&](auto v)
                           LOCKSTEP_LAMBDA { factor[v] = hn::LoadU(d, d_y + v * kRegister<T>); });
    this->for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                       LOCKSTEP_LAMBDA { s = hn::MulAdd(hn::Set(d, x[r]), factor[v], s); });
  }
};

// sum = the sum over leaves [kFirst, kFirst + kLeaves), -0 where all are absent. `samples` goes on
// to what follows them.
template <std::size_t kFirst, std::size_t kLeaves, class T, class Tile>
HWY_INLINE void sum_few(FewSamples<T>& samples, const std::uint32_t* in_leaf, Tile& sum) {
  if constexpr (kLeaves == 1) {
    std::uint32_t left = in_leaf[kFirst];
    if (left == 0) return sum.fill(-T{0});
    sum.clear();
    do {
      sum.accumulate(samples.x, samples.d_y);
      samples.x += samples.x_step;
      samples.d_y += samples.d_y_step;
    } while (--left > 0);
  } else {
    Tile left;
    sum_few<kFirst, kLeaves / 2>(samples, in_leaf, left);
    sum_few<kFirst + kLeaves / 2, kLeaves / 2>(samples, in_leaf, sum);
    sum.add(left);
  }
}

// What becomes of the gradient of a tile: it is written, …
template <class T>
struct WriteGradient {
  static constexpr bool kMayRest = false;

  T* d_weights;

  template <class Access>
  HWY_INLINE void operator()(Vector<T> gradient, std::size_t at, Access access) const {
    access.store(gradient, d_weights + at);
  }
};

// … or parameters move by it.
template <class Mover, class T>
struct MoveParameters {
  static constexpr bool kMayRest = Mover::kMayRest;

  Mover mover;
  Update<T> u;

  HWY_INLINE bool rests() const { return mover.rests(); }

  template <class Access>
  HWY_INLINE void operator()(Vector<T> gradient, std::size_t at, Access access) const {
    mover.move(gradient, u.parameters + at, advance(u.moment1, at), advance(u.moment2, at), access);
  }
};

// kRows inputs from `input` on, by kVectors registers of outputs from `output` on, all of them or,
// of one register, a part.
template <std::size_t kLeaves, std::size_t kRows, std::size_t kVectors, class T, class Use,
          class Access = Whole>
HWY_INLINE void few_tile(const FewSamples<T>& samples, std::size_t outputs, std::size_t input,
                         std::size_t output, const Use& use, Access access = {}) {
  OuterTile<T, kRows, kVectors> tile;
  FewSamples<T> here = samples;
  here.x += input;
  here.d_y += output;
  sum_few<0, kLeaves>(here, samples.in_leaf, tile);
  const std::size_t at = input * outputs + output;
  tile.for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                    LOCKSTEP_LAMBDA { use(s, at + r * outputs + v * kRegister<T>, access); });
}

// All outputs of kRows inputs.
template <std::size_t kLeaves, std::size_t kRows, class T, class Use>
HWY_INLINE void few_row(const FewSamples<T>& samples, std::size_t outputs, std::size_t input,
                        const Use& use) {
  constexpr std::size_t kWide = 2 * kRegister<T>;
  std::size_t begin = 0;
  for (; outputs - begin >= kWide; begin += kWide) {
    few_tile<kLeaves, kRows, 2>(samples, outputs, input, begin, use);
  }
  if (outputs - begin >= kRegister<T>) {
    few_tile<kLeaves, kRows, 1>(samples, outputs, input, begin, use);
    begin += kRegister<T>;
  }
  if (begin < outputs) {
    few_tile<kLeaves, kRows, 1>(samples, outputs, input, begin, use, Part{outputs - begin});
  }
}

// Registers of a tile: a tree has as many tiles under way as it has levels.
inline constexpr std::size_t kSumsOfOneLeaf = kTileRows < 12 ? 8 : 16;
template <std::size_t kLeaves>
inline constexpr std::size_t kSumsOf = std::max<std::size_t>(4, kSumsOfOneLeaf / kLeaves);

// kRows inputs at a time as long as there are so many, then half as many, and so on.
template <std::size_t kLeaves, std::size_t kRows, class T, class Use>
HWY_INLINE void few_rows(const FewSamples<T>& samples, std::size_t outputs, std::size_t input_begin,
                         std::size_t input_end, Upcoming& upcoming, const Use& use) {
  const std::size_t lines = upcoming.lines_for(kRows, input_end - input_begin);
  for (; input_end - input_begin >= kRows; input_end -= kRows) {
    upcoming.ask(lines);
    few_row<kLeaves, kRows>(samples, outputs, input_end - kRows, use);
  }
  if constexpr (kRows > 1) {
    if (input_end == input_begin) return;
    few_rows<kLeaves, kRows / 2>(samples, outputs, input_begin, input_end, upcoming, use);
  }
}

// From the last input to the first: the forward product went from the first to the last, so those
// at the end are still in the nearest cache, and those at the start will be for the next forward.
// Not inlined, so that each has the registers to itself; `use` by value, so that it is in them.
template <std::size_t kLeaves, class T, class Use>
HWY_NOINLINE void few_gradient_of(const WeightGradient<T>& job, FewSamples<T> samples,
                                  std::size_t input_begin, std::size_t input_end, Use use) {
  constexpr std::size_t kSums = kSumsOf<kLeaves>;
  const std::size_t outputs = job.outputs;
  Upcoming upcoming(job.upcoming, input_begin, input_end, job.inputs);
  if (outputs == kRegister<T>) {
    const std::size_t lines = upcoming.lines_for(kSums, input_end - input_begin);
    for (; input_end - input_begin >= kSums; input_end -= kSums) {
      upcoming.ask(lines);
      few_tile<kLeaves, kSums, 1>(samples, outputs, input_end - kSums, 0, use);
    }
    if (input_end == input_begin) return;
  }
  few_rows<kLeaves, kSums / 2>(samples, outputs, input_begin, input_end, upcoming, use);
}

// So many outputs repay looking for zeros, as measured.
template <class T>
inline constexpr std::size_t kWorthResting = 2 * kPanel<T>;

// Of one sample, where the weights of inputs that are zero stay as they are, and are not even read.
template <class T, class Use>
HWY_NOINLINE void gradient_of_one(const WeightGradient<T>& job, const FewSamples<T> sample,
                                  std::size_t input_begin, std::size_t input_end, Use use) {
  const Tag<T> d;
  const std::size_t outputs = job.outputs;
  while (input_begin < input_end) {
    const std::size_t block = input_end - std::min(kDepthBlock, input_end - input_begin);
    const NonzeroPlaces<T> nonzero(sample.x + block, input_end - block);
    Upcoming upcoming(job.upcoming, block, input_end, job.inputs);
    const std::size_t lines = upcoming.lines_for(1, nonzero.count());
    for (std::size_t i = nonzero.count(); i-- > 0;) {
      upcoming.ask(lines);
      const std::size_t input = block + nonzero[i];
      const Vector<T> x = hn::Set(d, sample.x[input]);
      const auto use_register = [&](std::size_t j, auto access) LOCKSTEP_LAMBDA {
        use(hn::MulAdd(x, access.load(sample.d_y + j), hn::Zero(d)), input * outputs + j, access);
      };
      std::size_t j = 0;
      for (; j + kRegister<T> <= outputs; j += kRegister<T>) use_register(j, Whole());
      if (j < outputs) use_register(j, Part{outputs - j});
    }
    upcoming.ask_for_rest();
    input_end = block;
  }
}

template <class T, class Use>
HWY_INLINE void few_gradient_by(const WeightGradient<T>& job, std::size_t input_begin,
                                std::size_t input_end, const Use& use) {
  const FewSamples<T> samples(job);
  if constexpr (Use::kMayRest) {
    const bool one = job.leaf_rows.back() - job.leaf_rows.front() == 1;
    if (job.outputs >= kWorthResting<T> && one && use.rests()) {
      return gradient_of_one(job, samples, input_begin, input_end, use);
    }
  }
  // A function for each number that there may be: kFewLeaves at most, a power of two.
  const std::size_t leaves = job.leaf_rows.size() - 1;
  if (leaves == 1) return few_gradient_of<1>(job, samples, input_begin, input_end, use);
  if (leaves == 2) return few_gradient_of<2>(job, samples, input_begin, input_end, use);
  if (leaves == 4) return few_gradient_of<4>(job, samples, input_begin, input_end, use);
  few_gradient_of<kFewLeaves>(job, samples, input_begin, input_end, use);
}

template <class T>
void few_gradient(const WeightGradient<T>& job, std::size_t input_begin, std::size_t input_end) {
  if (job.update == nullptr) {
    return few_gradient_by(job, input_begin, input_end, WriteGradient<T>{job.d_weights});
  }
  with_mover(*job.update, [&](const auto& mover) LOCKSTEP_LAMBDA {
    few_gradient_by(job, input_begin, input_end,
                    MoveParameters<std::remove_cvref_t<decltype(mover)>, T>{mover, *job.update});
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

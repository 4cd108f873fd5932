// Sums of products in registers. Included once per instruction set.
#if defined(LOCKSTEP_NN_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_TILE_INL
#undef LOCKSTEP_NN_TILE_INL
#else
#define LOCKSTEP_NN_TILE_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/lanes-inl.hpp"
#include "nn/kernels/steps-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// A tile of kTileRows × kTileVectors registers is summed at once: as many as the processor has,
// less those that hold the factors. Its shape decides speed only, never a bit.
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
inline constexpr std::size_t kTileRows = 12;
inline constexpr std::size_t kTileVectors = 2;
#elif HWY_ARCH_X86
inline constexpr std::size_t kTileRows = 6;
inline constexpr std::size_t kTileVectors = 2;
#else
inline constexpr std::size_t kTileRows = 6;
inline constexpr std::size_t kTileVectors = 4;
#endif

template <class T>
inline constexpr std::size_t kPanel = kTileVectors* kRegister<T>;  // columns of a tile

// What one element of a packed factor is: a factor, so that a step of a tile adds one term to every
// sum, or as in pairs-inl.hpp two of them.
struct Singles {
  static constexpr std::size_t kTerms = 1;  // of a step
  static constexpr std::size_t kGroup = 1;  // terms that are packed together, with zeros if need be
  static constexpr bool kInRuns = false;    // how sums go: in sequence, or as in runs-inl.hpp
  static constexpr std::size_t kRows = kTileRows;  // of the largest tile

  // sum + a b
  template <class V>
  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }
};

// Steps that take in so many terms.
template <class Terms>
constexpr std::size_t steps_of(std::size_t terms) {
  return (terms + Terms::kGroup - 1) / Terms::kGroup * (Terms::kGroup / Terms::kTerms);
}

// As kStepsAhead, for what may not be in the second-level cache, and is brought into it.
inline constexpr std::size_t kStepsFarAhead = 40;

// Whether rows of a come packed, one step of all of them after the other.
enum class Rows { apart, packed };
// Whether those of b are to be used alone, or to be packed on their way.
enum class Columns { to_be_used, to_be_packed };

// What is done beside the sums, once a step.
struct Nothing {
  HWY_INLINE void operator()() const {}
};

// The factors of a tile: element (r, p) of a is a[r * a_row + p * a_step]; register v of row p of b
// is at b + p * b_step + (v / kTileVectors) * b_panel + (v % kTileVectors) * kRegister.
template <class T, class Terms = Singles>
struct TileFactors {
  const T* a;
  std::size_t a_row, a_step;
  const T* b;
  std::size_t b_step;
  std::size_t b_panel;  // for tiles wider than a panel

  // The same from a later step on.
  HWY_INLINE TileFactors from(std::size_t step) const {
    return {a + step * a_step, a_row, a_step, b + step * b_step, b_step, b_panel};
  }
};

template <class T, std::size_t kRows, std::size_t kVectors>
struct Tile {
  static constexpr std::size_t kColumns = kVectors * kRegister<T>;

  Vector<T> sum[kRows][kVectors];

  // f(register, row, place in the row) for every register.
  template <class F>
  HWY_INLINE void for_each(const F& f) {
    unrolled<kRows * kVectors>([&](auto i) LOCKSTEP_LAMBDA {
      f(sum[i / kVectors][i % kVectors], i / kVectors, i % kVectors);
    });
  }

  HWY_INLINE void clear() {
    for_each([](Vector<T>& s, std::size_t, std::size_t)
                 LOCKSTEP_LAMBDA { s = hn::Zero(Tag<T>()); });
  }

  HWY_INLINE void fill(T value) {
    for_each([&](Vector<T>& s, std::size_t, std::size_t)
                 LOCKSTEP_LAMBDA { s = hn::Set(Tag<T>(), value); });
  }

  // sum[r, :] = sum over the steps p of a[r, p] b[p, :], in sequence. Rows of a are reached from
  // every third one, which spares address registers. Columns to be packed are one panel, and are
  // copied to `packed`.
  template <Rows kRowsOfA = Rows::apart, Columns kColumnsOfB = Columns::to_be_used, class Steps,
            class Terms, class Meanwhile = Nothing>
  HWY_INLINE void multiply(Steps steps, const TileFactors<T, Terms>& factors,
                           Meanwhile meanwhile = {}, T* HWY_RESTRICT packed = nullptr) {
    const Tag<T> d;
    constexpr bool kPacksB = kColumnsOfB == Columns::to_be_packed;
    constexpr std::size_t kBases = (kRows + 2) / 3;
    constexpr std::size_t kPanels = (kVectors + kTileVectors - 1) / kTileVectors;
    const std::size_t a_row = factors.a_row;
    const T* HWY_RESTRICT a[kBases];
    const T* HWY_RESTRICT b[kPanels];
    const TileFactors<T, Terms> begin = factors.from(steps.first());
    unrolled<kBases>([&](auto i) LOCKSTEP_LAMBDA { a[i] = begin.a + 3 * i * a_row; });
    unrolled<kPanels>([&](auto i) LOCKSTEP_LAMBDA { b[i] = begin.b + i * factors.b_panel; });
    clear();
    for (std::size_t p = 0; p < steps.count; ++p) {
      Vector<T> factor[kVectors];
      unrolled<kVectors>([&](auto v) LOCKSTEP_LAMBDA {
        constexpr std::size_t kPlace = (v % kTileVectors) * kRegister<T>;
        const T* at = b[v / kTileVectors] + kPlace;
        factor[v] = hn::LoadU(d, at);
        if constexpr (kPacksB) hn::StoreU(factor[v], d, packed + kPlace);
        if constexpr (kPlace * sizeof(T) % kAlignment == 0) {  // once a cache line
          __builtin_prefetch(at + steps.ahead(p) * factors.b_step);
          if constexpr (kPacksB) __builtin_prefetch(at + kStepsFarAhead * factors.b_step, 0, 2);
        }
      });
      if constexpr (kRowsOfA == Rows::packed) {
        __builtin_prefetch(a[0] + 2 * kStepsAhead * factors.a_step);
      }
      meanwhile();
      unrolled<kRows>([&](auto r) LOCKSTEP_LAMBDA {
        const Vector<T> broadcast = hn::Set(d, a[r / 3][(r % 3) * a_row]);
        unrolled<kVectors>([&](auto v) LOCKSTEP_LAMBDA {
          sum[r][v] = Terms::multiply_add(broadcast, factor[v], sum[r][v]);
        });
      });
      const std::size_t on = steps.to_next(p);
      unrolled<kBases>([&](auto i) LOCKSTEP_LAMBDA { a[i] += on * factors.a_step; });
      unrolled<kPanels>([&](auto i) LOCKSTEP_LAMBDA { b[i] += on * factors.b_step; });
      if constexpr (kPacksB) packed += kPanel<T>;
    }
  }

  // sum += a[:, p] b[p, :]
  template <class Terms>
  HWY_INLINE void accumulate(const TileFactors<T, Terms>& factors, std::size_t p) {
    const Tag<T> d;
    const T* a = factors.a + p * factors.a_step;
    const T* b = factors.b + p * factors.b_step;
    Vector<T> factor[kVectors];
    unrolled<kVectors>([&](auto v) LOCKSTEP_LAMBDA {
      factor[v] = hn::LoadU(
          d, b + (v / kTileVectors) * factors.b_panel + (v % kTileVectors) * kRegister<T>);
    });
    for_each([&](Vector<T>& s, std::size_t r, std::size_t v) LOCKSTEP_LAMBDA {
      s = Terms::multiply_add(hn::Set(d, a[r * factors.a_row]), factor[v], s);
    });
  }

  // A sum that is -0, as of a product too small for any other number, becomes +0.
  HWY_INLINE void make_zeros_positive() {
    for_each([](Vector<T>& s, std::size_t, std::size_t)
                 LOCKSTEP_LAMBDA { s = hn::Add(s, hn::Zero(Tag<T>())); });
  }

  // sum = c + sum, where register v of row r of c is at c + r * c_row + v * kRegister.
  HWY_INLINE void add(const T* c, std::size_t c_row) {
    for_each([&](Vector<T>& s, std::size_t r, std::size_t v) LOCKSTEP_LAMBDA {
      s = hn::Add(hn::LoadU(Tag<T>(), c + r * c_row + v * kRegister<T>), s);
    });
  }

  // sum = other + sum
  HWY_INLINE void add(const Tile& other) {
    for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                 LOCKSTEP_LAMBDA { s = hn::Add(other.sum[r][v], s); });
  }

  HWY_INLINE void load(const T* c, std::size_t c_row) {
    for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                 LOCKSTEP_LAMBDA { s = hn::LoadU(Tag<T>(), c + r * c_row + v * kRegister<T>); });
  }

  HWY_INLINE void store(T* c, std::size_t c_row) {
    for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                 LOCKSTEP_LAMBDA { hn::StoreU(s, Tag<T>(), c + r * c_row + v * kRegister<T>); });
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// The weight gradient of a few samples: stochastic descent and small batches. Included once per
// instruction set.
//
// With a sample or two a leaf there is little to multiply, and what takes time is the tree: its
// branches, and partial sums on their way to memory and back. So the samples are packed into slots,
// kSlotsPerLeaf for each of up to kSlotLeaves leaves, whose addresses are constants; the whole tree
// is straight-line code in registers; and an absent leaf is -0, which as a summand changes nothing,
// not even the sign of a zero.
#if defined(LOCKSTEP_NN_SLOTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_SLOTS_INL
#undef LOCKSTEP_NN_SLOTS_INL
#else
#define LOCKSTEP_NN_SLOTS_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/pack-inl.hpp"
#include "nn/kernels/tile-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

inline constexpr std::size_t kSlotRows = 2;  // outputs of a tile
inline constexpr std::size_t kSlots = kSlotLeaves * kSlotsPerLeaf;

// One slot of d_y: kSlotRows outputs. One of x: the inputs of a panel.
template <class T>
struct SlotTile : Tile<T, kSlotRows, kTileVectors> {
  // sum = d_yᵀ x + sum for one sample.
  HWY_INLINE void accumulate(const T* d_y, const T* x) {
    const Tag<T> d;
    Vector<T> factor[kTileVectors];
    unrolled<kTileVectors>(
        [&](auto v) LOCKSTEP_LAMBDA { factor[v] = hn::LoadU(d, x + v * kRegister<T>); });
    this->for_each([&](Vector<T>& s, std::size_t r, std::size_t v) LOCKSTEP_LAMBDA {
      s = hn::MulAdd(hn::Set(d, d_y[r]), factor[v], s);
    });
  }

  HWY_INLINE void fill(T value) {
    this->for_each([&](Vector<T>& s, std::size_t, std::size_t) LOCKSTEP_LAMBDA {
      s = hn::Set(Tag<T>(), value);
    });
  }
};

// sum = d_yᵀ x + sum over the slots of leaf kLeaf from number kSlot on that are taken.
template <std::size_t kLeaf, std::size_t kSlot, class T>
HWY_INLINE void accumulate_slots(const T* d_y, const T* x, std::uint32_t taken, SlotTile<T>& sum) {
  if constexpr (kSlot < kSlotsPerLeaf) {
    constexpr std::size_t kAt = kLeaf * kSlotsPerLeaf + kSlot;
    if (taken >> kAt & 1) {
      sum.accumulate(d_y + kAt * kSlotRows, x + kAt * kPanel<T>);
      accumulate_slots<kLeaf, kSlot + 1>(d_y, x, taken, sum);
    }
  }
}

// sum = the sum over leaves [kFirst, kFirst + kLeaves), -0 where all are absent.
template <std::size_t kFirst, std::size_t kLeaves, class T>
HWY_INLINE void sum_slots(const T* d_y, const T* x, std::uint32_t taken, SlotTile<T>& sum) {
  if constexpr (kLeaves == 1) {
    sum.fill(taken >> kFirst * kSlotsPerLeaf & 1 ? T{0} : -T{0});
    accumulate_slots<kFirst, 0>(d_y, x, taken, sum);
  } else {
    SlotTile<T> left;
    sum_slots<kFirst, kLeaves / 2>(d_y, x, taken, left);
    sum_slots<kFirst + kLeaves / 2, kLeaves / 2>(d_y, x, taken, sum);
    sum.add(left);
  }
}

// What becomes of the gradient of a tile: it is written, …
template <class T>
struct WriteGradient {
  T* d_weights;

  HWY_INLINE void whole(Vector<T> gradient, std::size_t at) const {
    hn::StoreU(gradient, Tag<T>(), d_weights + at);
  }
  HWY_INLINE void part(const T* gradient, std::size_t count, std::size_t at) const {
    std::copy_n(gradient, count, d_weights + at);
  }
};

// … or parameters move by it.
template <class Mover, class T>
struct MoveParameters {
  const Mover& mover;
  const Update<T>& u;

  HWY_INLINE void whole(Vector<T> gradient, std::size_t at) const {
    mover.move(gradient, u.parameters + at, advance(u.moment1, at), advance(u.moment2, at));
  }
  HWY_INLINE void part(const T* gradient, std::size_t count, std::size_t at) const {
    move_part(mover, u, gradient, count, at);
  }
};

template <std::size_t kLeaves, class T, class Use>
void slot_gradient_of(const WeightGradient<T>& job, std::size_t output_begin,
                      std::size_t output_end, const Use& use) {
  for (std::size_t output = output_begin; output < output_end; output += kSlotRows) {
    const T* d_y = job.d_y + output * kSlots;
    const std::size_t rows = std::min(kSlotRows, output_end - output);
    for (std::size_t col = 0; col < job.inputs; col += kPanel<T>) {
      SlotTile<T> tile;
      sum_slots<0, kLeaves>(d_y, job.x + col * kSlots, job.slots, tile);
      const std::size_t at = output * job.inputs + col;
      if (rows == kSlotRows && job.inputs - col >= kPanel<T>) {
        tile.for_each([&](Vector<T>& s, std::size_t r, std::size_t v) LOCKSTEP_LAMBDA {
          use.whole(s, at + r * job.inputs + v * kRegister<T>);
        });
        continue;
      }
      alignas(kAlignment) T gradient[kSlotRows * kPanel<T>];
      tile.store(gradient, kPanel<T>);
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t cols = std::min(kPanel<T>, job.inputs - col);
        for (std::size_t j = 0; j < cols; j += kRegister<T>) {
          use.part(gradient + r * kPanel<T> + j, std::min(kRegister<T>, cols - j),
                   at + r * job.inputs + j);
        }
      }
    }
  }
}

template <class T, class Use>
HWY_INLINE void slot_gradient_by(const WeightGradient<T>& job, std::size_t output_begin,
                                 std::size_t output_end, const Use& use) {
  // All that is taken lies in the first leaf, or the first two, four or eight.
  const std::uint32_t taken = job.slots;
  if (taken >> kSlotsPerLeaf == 0) return slot_gradient_of<1>(job, output_begin, output_end, use);
  if (taken >> 2 * kSlotsPerLeaf == 0) {
    return slot_gradient_of<2>(job, output_begin, output_end, use);
  }
  if (taken >> 4 * kSlotsPerLeaf == 0) {
    return slot_gradient_of<4>(job, output_begin, output_end, use);
  }
  slot_gradient_of<kSlotLeaves>(job, output_begin, output_end, use);
}

template <class T>
void slot_gradient(const WeightGradient<T>& job, std::size_t output_begin, std::size_t output_end) {
  if (job.update == nullptr) {
    return slot_gradient_by(job, output_begin, output_end, WriteGradient<T>{job.d_weights});
  }
  with_mover(*job.update, [&](const auto& mover) LOCKSTEP_LAMBDA {
    slot_gradient_by(job, output_begin, output_end,
                     MoveParameters<std::remove_cvref_t<decltype(mover)>, T>{mover, *job.update});
  });
}

// Packs samples [begin, end) of both factors into slots from `slot` on.
template <class T>
void pack_slots(MatrixView<const T> d_y, MatrixView<const T> x, std::size_t begin, std::size_t end,
                std::size_t slot, T* packed_d_y, T* packed_x) {
  for (std::size_t m = begin; m < end; ++m, ++slot) {
    const T* from = d_y.row(m);
    for (std::size_t j = 0; j < d_y.cols; ++j) {
      packed_d_y[j / kSlotRows * kSlotRows * kSlots + slot * kSlotRows + j % kSlotRows] = from[j];
    }
    for (std::size_t col = 0; col < x.cols; col += kPanel<T>) {
      copy_panel_row(x.row(m) + col, std::min(kPanel<T>, x.cols - col),
                     packed_x + col * kSlots + slot * kPanel<T>);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

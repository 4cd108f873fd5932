// The weight gradient of a few samples: stochastic descent and small batches. Included once per
// instruction set.
//
// With a sample or two a leaf there is little to multiply, and what takes time is the tree: its
// branches, and partial sums on their way to memory and back. So every sample has a slot,
// kSlotsPerLeaf for each of up to kSlotLeaves leaves; the whole tree is straight-line code in
// registers; and an absent leaf is -0, which as a summand changes nothing, not even the sign of a
// zero.
#if defined(LOCKSTEP_NN_SLOTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_SLOTS_INL
#undef LOCKSTEP_NN_SLOTS_INL
#else
#define LOCKSTEP_NN_SLOTS_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/tile-inl.hpp"
#include "nn/kernels/update-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// Where the samples stand. Slot l * kSlotsPerLeaf + i is that of sample i of leaf l, if it has so
// many.
template <class T>
struct Slots {
  HWY_INLINE explicit Slots(const WeightGradient<T>& job) {
    for (std::size_t l = 0; l + 1 < job.leaf_rows.size(); ++l) {
      std::size_t slot = l * kSlotsPerLeaf;
      for (std::size_t m = job.leaf_rows[l]; m < job.leaf_rows[l + 1]; ++m, ++slot) {
        taken |= 1u << slot;
        x[slot] = job.x + m * job.x_step;
        d_y[slot] = job.d_y + m * job.d_y_step;
      }
    }
  }

  std::uint32_t taken = 0;                    // a bit for each slot
  const T* x[kSlotLeaves * kSlotsPerLeaf];    // the first input
  const T* d_y[kSlotLeaves * kSlotsPerLeaf];  // the first output
};

// kRows inputs by kVectors registers of outputs.
template <class T, std::size_t kRows, std::size_t kVectors>
struct SlotTile : Tile<T, kRows, kVectors> {
  // sum = xᵀ d_y + sum for one sample.
  HWY_INLINE void accumulate(const T* x, const T* d_y) {
    const Tag<T> d;
    Vector<T> factor[kVectors];
    unrolled<kVectors>([&](auto v)
                           LOCKSTEP_LAMBDA { factor[v] = hn::LoadU(d, d_y + v * kRegister<T>); });
    this->for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                       LOCKSTEP_LAMBDA { s = hn::MulAdd(hn::Set(d, x[r]), factor[v], s); });
  }
};

// sum = xᵀ d_y + sum over the slots of leaf kLeaf from number kSlot on that are taken.
template <std::size_t kLeaf, std::size_t kSlot, class T, class Tile>
HWY_INLINE void accumulate_slots(const Slots<T>& slots, std::size_t input, std::size_t output,
                                 Tile& sum) {
  if constexpr (kSlot < kSlotsPerLeaf) {
    constexpr std::size_t kAt = kLeaf * kSlotsPerLeaf + kSlot;
    if (slots.taken >> kAt & 1) {
      sum.accumulate(slots.x[kAt] + input, slots.d_y[kAt] + output);
      accumulate_slots<kLeaf, kSlot + 1>(slots, input, output, sum);
    }
  }
}

// sum = the sum over leaves [kFirst, kFirst + kLeaves), -0 where all are absent.
template <std::size_t kFirst, std::size_t kLeaves, class T, class Tile>
HWY_INLINE void sum_slots(const Slots<T>& slots, std::size_t input, std::size_t output, Tile& sum) {
  if constexpr (kLeaves == 1) {
    sum.fill(slots.taken >> kFirst * kSlotsPerLeaf & 1 ? T{0} : -T{0});
    accumulate_slots<kFirst, 0>(slots, input, output, sum);
  } else {
    Tile left;
    sum_slots<kFirst, kLeaves / 2>(slots, input, output, left);
    sum_slots<kFirst + kLeaves / 2, kLeaves / 2>(slots, input, output, sum);
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
  Mover mover;
  Update<T> u;

  HWY_INLINE void whole(Vector<T> gradient, std::size_t at) const {
    mover.move(gradient, u.parameters + at, advance(u.moment1, at), advance(u.moment2, at));
  }
  HWY_INLINE void part(const T* gradient, std::size_t count, std::size_t at) const {
    move_part(mover, u, gradient, count, at);
  }
};

// kRows inputs from `input` on, by kVectors registers of outputs from `output` on, all of them or
// the first `cols`.
template <std::size_t kLeaves, std::size_t kRows, std::size_t kVectors, bool kAll, class T,
          class Use>
HWY_INLINE void slot_tile(const Slots<T>& slots, std::size_t outputs, std::size_t input,
                          std::size_t output, std::size_t cols, const Use& use) {
  SlotTile<T, kRows, kVectors> tile;
  sum_slots<0, kLeaves>(slots, input, output, tile);
  const std::size_t at = input * outputs + output;
  if constexpr (kAll) {
    tile.for_each([&](Vector<T>& s, std::size_t r, std::size_t v)
                      LOCKSTEP_LAMBDA { use.whole(s, at + r * outputs + v * kRegister<T>); });
  } else {
    alignas(kAlignment) T gradient[kRows * tile.kColumns];
    tile.store(gradient, tile.kColumns);
    for (std::size_t r = 0; r < kRows; ++r) {
      use.part(gradient + r * tile.kColumns, cols, at + r * outputs);
    }
  }
}

// All outputs of kRows inputs.
template <std::size_t kLeaves, std::size_t kRows, class T, class Use>
HWY_INLINE void slot_row(const Slots<T>& slots, std::size_t outputs, std::size_t input,
                         const Use& use) {
  constexpr std::size_t kWide = 2 * kRegister<T>;
  std::size_t begin = 0;
  for (; outputs - begin >= kWide; begin += kWide) {
    slot_tile<kLeaves, kRows, 2, true>(slots, outputs, input, begin, kWide, use);
  }
  if (outputs - begin >= kRegister<T>) {
    slot_tile<kLeaves, kRows, 1, true>(slots, outputs, input, begin, kRegister<T>, use);
    begin += kRegister<T>;
  }
  if (begin < outputs) {
    slot_tile<kLeaves, kRows, 1, false>(slots, outputs, input, begin, outputs - begin, use);
  }
}

// From the last input to the first: the forward product went from the first to the last, so those
// at the end are still in the nearest cache, and those at the start will be for the next forward.
// Not inlined, so that each has the registers to itself; `use` by value, so that it is in them.
template <std::size_t kLeaves, class T, class Use>
HWY_NOINLINE void slot_gradient_of(const WeightGradient<T>& job, const Slots<T>& slots,
                                   std::size_t input_begin, std::size_t input_end, Use use) {
  const std::size_t outputs = job.outputs;
  std::size_t input = input_end;
  if (outputs == kRegister<T>) {
    for (; input - input_begin >= 4; input -= 4) {
      slot_tile<kLeaves, 4, 1, true>(slots, outputs, input - 4, 0, kRegister<T>, use);
    }
  }
  for (; input - input_begin >= 2; input -= 2) {
    slot_row<kLeaves, 2>(slots, outputs, input - 2, use);
  }
  if (input > input_begin) slot_row<kLeaves, 1>(slots, outputs, input_begin, use);
}

template <class T, class Use>
HWY_INLINE void slot_gradient_by(const WeightGradient<T>& job, std::size_t input_begin,
                                 std::size_t input_end, const Use& use) {
  const Slots<T> slots(job);
  // All that is taken lies in the first leaf, or the first two, four or eight.
  const std::size_t leaves = job.leaf_rows.size() - 1;
  if (leaves == 1) return slot_gradient_of<1>(job, slots, input_begin, input_end, use);
  if (leaves == 2) return slot_gradient_of<2>(job, slots, input_begin, input_end, use);
  if (leaves == 4) return slot_gradient_of<4>(job, slots, input_begin, input_end, use);
  slot_gradient_of<kSlotLeaves>(job, slots, input_begin, input_end, use);
}

template <class T>
void slot_gradient(const WeightGradient<T>& job, std::size_t input_begin, std::size_t input_end) {
  if (job.update == nullptr) {
    return slot_gradient_by(job, input_begin, input_end, WriteGradient<T>{job.d_weights});
  }
  with_mover(*job.update, [&](const auto& mover) LOCKSTEP_LAMBDA {
    slot_gradient_by(job, input_begin, input_end,
                     MoveParameters<std::remove_cvref_t<decltype(mover)>, T>{mover, *job.update});
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

// Sums a flat gradient over all leaves on all ranks, in the fixed tree (leaf_tree.hpp).
//
// Rank r of R computes leaves_of_rank(r, R, L). It puts the sums over the few maximal subtrees that
// its leaves form, each `elements` floats, into partial(0), partial(1), … Element ranges are shared
// out as shards (shards.hpp), one to each rank, and a call takes two steps:
//   1. reduce-scatter: each rank sends each shard's owner its piece of each of its subtrees that
//      has a present leaf; the owner finishes the tree for its shard;
//   2. all-gather: each owner sends its finished shard to all others.
// With S subtrees a rank (one if R is a power of two) and N elements a rank sends S*(R-1) + (R-1)
// messages, about 4*N*(S+1)*(R-1)/R bytes. The additions and their order do not depend on R, so
// neither do the bits of the total.
//
// Owns all buffers that messages come from and go to, and a communicator of its own, made once by
// the constructor; sum() does not allocate. So when a wait is given up, MPI is left with no memory
// but ours, which then lives until the process ends. With one rank there is no message and no copy.
// Not thread-safe. The constructor and sum() are collective;
// all else is local.
//
// Errors: CommError and RemoteError as Communicator says; std::invalid_argument for what the caller
// got wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/communicator.hpp"
#include "comm/leaf_tree.hpp"
#include "comm/shards.hpp"

namespace lockstep::comm {

class TreeReduction {
 public:
  struct Options {
    // A longer message is cut. Bytes, a multiple of 4; at most 2^30, which is the default.
    std::size_t longest_message = std::size_t{1} << 30;
  };

  struct Result {
    std::span<const float> total;  // valid until the next call; with one rank it is partial(0)
    unsigned raised;
  };

  // `leaves` is a power of two. Throws std::invalid_argument, on all ranks, if it is not, or if
  // there are more ranks than leaves.
  TreeReduction(Communicator& communicator, std::size_t leaves, std::size_t elements);
  TreeReduction(Communicator& communicator, std::size_t leaves, std::size_t elements,
                const Options& options);
  ~TreeReduction();
  TreeReduction(TreeReduction&& other) noexcept;
  TreeReduction& operator=(TreeReduction&& other) noexcept;
  TreeReduction(const TreeReduction&) = delete;
  TreeReduction& operator=(const TreeReduction&) = delete;

  // This rank's maximal subtrees, in leaf order.
  std::span<const Subtree> subtrees() const;

  // Where to put this rank's sum over subtrees()[i]: `elements` floats at a multiple of 64 bytes,
  // zeros at first; sum() leaves them alone.
  std::span<float> partial(std::size_t i);

  // The elements whose tree `rank` finishes.
  Shard shard_of(std::size_t rank) const;

  // total = the sum at the root of the tree, the same bits on all ranks; zeros if no leaf is
  // present. The partial sum of a subtree without a present leaf is not read. leaf_present has L
  // flags, 0 or 1, the same on all ranks, and may differ from call to call. `raised` has, on every
  // rank alike, each of the flags that any rank passed as `raise`: they ride along for free (that a
  // signal came to stop, say). Flags are bits below most_flags.
  static constexpr unsigned most_flags = 1U << 8;
  Result sum(std::span<const std::uint8_t> leaf_present, unsigned raise);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::comm

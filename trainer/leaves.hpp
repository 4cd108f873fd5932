// Which samples of a batch belong to which leaf, and which of the leaves are this rank's.
//
// Leaf l of a batch of B samples holds [l*B/L, (l+1)*B/L). A rank owns neighbouring leaves, and so
// neighbouring samples. Values and pure functions; local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::trainer {

// The bounds of all leaves for one batch size, computed without allocating.
class LeafBounds {
 public:
  explicit LeafBounds(std::size_t leaves) : bounds_(leaves + 1), present_(leaves) {}

  // Returns whether the bounds are others than before.
  bool set_batch(std::size_t samples) {
    const std::size_t leaves = present_.size();
    if (bounds_[leaves] == samples) return false;
    for (std::size_t l = 0; l <= leaves; ++l) bounds_[l] = l * samples / leaves;
    for (std::size_t l = 0; l < leaves; ++l) present_[l] = bounds_[l] < bounds_[l + 1] ? 1 : 0;
    return true;
  }

  std::size_t leaves() const { return present_.size(); }
  std::size_t begin(std::size_t leaf) const { return bounds_[leaf]; }  // first sample
  std::size_t end(std::size_t leaf) const { return bounds_[leaf + 1]; }
  std::span<const std::uint8_t> present() const { return present_; }  // 1 where a leaf has samples

 private:
  std::vector<std::size_t> bounds_;
  std::vector<std::uint8_t> present_;
};

}  // namespace lockstep::trainer

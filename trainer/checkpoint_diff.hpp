// What differs between two checkpoints, to the bit.
//
// Values are compared by their bits: 0 and -0 differ, and a NaN is the same as itself. Pure;
// thread-safe; local.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint.hpp"

namespace lockstep::trainer {

struct CheckpointDifference {
  // The first difference in what training goes on from: parameters, moments, best parameters and
  // state, in that order. Nothing: the same bits. The training time (state.seconds) does not count.
  //   "parameters/0.weight[3, 17]: 0.123456789 (0x3dfcd6ea) and 0.125000000 (0x3e000000)"
  std::optional<std::string> first;
  // One line for each tensor and member of the state that differs:
  //   "parameters/0.weight: 12 of 7840 elements differ, by 0.00154 at most"
  std::vector<std::string> details;
  // Of configuration, program, build, instruction set and data: what may explain a difference but
  // is none by itself.
  std::vector<std::string> notes;
};

CheckpointDifference compare(const Checkpoint& a, const Checkpoint& b);

// All of it as lines to print, the first difference first; nothing if the bits are the same.
std::optional<std::string> first_difference(const Checkpoint& a, const Checkpoint& b);

}  // namespace lockstep::trainer

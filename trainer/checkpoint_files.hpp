// The checkpoints of a run directory: DIR/checkpoints/step-NNNNNNNN.h5.
//
// Local; for the process that holds the directory (run_directory.hpp), but
// newest_valid_checkpoint() only reads. One caller at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint.hpp"

namespace lockstep::trainer {

// DIR/checkpoints/step-NNNNNNNN.h5: eight digits, more where the step has more.
std::filesystem::path checkpoint_path(const std::filesystem::path& run_directory,
                                      std::uint64_t step);

struct FoundCheckpoint {
  std::filesystem::path path;
  Checkpoint checkpoint;
  std::vector<std::string> skipped;  // one line for each newer file that is not valid, newest first
};

// The checkpoint of the most steps that reads without fault; nothing if there is none, and then
// `skipped` (if given) tells why of each file that was tried.
std::optional<FoundCheckpoint> newest_valid_checkpoint(const std::filesystem::path& run_directory,
                                                       std::vector<std::string>* skipped = nullptr);

// Renames checkpoints of more than `step` updates to *.superseded: a run that goes on from `step`
// must neither take them for its own nor lose its own to pruning because of them. Throws
// std::filesystem::filesystem_error.
void set_aside_checkpoints_after(const std::filesystem::path& run_directory, std::uint64_t step);

// Removes the oldest checkpoints beyond the `keep` newest, but never the newest valid one, and what
// killed processes left half-written in the directory and its checkpoints. What cannot be removed
// stays: a run does not end for that.
void prune_checkpoints(const std::filesystem::path& run_directory, std::size_t keep);

}  // namespace lockstep::trainer

#include "trainer/checkpoint_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

// The steps for which there is a file, most first.
std::vector<std::uint64_t> steps_in(const fs::path& run_directory) {
  std::vector<std::uint64_t> steps;
  std::error_code ignored;  // no directory: no checkpoints
  for (const auto& entry : fs::directory_iterator(run_directory / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kPrefix = "step-";
    if (!name.starts_with(kPrefix)) continue;
    std::uint64_t step = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
    if (name == checkpoint_path(run_directory, step).filename()) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

bool is_valid(const fs::path& path) {
  try {
    verify_checkpoint_file(path);
    return true;
  } catch (const CheckpointError&) {
    return false;
  }
}

// Names that write_file_atomically() gives to files in the making.
void remove_temporaries(const fs::path& directory) {
  std::error_code ignored;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    for (const std::string_view start :
         {"step-", "config.toml.tmp-", "metrics.jsonl.tmp-", "summary.json.tmp-"}) {
      if (name.starts_with(start) && name.find(".tmp-") != std::string::npos) {
        stale.push_back(entry.path());
        break;
      }
    }
  }
  for (const fs::path& path : stale) fs::remove(path, ignored);
}

}  // namespace

fs::path checkpoint_path(const fs::path& run_directory, std::uint64_t step) {
  return run_directory / "checkpoints" / fmt::format("step-{:08}.h5", step);
}

std::optional<FoundCheckpoint> newest_valid_checkpoint(const fs::path& run_directory,
                                                       std::vector<std::string>* skipped) {
  std::vector<std::string> faults;
  for (const std::uint64_t step : steps_in(run_directory)) {
    const fs::path path = checkpoint_path(run_directory, step);
    try {
      return FoundCheckpoint{path, read_checkpoint(path), faults};
    } catch (const CheckpointError& error) {
      faults.emplace_back(error.what());
    }
  }
  if (skipped != nullptr) *skipped = faults;
  return std::nullopt;
}

void set_aside_checkpoints_after(const fs::path& run_directory, std::uint64_t step) {
  for (const std::uint64_t later : steps_in(run_directory)) {
    if (later <= step) continue;
    const fs::path path = checkpoint_path(run_directory, later);
    fs::rename(path, path.string() + ".superseded");
  }
}

void prune_checkpoints(const fs::path& run_directory, std::size_t keep) {
  remove_temporaries(run_directory);
  remove_temporaries(run_directory / "checkpoints");
  const std::vector<std::uint64_t> steps = steps_in(run_directory);
  bool valid_kept = false;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    // Files are read only where one is to go: usually the newest, which was just written.
    if (steps.size() > keep && !valid_kept) {
      valid_kept = is_valid(checkpoint_path(run_directory, steps[i]));
      if (valid_kept) continue;
    }
    if (i < keep) continue;
    std::error_code ignored;
    fs::remove(checkpoint_path(run_directory, steps[i]), ignored);
  }
}

}  // namespace lockstep::trainer

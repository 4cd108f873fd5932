// The directory that a training run writes: who holds it, and its small files.
//
//   config.toml  log.txt  metrics.jsonl  summary.json  checkpoints/step-NNNNNNNN.h5  .lock
//
// A RunDirectory holds an exclusive flock() on .lock for its life; the system lifts it when the
// process ends, however it ends. Rank 0 alone makes one; no call is collective. One caller at a
// time. Nothing of another run is ever overwritten.
//
// Errors: ConfigError where the directory is not this run's to use; std::system_error, naming the
// file, where a file cannot be written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace lockstep::trainer {

enum class RunStart {
  fresh,   // the directory must not hold a run
  resume,  // it must
};

// An open file descriptor; owns it. Move-only; moved-from is null.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

class RunDirectory {
 public:
  // Makes `path` and path/checkpoints where they are missing, and takes the lock. Throws
  // ConfigError if another run holds the directory, if it holds a run and `start` is fresh, or if
  // it holds none and `start` is resume; nothing but .lock is then made or changed.
  static RunDirectory create(const std::filesystem::path& path, RunStart start);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path config_file() const { return path_ / "config.toml"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path summary_file() const { return path_ / "summary.json"; }
  std::filesystem::path log_file() const { return path_ / "log.txt"; }

  // Makes path()/name a file of exactly `text`; at any moment the old or the new one is there.
  void write_text_atomically(std::string_view name, std::string_view text) const;

  // Adds one line to metrics.jsonl, handed to the system when this returns.
  void append_metrics(const nlohmann::ordered_json& metrics);

  // Drops the lines of metrics.jsonl that tell of more than `step` updates (key "step"), those of
  // an epoch cut short ("complete": false), which now goes on, and those that a killed process left
  // half-written: the file then reads as if the run had never gone on.
  void drop_metrics_after(std::uint64_t step);

 private:
  RunDirectory(std::filesystem::path path, FileDescriptor lock);

  std::filesystem::path path_;
  FileDescriptor lock_;
  FileDescriptor metrics_;  // opened by the first append
};

// True if `path` holds files of a run.
bool holds_run(const std::filesystem::path& path);

// runs/<stem>-001, or the first number after it that is free, below the working directory. `config`
// is the configuration's file; its name without extension is the stem.
std::filesystem::path default_run_path(const std::filesystem::path& config);

}  // namespace lockstep::trainer

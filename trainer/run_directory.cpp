#include "trainer/run_directory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>
#include <system_error>
#include <utility>

#include "datasets/atomic_file.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const char* doing) {
  throw std::system_error(errno, std::generic_category(),
                          fmt::format("{}: cannot {}", file.string(), doing));
}

void write_all(int fd, std::string_view text, const fs::path& file) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(file, "write");
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string host_and_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return fmt::format("host {}, pid {}", host.data(), ::getpid());
}

// What the holder of the lock wrote into it, on one line.
std::string holder_of(const fs::path& lock) {
  std::ifstream in(lock);
  std::string line;
  std::getline(in, line);
  return line.empty() ? "it does not say which" : line;
}

void make_directory(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  // create_directories() takes a file of that name for success on some systems.
  if (!error && !fs::is_directory(path, error) && !error) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (error) {
    throw ConfigError(
        fmt::format("run directory {} cannot be made: {}", path.string(), error.message()));
  }
}

FileDescriptor take_lock(const fs::path& directory) {
  const fs::path file = directory / ".lock";
  FileDescriptor lock(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (lock.get() < 0) {
    throw ConfigError(fmt::format("run directory {} cannot be written: {}", directory.string(),
                                  std::generic_category().message(errno)));
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      throw ConfigError(fmt::format("run directory {} is held by another run ({})",
                                    directory.string(), holder_of(file)));
    }
    throw ConfigError(fmt::format("run directory {} cannot be locked: {}", directory.string(),
                                  std::generic_category().message(errno)));
  }
  if (::ftruncate(lock.get(), 0) != 0) fail(file, "write");
  write_all(lock.get(), host_and_process() + "\n", file);
  return lock;
}

void check_start(const fs::path& path, RunStart start) {
  const bool found = holds_run(path);
  if (start == RunStart::fresh && found) {
    throw ConfigError(
        fmt::format("run directory {} already holds a run: continue it with --resume, or name "
                    "another directory with --out",
                    path.string()));
  }
  std::error_code ignored;
  if (start == RunStart::resume && !found) {
    throw ConfigError(fmt::format("run directory {} holds no run to resume{}", path.string(),
                                  fs::exists(path, ignored) ? "" : " (no such directory)"));
  }
}

// True if `line` is one whole object of metrics, of a complete epoch, that tells of at most `step`
// updates.
bool tells_of_at_most(std::string_view line, std::uint64_t step) {
  const auto metrics = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!metrics.is_object()) return false;
  if (!metrics.value("complete", true)) return false;  // of an epoch that now goes on
  const auto found = metrics.find("step");
  return found != metrics.end() && found->is_number_integer() &&
         found->get<std::uint64_t>() <= step;
}

}  // namespace

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

RunDirectory::RunDirectory(fs::path path, FileDescriptor lock)
    : path_(std::move(path)), lock_(std::move(lock)) {}

RunDirectory RunDirectory::create(const fs::path& path, RunStart start) {
  // Once before anything is made, and once more with the lock: a run may have begun in between.
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) check_start(path, start);
  make_directory(path);
  FileDescriptor lock = take_lock(path);
  check_start(path, start);
  make_directory(path / "checkpoints");
  return RunDirectory(path, std::move(lock));
}

void RunDirectory::write_text_atomically(std::string_view name, std::string_view text) const {
  datasets::write_file_atomically(path_ / name, std::as_bytes(std::span(text)));
}

void RunDirectory::append_metrics(const nlohmann::ordered_json& metrics) {
  const fs::path file = metrics_file();
  if (metrics_.get() < 0) {
    metrics_ =
        FileDescriptor(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (metrics_.get() < 0) fail(file, "open");
  }
  write_all(metrics_.get(), metrics.dump() + "\n", file);
}

void RunDirectory::drop_metrics_after(std::uint64_t step) {
  metrics_ = FileDescriptor();  // the file gets another inode
  std::ifstream in(metrics_file(), std::ios::binary);
  if (!in) return;
  std::ostringstream all;
  all << in.rdbuf();
  const std::string text = all.str();
  std::string kept;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start);
    if (end == std::string::npos) break;  // half-written: every whole line ends
    const std::string_view line = std::string_view(text).substr(start, end - start);
    if (tells_of_at_most(line, step)) kept.append(line) += '\n';
    start = end + 1;
  }
  if (kept != text) write_text_atomically("metrics.jsonl", kept);
}

bool holds_run(const fs::path& path) {
  std::error_code ignored;
  for (const char* name : {"config.toml", "metrics.jsonl", "summary.json"}) {
    if (fs::exists(path / name, ignored)) return true;
  }
  for (const auto& entry : fs::directory_iterator(path / "checkpoints", ignored)) {
    if (entry.path().extension() == ".h5") return true;
  }
  return false;
}

fs::path default_run_path(const fs::path& config) {
  for (unsigned number = 1;; ++number) {
    const fs::path path =
        fs::path("runs") / fmt::format("{}-{:03}", config.stem().string(), number);
    // A path that cannot be looked at counts as free: create() says what is wrong with it.
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(path, ignored))) return path;
  }
}

}  // namespace lockstep::trainer

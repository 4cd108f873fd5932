#include "datasets/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

namespace lockstep::datasets {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(int error, const fs::path& file, const char* doing) {
  throw std::system_error(error, std::generic_category(), file.string() + ": cannot " + doing);
}

// An open file descriptor; owns it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Removes a file unless it has become what it was made for.
class TemporaryName {
 public:
  explicit TemporaryName(fs::path path) : path_(std::move(path)) {}
  TemporaryName(const TemporaryName&) = delete;
  TemporaryName& operator=(const TemporaryName&) = delete;
  ~TemporaryName() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  const fs::path& path() const { return path_; }
  void keep() { path_.clear(); }

 private:
  fs::path path_;
};

// The host's name is part of the name because processes of several hosts may write to one
// directory.
fs::path temporary_beside(const fs::path& final_path) {
  static std::atomic<unsigned> count{0};
  std::array<char, 65> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  fs::path path = final_path;
  path += std::string(".tmp-") + host.data() + "-" + std::to_string(::getpid()) + "-" +
          std::to_string(count++);
  return path;
}

// A new file beside `final_path`, and its name. A name that a killed process with our number left
// behind is passed over.
std::pair<int, fs::path> open_temporary(const fs::path& final_path) {
  constexpr int kAttempts = 1000;
  for (int attempt = 1;; ++attempt) {
    fs::path path = temporary_beside(final_path);
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return {fd, std::move(path)};
    if (errno != EINTR && (errno != EEXIST || attempt == kAttempts)) {
      fail(errno, final_path, "create a temporary file beside it");
    }
  }
}

void write_all(int fd, std::span<const std::byte> content, const fs::path& file) {
  // Linux writes at most 2 GiB a call; smaller pieces let a signal's handler be heard soon.
  constexpr std::size_t kPiece = std::size_t{1} << 26;
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), std::min(content.size(), kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(errno, file, "write");
    if (written == 0) fail(EIO, file, "write");
    content = content.subspan(static_cast<std::size_t>(written));
  }
}

void sync(int fd, const fs::path& file, const char* doing) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) fail(errno, file, doing);
  }
}

void sync_directory_of(const fs::path& file) {
  const fs::path directory = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // A directory that may be written but not read cannot be synced; nor can those of some network
  // file systems (EINVAL).
  if (fd.get() < 0) {
    if (errno == EACCES) return;
    fail(errno, file, "open its directory");
  }
  while (::fsync(fd.get()) != 0) {
    if (errno == EINVAL) return;
    if (errno != EINTR) fail(errno, file, "sync its directory");
  }
}

// rename() would replace a device or a pipe by the file, which no one means.
void check_replaceable(const fs::path& final_path) {
  if (!final_path.has_filename()) fail(EISDIR, final_path, "write");
  struct stat status {};
  if (::stat(final_path.c_str(), &status) != 0) return;  // absent, or open() will say what is wrong
  if (S_ISDIR(status.st_mode)) fail(EISDIR, final_path, "write");
  if (!S_ISREG(status.st_mode)) {
    throw std::system_error(EINVAL, std::generic_category(),
                            final_path.string() + ": cannot write: it is not a regular file");
  }
}

}  // namespace

void write_file_atomically(const fs::path& final_path, std::span<const std::byte> content) {
  check_replaceable(final_path);
  auto [opened, path] = open_temporary(final_path);
  Descriptor fd(opened);
  TemporaryName temporary(std::move(path));

  write_all(fd.get(), content, final_path);
  sync(fd.get(), final_path, "sync");
  // Network file systems report a lost write at close.
  if (::close(fd.release()) != 0 && errno != EINTR) fail(errno, final_path, "close");
  if (::rename(temporary.path().c_str(), final_path.c_str()) != 0) {
    fail(errno, final_path, "rename the finished temporary file");
  }
  temporary.keep();
  sync_directory_of(final_path);
}

}  // namespace lockstep::datasets

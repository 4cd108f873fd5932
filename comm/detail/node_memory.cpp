#include "comm/detail/node_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace lockstep::comm::detail {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes, on x86-64 and most of aarch64

std::string failure(const std::string& doing, int error) {
  return doing + ": " + std::strerror(error);
}

// Null if it fails; errno says why. Huge pages are only advice.
std::byte* map(std::size_t bytes, int protection, int flags, int file) {
  void* memory = mmap(nullptr, bytes, protection, flags, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

// A descriptor that is closed.
class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// Shared memory with a name that nobody else has, until this object ends. Chance gives the name:
// processes of two containers may have one number, and each a /dev/shm of its own, where one would
// take its own memory for the other's.
class Named {
 public:
  Named() {
    std::array<std::uint64_t, 2> chance;
    while (descriptor_ < 0) {
      if (getrandom(chance.data(), sizeof chance, 0) != sizeof chance) return;
      name_ = "/lockstep";
      for (const std::uint64_t part : chance) name_.append("-").append(std::to_string(part));
      descriptor_ = shm_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
      if (descriptor_ < 0 && errno != EEXIST) return;
    }
  }
  ~Named() {
    if (descriptor_ < 0) return;
    shm_unlink(name_.c_str());
    close(descriptor_);
  }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

  int descriptor() const { return descriptor_; }  // -1: it could not be made, and errno says why
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  int descriptor_ = -1;
};

}  // namespace

NodeMemory::NodeMemory(std::size_t bytes) : bytes_(bytes), segments_(1) {
  if (bytes == 0) return;
  segments_[0] = map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (segments_[0] == nullptr) throw std::bad_alloc();
}

NodeMemory::~NodeMemory() {
  for (std::byte* segment : segments_) {
    if (segment != nullptr) munmap(segment, bytes_);
  }
}

NodeMemory::NodeMemory(NodeMemory&& other) noexcept
    : bytes_(other.bytes_), own_(other.own_), segments_(std::exchange(other.segments_, {})) {}

NodeMemory& NodeMemory::operator=(NodeMemory&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(own_, other.own_);
  std::swap(segments_, other.segments_);
  return *this;
}

// Space is reserved at once: memory that ran out later would end the process without a message.
std::string NodeMemory::map_own(int descriptor) {
  if (descriptor < 0) return failure("making shared memory", errno);
  const int error = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes_));
  if (error != 0) {
    return failure("reserving " + std::to_string(bytes_ >> 20) + " MiB of shared memory", error);
  }
  // The pages are there, so all of them are entered at once: else the first steps would stop at
  // each. Of the others' segments a rank reads a small share.
  constexpr int kEntered = MAP_SHARED | MAP_POPULATE;
  segments_[own_] = map(bytes_, PROT_READ | PROT_WRITE, kEntered, descriptor);
  return segments_[own_] == nullptr ? failure("mapping shared memory", errno) : "";
}

std::string NodeMemory::map_other(const std::string& name, std::size_t member) {
  const File file(shm_open(name.c_str(), O_RDONLY, 0));
  if (file.get() < 0) return failure("opening another rank's shared memory", errno);
  segments_[member] = map(bytes_, PROT_READ, MAP_SHARED, file.get());
  return segments_[member] == nullptr ? failure("mapping another rank's shared memory", errno) : "";
}

std::string NodeMemory::share(Communicator& communicator, const Hierarchy& hierarchy,
                              std::size_t bytes) {
  bytes_ = bytes;
  own_ = hierarchy.member;
  segments_.assign(hierarchy.members, nullptr);
  const Named named;
  std::string why = map_own(named.descriptor());
  // An empty name says that there is none.
  const auto names = communicator.gather_strings(why.empty() ? named.name() : "");
  for (std::size_t m = 0; m < hierarchy.members && why.empty(); ++m) {
    const std::string& name = names[hierarchy.rank_of(hierarchy.group, m)];
    if (m == own_) continue;
    why = name.empty() ? "another rank has no shared memory" : map_other(name, m);
  }
  // When all have said how it went, all have mapped it, or given up, and the name may go.
  for (const std::string& reason : communicator.gather_strings(why)) {
    if (reason.empty()) continue;
    *this = NodeMemory();
    return reason;
  }
  return "";
}

}  // namespace lockstep::comm::detail

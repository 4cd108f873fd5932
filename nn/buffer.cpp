#include "nn/buffer.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lockstep::nn {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes, on x86-64 and most of aarch64

std::size_t mapped_size(std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  return round_up(bytes, kPage);
}

}  // namespace

void* allocate_aligned(std::size_t bytes, Pages pages) {
  if (bytes == 0) return nullptr;
  if (bytes < kHugePage) {
    void* memory = std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
    if (memory == nullptr) throw std::bad_alloc();
    return std::memset(memory, 0, bytes);
  }
  // Zeros from the system, at a multiple of a huge page: what is mapped around that is given back.
  const std::size_t mapped = mapped_size(bytes);
  void* start =
      mmap(nullptr, mapped + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::size_t before = round_up(address, kHugePage) - address;
  char* memory = static_cast<char*>(start) + before;
  if (before > 0) munmap(start, before);
  munmap(memory + mapped, kHugePage - before);
  // Only advice: without huge pages the same memory serves, more slowly.
  madvise(memory, mapped, pages == Pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return memory;
}

void free_aligned(void* memory, std::size_t bytes) noexcept {
  if (memory == nullptr) return;
  if (bytes < kHugePage) {
    std::free(memory);
  } else {
    munmap(memory, mapped_size(bytes));
  }
}

}  // namespace lockstep::nn

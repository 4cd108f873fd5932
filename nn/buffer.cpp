#include "nn/buffer.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lockstep::nn {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes, on x86-64 and most of aarch64
constexpr std::size_t kPage = 4096;

// Where in its first page a large buffer begins. Parameters, which are memory of their own and
// begin with a page, and moments are read side by side; began they all at the same place, the lines
// of a tile would crowd into one set of the first-level cache. Eight lines apart there is room for
// the panels that a thread goes through. In small pages, whoever moves parameters page by page has
// each page of the moments for itself.
std::size_t next_place(Pages pages) {
  static std::atomic<std::size_t> buffers = 0;
  constexpr std::size_t kApart = 8 * kAlignment;
  constexpr std::size_t kPlaces = kPage / kApart;
  if (pages == Pages::small) return 0;
  return (1 + buffers.fetch_add(1, std::memory_order_relaxed) % (kPlaces - 1)) * kApart;
}

}  // namespace

void* allocate_aligned(std::size_t bytes, Pages pages) {
  if (bytes == 0) return nullptr;
  if (bytes < kHugePage) {
    void* memory = std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
    if (memory == nullptr) throw std::bad_alloc();
    return std::memset(memory, 0, bytes);
  }
  // Zeros from the system, from a multiple of a huge page on: what is mapped around is given back.
  const std::size_t place = next_place(pages);
  const std::size_t mapped = round_up(place + bytes, kPage);
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
  return memory + place;
}

void free_aligned(void* memory, std::size_t bytes) noexcept {
  if (memory == nullptr) return;
  if (bytes < kHugePage) {
    std::free(memory);
  } else {
    const std::size_t place = reinterpret_cast<std::uintptr_t>(memory) % kPage;
    munmap(static_cast<char*>(memory) - place, round_up(place + bytes, kPage));
  }
}

}  // namespace lockstep::nn

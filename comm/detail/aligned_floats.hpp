// A fixed number of floats, zero at first, at a multiple of 64 bytes.
//
// Owns its memory; move-only; moved-from is null. Not thread-safe. Pages that are never touched
// cost no memory, since they come zeroed from the system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace lockstep::comm::detail {

class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t count) : size_(count) {
    if (count > (SIZE_MAX - alignment) / sizeof(float)) throw std::bad_alloc();
    memory_.reset(std::calloc(count * sizeof(float) + alignment, 1));
    if (!memory_) throw std::bad_alloc();
    void* start = memory_.get();
    std::size_t space = count * sizeof(float) + alignment;
    data_ = static_cast<float*>(std::align(alignment, count * sizeof(float), start, space));
  }

  float* data() { return data_; }
  std::size_t size() const { return size_; }
  std::span<float> span() { return {data_, size_}; }

 private:
  static constexpr std::size_t alignment = 64;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  float* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lockstep::comm::detail

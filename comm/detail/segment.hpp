// What a rank lets the others of its group read: how far it is, its parameters, its partial sums.
//
// A view of one member's NodeMemory::segment(). The counters of steps only grow, and all are
// written by their rank alone; a reader that sees one sees what was written before it. Not
// synchronised otherwise. Local; no MPI.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lockstep::comm::detail {

// One to a cache line, so that a rank that polls it disturbs nobody else.
struct alignas(64) Counter {
  std::atomic<std::uint64_t> value;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "it is shared between processes");

// Where things lie in a segment of zeros.
struct SegmentLayout {
  std::size_t buckets = 0;
  std::size_t elements = 0;
  std::size_t partials = 0;  // the most subtrees that any rank of the group has
  std::size_t words = 1;     // that go round with a step's flags, these included

  std::size_t bytes() const {
    return counter_bytes() + words_bytes() + (1 + partials) * buffer_bytes();
  }

  std::size_t counter_bytes() const {
    return round_to_page((fixed + 2 * buckets) * sizeof(Counter));
  }
  std::size_t words_bytes() const { return round_to_page(2 * words * sizeof(std::uint64_t)); }
  std::size_t buffer_bytes() const { return round_to_page((elements + slack) * sizeof(float)); }

  static constexpr std::size_t fixed = 2;   // counters that no bucket has
  static constexpr std::size_t slack = 16;  // floats past the end, which vectors may read
  static constexpr std::size_t page = 4096;
  static std::size_t round_to_page(std::size_t bytes) { return (bytes + page - 1) / page * page; }
};

class Segment {
 public:
  Segment(const SegmentLayout& layout, std::byte* memory) : layout_(layout), memory_(memory) {}

  // The step that this rank has begun, and, written before, what goes round in it: the flags that
  // it raises, and its words. Those of two steps stand side by side: a rank may be in the next step
  // while another one still reads.
  std::atomic<std::uint64_t>& begun() const { return counter(0); }
  std::uint64_t* words(std::uint64_t step) const {
    return reinterpret_cast<std::uint64_t*>(memory_ + layout_.counter_bytes()) +
           step % 2 * layout_.words;
  }

  // What this rank does, in a word (status.hpp).
  std::atomic<std::uint64_t>& phase() const { return counter(1); }

  // The last step whose partial sums of a bucket are there, and the last step whose share of its
  // parameters this rank has moved.
  std::atomic<std::uint64_t>& summed(std::size_t bucket) const {
    return counter(SegmentLayout::fixed + 2 * bucket);
  }
  std::atomic<std::uint64_t>& moved(std::size_t bucket) const {
    return counter(SegmentLayout::fixed + 2 * bucket + 1);
  }

  float* parameters() const { return buffer(0); }
  float* partial(std::size_t i) const { return buffer(1 + i); }

 private:
  std::atomic<std::uint64_t>& counter(std::size_t i) const {
    return reinterpret_cast<Counter*>(memory_)[i].value;
  }
  float* buffer(std::size_t i) const {
    return reinterpret_cast<float*>(memory_ + layout_.counter_bytes() + layout_.words_bytes() +
                                    i * layout_.buffer_bytes());
  }

  SegmentLayout layout_;
  std::byte* memory_;
};

}  // namespace lockstep::comm::detail

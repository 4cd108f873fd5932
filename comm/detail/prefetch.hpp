// Has memory brought nearer before it is read.
//
// Who works chunk by chunk begins a page of several streams each time, and a processor follows a
// stream by itself, but to the end of its page alone. So the beginning of each next page is asked
// for while the chunk before it is at work; from there the processor follows. To ask for all of the
// page would cost more where it lies in a cache than it spares where it does not. Local; any
// address will do, also one past the end.
#pragma once

#include <cstddef>

namespace lockstep::comm::detail {

// The first lines of a chunk into the second-level cache.
inline void prefetch_chunk(const float* values) {
  constexpr std::size_t lines = 8;
  constexpr std::size_t line = 16;  // floats
  for (std::size_t i = 0; i < lines; ++i) __builtin_prefetch(values + i * line, 0, 2);
}

}  // namespace lockstep::comm::detail

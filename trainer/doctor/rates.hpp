// How fast this process computes and reaches memory, with lockstep's own float32 kernels.
//
// Each call starts as many threads as it is told, which inherit the caller's mask, lets them work for
// the time given, each on memory of its own, and says what they did. The results are checked: a wrong
// one throws std::runtime_error. Local; the calling thread only waits.
#pragma once

#include <cstddef>

namespace lockstep::trainer {

struct Rate {
  double total = 0;            // of all threads together: operations or bytes a second
  double slowest_thread = 0;   // of it
  double processor_share = 0;  // of the time in which threads had a processor, 0..1
};

// Floating-point operations a second in products of matrices that stay in a core's own cache.
Rate gemm_rate(std::size_t threads, double seconds);

// Bytes a second that are read and written by moving parameters along a gradient: two arrays of
// `bytes` together for each thread, which shall be more than its share of the caches.
Rate memory_rate(std::size_t threads, double seconds, std::size_t bytes);

}  // namespace lockstep::trainer

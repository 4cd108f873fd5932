// How fast this process computes and reaches memory, with lockstep's own float32 kernels.
//
// Each call starts as many threads as it is told, which inherit the caller's mask, lets them work
// for the time given, each on memory of its own, and says what they did. Before they begin, when
// all is prepared, the calling thread calls `ready`, where several ranks may wait for one another;
// otherwise it only waits. The results are checked: a wrong one throws std::runtime_error. Local.
#pragma once

#include <cstddef>
#include <functional>

namespace lockstep::trainer {

struct Rate {
  double total = 0;            // of all threads together: operations or bytes a second
  double slowest_thread = 0;   // of it
  double processor_share = 0;  // of the time in which threads had a processor, 0..1
};

// Floating-point operations a second in products of matrices that stay in a core's own cache.
Rate gemm_rate(std::size_t threads, double seconds, const std::function<void()>& ready = {});

// Bytes a second that are read and written by moving parameters along a gradient: two arrays of
// `bytes` together for each thread, which shall be more than its share of the caches.
Rate memory_rate(std::size_t threads, double seconds, std::size_t bytes,
                 const std::function<void()>& ready = {});

}  // namespace lockstep::trainer

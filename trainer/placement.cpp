#include "trainer/placement.hpp"

#include <tbb/info.h>

#include <algorithm>
#include <thread>

namespace lockstep::trainer {

std::size_t threads_for(std::size_t wanted, std::size_t ranks_on_node) {
  if (wanted > 0) return wanted;
  // oneTBB counts the processors in this process's affinity mask, the standard library all of them.
  const auto allowed = static_cast<std::size_t>(std::max(1, tbb::info::default_concurrency()));
  const std::size_t cores = std::max<std::size_t>(allowed, std::thread::hardware_concurrency());
  return std::max<std::size_t>(1, std::min(allowed, cores / ranks_on_node));
}

}  // namespace lockstep::trainer

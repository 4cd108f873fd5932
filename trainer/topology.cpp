#include "trainer/topology.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>

namespace lockstep::trainer {
namespace {

// Asks for every processor; the system leaves out those that the control group does not have.
void widen_mask_of_this_thread() {
  constexpr std::size_t room = 1 << 14;
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(CPU_ALLOC(room),
                                                              [](cpu_set_t* m) { CPU_FREE(m); });
  const std::size_t bytes = CPU_ALLOC_SIZE(room);
  CPU_ZERO_S(bytes, mask.get());
  for (std::size_t cpu = 0; cpu < room; ++cpu) CPU_SET_S(cpu, bytes, mask.get());
  // Refused, as some containers do, it leaves the mask that there was.
  sched_setaffinity(0, bytes, mask.get());
}

}  // namespace

Processors unbound_processors() {
  Processors processors;
  std::thread([&] {
    widen_mask_of_this_thread();
    processors = allowed_processors();
  }).join();
  return processors;
}

std::size_t count_cores(const Processors& processors, const std::filesystem::path& root) {
  std::set<std::string> cores;  // each by the list of its processors
  for (const int cpu : processors) {
    const std::string number = std::to_string(cpu);
    std::ifstream in(root / "sys/devices/system/cpu" / ("cpu" + number) /
                     "topology/thread_siblings_list");
    std::string siblings;
    cores.insert(std::getline(in, siblings) ? siblings : "cpu" + number);
  }
  return cores.size();
}

std::size_t usable_cores() {
  std::size_t cores = count_cores(unbound_processors());
  if (const char* given = std::getenv("SLURM_CPUS_ON_NODE")) {
    const std::size_t processors = std::strtoul(given, nullptr, 10);
    if (processors > 0) cores = std::min(cores, processors);
  }
  return std::max<std::size_t>(1, cores);
}

}  // namespace lockstep::trainer

#include "trainer/placement.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <sstream>

namespace lockstep::trainer {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

Processors allowed_processors() {
  // The kernel refuses a mask with less room than it has processors.
  for (int room = 1024; room <= 1 << 20; room *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(
        CPU_ALLOC(static_cast<std::size_t>(room)), [](cpu_set_t* m) { CPU_FREE(m); });
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(room));
    if (sched_getaffinity(0, bytes, mask.get()) != 0) continue;
    Processors processors;
    for (int cpu = 0; cpu < room; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, mask.get())) processors.push_back(cpu);
    }
    return processors;
  }
  return {0};
}

std::size_t share_of(const Processors& mine, std::span<const Processors> all) {
  const auto meets = [&](const Processors& other) {
    return std::ranges::find_first_of(mine, other) != mine.end();
  };
  const auto sharers = static_cast<std::size_t>(std::ranges::count_if(all, meets));
  return std::max<std::size_t>(1, mine.size() / std::max<std::size_t>(1, sharers));
}

std::size_t threads_for(std::size_t wanted, comm::Communicator& world) {
  const Processors mine = allowed_processors();
  std::ostringstream said;
  said << host_name();
  for (const int cpu : mine) said << ' ' << cpu;
  std::vector<Processors> here;
  for (const std::string& text : world.gather_strings(said.str())) {
    std::istringstream words(text);
    std::string host;
    words >> host;
    if (host != host_name()) continue;
    Processors& mask = here.emplace_back();
    for (int cpu = 0; words >> cpu;) mask.push_back(cpu);
  }
  return wanted > 0 ? wanted : share_of(mine, here);
}

}  // namespace lockstep::trainer

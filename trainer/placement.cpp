#include "trainer/placement.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <sstream>

namespace lockstep::trainer {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Host, number of processors, processors, then each quota.
std::string to_text(const Allowance& allowance) {
  std::ostringstream text;
  text.precision(17);
  text << host_name() << ' ' << allowance.processors.size();
  for (const int cpu : allowance.processors) text << ' ' << cpu;
  for (const CpuQuota& quota : allowance.quotas) {
    text << ' ' << quota.processors << ' ' << quota.group;
  }
  return text.str();
}

// What to_text() wrote, after the host.
Allowance read_allowance(std::istream& words) {
  Allowance allowance;
  std::size_t count = 0;
  words >> count;
  for (int cpu = 0; count > 0 && words >> cpu; --count) allowance.processors.push_back(cpu);
  for (CpuQuota quota; words >> quota.processors >> quota.group;) {
    allowance.quotas.push_back(quota);
  }
  return allowance;
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

Allowance allowance() {
  return {allowed_processors(), cpu_quotas()};
}

std::size_t share_of(const Allowance& mine, std::span<const Allowance> all) {
  const auto ranks_where = [&](const auto& holds) {
    return std::max<std::size_t>(1, static_cast<std::size_t>(std::ranges::count_if(all, holds)));
  };
  std::size_t share = mine.processors.size() / ranks_where([&](const Allowance& other) {
                        return std::ranges::find_first_of(mine.processors, other.processors) !=
                               mine.processors.end();
                      });
  for (const CpuQuota& quota : mine.quotas) {
    const std::size_t sharers = ranks_where([&](const Allowance& other) {
      return std::ranges::find(other.quotas, quota.group, &CpuQuota::group) != other.quotas.end();
    });
    // Rounded down: a thread more than the quota would not run slower but be stopped, with all the
    // others of its group, for the rest of each period (mostly 0.1 s), and every rank waits for it.
    const double whole = std::floor(quota.processors / static_cast<double>(sharers));
    if (whole < static_cast<double>(share)) share = static_cast<std::size_t>(whole);
  }
  return std::max<std::size_t>(1, share);
}

std::size_t threads_for(std::size_t wanted, comm::Communicator& world) {
  const Allowance mine = allowance();
  std::vector<Allowance> here;
  for (const std::string& text : world.gather_strings(to_text(mine))) {
    std::istringstream words(text);
    std::string host;
    words >> host;
    if (host == host_name()) here.push_back(read_allowance(words));
  }
  return wanted > 0 ? wanted : share_of(mine, here);
}

}  // namespace lockstep::trainer

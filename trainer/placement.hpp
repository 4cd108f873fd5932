// Where the ranks run, what each may use of its node, and how many threads it works with. Reads
// what the system says of processors.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "trainer/cpu_quota.hpp"

namespace lockstep::trainer {

// Numbers of the processors that a process may run on, ascending.
using Processors = std::vector<int>;

// What a process may use of its node.
struct Allowance {
  Processors processors;
  std::vector<CpuQuota> quotas;
};

// That of this process: its affinity mask and its control groups. Local.
Processors allowed_processors();
Allowance allowance();

// The threads of the rank that has `mine`; `all` are those of the ranks on one node, mine among
// them. The number of its processors divided by the number of ranks that may run on any of them,
// but no more than its share of any quota. At least 1. Pure.
std::size_t share_of(const Allowance& mine, std::span<const Allowance> all);

// Where one rank runs, and on what.
struct RankPlacement {
  std::string host;
  Allowance allowance;
  std::size_t threads = 1;       // that it works with
  std::size_t usable_cores = 1;  // of its host, for this job (trainer/topology.hpp)
  std::string instruction_set;   // of its kernels
};

// Those of all ranks, in rank order, on every rank. A rank's threads are `wanted` if that is not 0,
// else its share of its node. Collective.
std::vector<RankPlacement> find_placements(std::size_t wanted, comm::Communicator& world);

// This rank's threads alone. Collective.
std::size_t threads_for(std::size_t wanted, comm::Communicator& world);

}  // namespace lockstep::trainer

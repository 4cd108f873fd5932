// How many threads a rank works with. Reads what the system says of processors.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

namespace lockstep::trainer {

// Numbers of the processors that a process may run on, ascending.
using Processors = std::vector<int>;

// Those of this process (its affinity mask). Local.
Processors allowed_processors();

// The number of processors in `mine` divided by the number of ranks that may run on any of them;
// `all` are the masks of the ranks on one node, mine among them. At least 1. Pure.
std::size_t share_of(const Processors& mine, std::span<const Processors> all);

// `wanted` if it is not 0, else this rank's share of its node. Collective.
std::size_t threads_for(std::size_t wanted, comm::Communicator& world);

}  // namespace lockstep::trainer

// How many threads a rank works with. Local; reads what the system says of processors.
#pragma once

#include <cstddef>

namespace lockstep::trainer {

// `wanted` if it is not 0; else the processors that this node lets the rank use, divided by the
// ranks that share it, at least 1. A rank that is bound to fewer processors than its share uses
// those.
std::size_t threads_for(std::size_t wanted, std::size_t ranks_on_node);

}  // namespace lockstep::trainer

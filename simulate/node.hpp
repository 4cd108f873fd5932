// What a node does besides messages: computing, as time that passes, and the memory that it moves.
//
// node_real.cpp has it for real ranks, node_simulated.cpp for ranks of SimGrid's SMPI, all of which
// live in one process. Local.
#pragma once

#include <cstddef>

namespace lockstep::simulate {

// Lets `seconds` pass, as if this rank had computed.
void pass_time(double seconds);

// Bytes/s with which the additions and copies of the exchange go through memory; 0: they take no
// time. Simulated ranks only, where nothing that is computed takes time by itself; all ranks set
// the same.
void set_addition_bandwidth(double bytes_per_second);

// Simulated ranks only: no message is copied and nothing is added up, so that the memory of a
// thousand replicas, which none of them touches, takes none. What ranks compute then means nothing;
// when they send what to whom is as before. Before the first exchange is made.
void share_all_memory();

}  // namespace lockstep::simulate

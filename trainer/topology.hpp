// The cores behind a node's processors, and how many of them this job could use. Linux; local.
//
// A processor is what the system schedules threads on; a core has one or, with simultaneous
// multithreading, several of them.
#pragma once

#include <cstddef>
#include <filesystem>

#include "trainer/placement.hpp"

namespace lockstep::trainer {

// The processors that this process would have if nobody had bound it to fewer: those of its control
// group. A thread that ends at once asks for all there are and looks at what the system gives it;
// the caller's own mask stays as it is.
Processors unbound_processors();

// How many cores `processors` belong to. A processor of which nothing is known below
// sys/devices/system/cpu of `root` counts as a core of its own.
std::size_t count_cores(const Processors& processors, const std::filesystem::path& root = "/");

// The cores of the unbound processors, but no more than the batch system (Slurm) gave the job here:
// where it does not confine the job, the rest of the node is for others. At least 1.
std::size_t usable_cores();

}  // namespace lockstep::trainer

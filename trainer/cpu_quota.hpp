// How much processor time the system's control groups (cgroups) leave to this process: a container
// or a batch job often sees all processors of its node, but gets the time of a few. Local.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lockstep::trainer {

struct CpuQuota {
  double processors = 0;  // processor time in the time of one processor: 1.5 is one and a half; > 0
  std::string group;      // whose it is: the same text in every process under it on this node
};

// The quotas of the process's control group and of those above it, innermost first; all of them
// hold. Both versions of control groups are read where they are customarily mounted, below
// sys/fs/cgroup of `root`; what is missing or makes no sense counts as no quota.
std::vector<CpuQuota> cpu_quotas(const std::filesystem::path& root = "/");

}  // namespace lockstep::trainer

#include "trainer/cpu_quota.hpp"

#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <optional>
#include <sstream>

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

std::optional<double> ratio(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return std::nullopt;  // version 1 says "none" as -1
  return quota / period;
}

// Version 2: "150000 100000", or "max 100000" where there is no quota.
std::optional<double> read_cpu_max(const fs::path& group) {
  std::ifstream in(group / "cpu.max");
  double quota = 0;
  double period = 0;
  if (!(in >> quota >> period)) return std::nullopt;
  return ratio(quota, period);
}

// Version 1: two files.
std::optional<double> read_cfs(const fs::path& group) {
  double quota = 0;
  double period = 0;
  if (!(std::ifstream(group / "cpu.cfs_quota_us") >> quota)) return std::nullopt;
  if (!(std::ifstream(group / "cpu.cfs_period_us") >> period)) return std::nullopt;
  return ratio(quota, period);
}

// A directory's name may mean another group in another container; its number may not.
std::string identity(const fs::path& group) {
  struct stat status {};
  if (stat(group.c_str(), &status) != 0) return "?";
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

// `path` is the group's as the kernel tells it. Inside a container that may be a path of the host's
// of which only the end, or nothing, exists below `mount`, where the container's own group is then
// the topmost; so missing directories are passed over on the way up.
void collect(const fs::path& mount, const std::string& path,
             const std::function<std::optional<double>(const fs::path&)>& read,
             std::vector<CpuQuota>& quotas) {
  fs::path below = fs::path(path).lexically_normal().relative_path();
  while (true) {
    const fs::path group = below.empty() ? mount : mount / below;
    if (const auto processors = read(group)) quotas.push_back({*processors, identity(group)});
    if (below.empty()) return;
    below = below.parent_path();
  }
}

bool names_cpu(const std::string& controllers) {
  std::istringstream list(controllers);
  for (std::string one; std::getline(list, one, ',');) {
    if (one == "cpu") return true;
  }
  return false;
}

fs::path first_directory(const std::vector<fs::path>& candidates) {
  std::error_code ignored;
  for (const fs::path& candidate : candidates) {
    if (fs::is_directory(candidate, ignored)) return candidate;
  }
  return candidates.front();
}

}  // namespace

std::vector<CpuQuota> cpu_quotas(const fs::path& root) {
  const fs::path mounts = root / "sys/fs/cgroup";
  std::vector<CpuQuota> quotas;
  std::ifstream in(root / "proc/self/cgroup");
  // "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1; a system may have both.
  for (std::string number, controllers, path; std::getline(in, number, ':') &&
                                              std::getline(in, controllers, ':') &&
                                              std::getline(in, path);) {
    if (controllers.empty()) {
      collect(first_directory({mounts / "unified", mounts}), path, read_cpu_max, quotas);
    } else if (names_cpu(controllers)) {
      collect(first_directory({mounts / "cpu", mounts / controllers}), path, read_cfs, quotas);
    }
  }
  return quotas;
}

}  // namespace lockstep::trainer

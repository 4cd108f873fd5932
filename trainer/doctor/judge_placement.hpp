// What is wrong with a placement, judged from masks, quotas and hosts alone. Pure; thread-safe.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/doctor/finding.hpp"
#include "trainer/launcher.hpp"
#include "trainer/placement.hpp"

namespace lockstep::trainer {

// The ranks of one host, ascending.
struct HostRanks {
  std::string host;
  std::vector<std::size_t> ranks;
};

// In the order in which ranks come to them.
std::vector<HostRanks> by_host(std::span<const RankPlacement> placements);

// One finding of a kind at most, the worst first. A cause that explains another symptom is told
// alone: a host whose ranks are squeezed is not called bound as well.
std::vector<Finding> judge_placement(std::span<const RankPlacement> placements, Launcher launcher);

// One line that warns of the worst of it, and names `lockstep doctor`; none where nothing is wrong.
// Of cores that stand idle because few threads were asked for it says nothing.
std::optional<std::string> placement_warning(std::span<const RankPlacement> placements,
                                             Launcher launcher);

}  // namespace lockstep::trainer

// What the doctor found, as a text for people and as JSON for programs. Pure; thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/doctor/finding.hpp"
#include "trainer/doctor/measurements.hpp"
#include "trainer/launcher.hpp"
#include "trainer/placement.hpp"

namespace lockstep::trainer {

struct Diagnosis {
  std::string mpi;  // comm::mpi_library()
  Launcher launcher = Launcher::none;
  comm::ProbeOptions probe;  // whose message sizes the timings are of
  std::vector<RankPlacement> placements;
  Measurements measurements;
  std::vector<Finding> findings;
};

// Tables and advice, in lines of at most 80 columns; of many hosts or ranks some.
std::string report_text(const Diagnosis& diagnosis);

// All of it: seconds, bytes a second and operations a second.
nlohmann::ordered_json report_json(const Diagnosis& diagnosis);

// `text` in lines of at most `width` columns, cut between words; all but the first are indented.
std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

}  // namespace lockstep::trainer

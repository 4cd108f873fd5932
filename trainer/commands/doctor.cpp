// lockstep doctor: how ranks and threads are placed, how fast they compute and talk, what to mend.
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comm/probe.hpp"
#include "datasets/atomic_file.hpp"
#include "trainer/commands/commands.hpp"
#include "trainer/doctor/judge_placement.hpp"
#include "trainer/doctor/judge_rates.hpp"
#include "trainer/doctor/measurements.hpp"
#include "trainer/doctor/report.hpp"
#include "trainer/launcher.hpp"
#include "trainer/progress.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {

ExitCode doctor(const DoctorOptions& options, comm::Communicator& world) {
  std::optional<Progress> progress;  // of rank 0 alone
  if (world.rank() == 0) {
    progress.emplace();
    progress->line(
        fmt::format("lockstep {} doctor: measures for some seconds, best with nothing else running",
                    kProgramVersion));
  }
  const MeasureOptions measuring;
  Diagnosis found;
  found.mpi = comm::mpi_library();
  found.launcher = find_launcher(std::getenv);
  found.probe = measuring.probe;
  found.placements = find_placements(options.threads, world);
  found.measurements = measure(found.placements, world, measuring,
                               [&](std::string_view name, std::size_t done, std::size_t all) {
                                 if (progress) progress->stage(name, done, all);
                               });
  found.findings = judge_placement(found.placements, found.launcher);
  for (Finding& finding : judge_rates(found.placements, found.measurements, found.findings)) {
    found.findings.push_back(std::move(finding));
  }
  if (!progress) return ExitCode::done;
  progress->clear();
  fmt::print("{}", report_text(found));
  if (options.json) {
    const std::string text = report_json(found).dump(2) + '\n';
    datasets::write_file_atomically(*options.json, std::as_bytes(std::span(text)));
    fmt::print("written   {}\n", options.json->string());
  }
  return ExitCode::done;
}

}  // namespace lockstep::trainer

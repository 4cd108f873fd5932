#include "trainer/launcher.hpp"

namespace lockstep::trainer {

Launcher find_launcher(const std::function<const char*(const char*)>& value_of) {
  const auto is_set = [&](const char* name) { return value_of(name) != nullptr; };
  // mpirun first: within a batch job its ranks have the batch system's variables too. (Version 5 of
  // Open MPI, then version 4. Most others of its variables MPI_Init sets for anyone.)
  if (is_set("PRTE_LAUNCHED") || is_set("OMPI_MCA_orte_local_daemon_uri")) return Launcher::openmpi;
  if (is_set("HYDI_CONTROL_FD") || is_set("MPI_LOCALNRANKS")) return Launcher::hydra;
  if (is_set("SLURM_STEP_ID") && is_set("SLURM_PROCID")) return Launcher::slurm;
  return is_set("PMI_RANK") ? Launcher::hydra : Launcher::none;
}

std::string_view name_of(Launcher launcher) {
  switch (launcher) {
    case Launcher::openmpi:
      return "Open MPI's mpirun";
    case Launcher::slurm:
      return "srun";
    case Launcher::hydra:
      return "mpiexec (Hydra)";
    case Launcher::none:
      break;
  }
  return "";
}

}  // namespace lockstep::trainer

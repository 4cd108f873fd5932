// What started the ranks, since that is where a placement is mended. Pure.
#pragma once

#include <functional>
#include <string_view>

namespace lockstep::trainer {

enum class Launcher {
  none,     // the process was started alone
  openmpi,  // Open MPI's mpirun
  slurm,    // srun
  hydra,    // the mpirun or mpiexec of MPICH or Intel MPI
};

// Told from what they leave in the environment: `value_of` is like std::getenv, and null is not
// set.
Launcher find_launcher(const std::function<const char*(const char*)>& value_of);

// "Open MPI's mpirun"; empty for none.
std::string_view name_of(Launcher launcher);

}  // namespace lockstep::trainer

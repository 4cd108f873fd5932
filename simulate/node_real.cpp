#include <time.h>

#include <algorithm>

#include "comm/detail/mpi.hpp"
#include "simulate/node.hpp"

namespace lockstep::simulate {

// Asleep, so that the core is free for whoever moves messages; the last of it awake, for sleep ends
// late.
void pass_time(double seconds) {
  constexpr double awake = 100e-6;
  const double end = MPI_Wtime() + seconds;
  if (seconds > awake) {
    const double asleep = seconds - awake;
    const timespec nap{
        static_cast<time_t>(asleep),
        static_cast<long>((asleep - static_cast<double>(static_cast<time_t>(asleep))) * 1e9)};
    nanosleep(&nap, nullptr);
  }
  while (MPI_Wtime() < end) {
  }
}

void set_addition_bandwidth(double) {}
void share_all_memory() {}

}  // namespace lockstep::simulate

// The one door to mpi.h, with MPI's error codes and int counts made safe.
//
// For the sources of comm only. Local; thread-safe.
#pragma once

// Keeps the C++ bindings out, which older versions of OpenMPI still bring along.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstddef>
#include <string_view>

namespace lockstep::comm::detail {

// No message is longer than this many bytes; what is longer is cut. A multiple of 64, well below
// what an int can count.
inline constexpr std::size_t longest_message = std::size_t{1} << 30;

// Throws CommError with `what` and MPI's text for `code`, unless that is MPI_SUCCESS.
void check(int code, std::string_view what);

// The count, rank or tag as MPI wants it. Throws CommError if it does not fit.
int to_int(std::size_t value);

}  // namespace lockstep::comm::detail

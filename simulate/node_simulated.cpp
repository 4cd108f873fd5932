// Stands, by the linker's --wrap, between the sources of comm, which are compiled as they are, and what
// they call: in a simulation computing takes no time unless it is said how much.
#include <sched.h>
#include <simgrid/actor.h>
#include <simgrid/engine.h>
#include <smpi/mpi.h>
#include <sys/mman.h>

#include <unordered_map>

#include "comm/tree_sum.hpp"
#include "simulate/node.hpp"

namespace lockstep::simulate {
namespace {

double bandwidth = 0;  // of additions
bool memory_is_shared = false;
// Of a segment's memory its counters stay a rank's own (comm/detail/segment.hpp).
constexpr std::size_t kOwnBytes = std::size_t{64} << 10;

void move_bytes(std::size_t bytes) {
  if (bandwidth > 0) pass_time(static_cast<double>(bytes) / bandwidth);
}

}  // namespace

void pass_time(double seconds) {
  if (seconds > 0) sg_actor_sleep_for(seconds);
}

void set_addition_bandwidth(double bytes_per_second) { bandwidth = bytes_per_second; }
void share_all_memory() { memory_is_shared = true; }

}  // namespace lockstep::simulate

using namespace lockstep;

extern "C" {

// SMPI promises but one thread, and a simulated rank has no more: they take turns.
int __real_MPI_Init_thread(int*, char***, int, int*);
int __wrap_MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  const int code = __real_MPI_Init_thread(argc, argv, required, provided);
  *provided = required;
  return code;
}

// SimGrid 3.32 has only the duplicate that waits, and never says of an empty request that it is done.
int __wrap_MPI_Comm_idup(MPI_Comm comm, MPI_Comm* copy, MPI_Request* request) {
  const int code = MPI_Comm_dup(comm, copy);
  return code == MPI_SUCCESS ? MPI_Ibarrier(*copy, request) : code;
}

// SimGrid 3.32 takes the complete ones away when others are not, and empties their statuses the next
// time. This one leaves a status alone once it is there: comm gives the same array every time. A second
// look at the same moment of simulated time, of which a loop that polls takes many, sees nothing new,
// and a look at SimGrid's messages is dear.
int __wrap_MPI_Testall(int count, MPI_Request* requests, int* done, MPI_Status* statuses) {
  static auto& fruitless = *new std::unordered_map<MPI_Request*, double>;  // by set: the last look
  const auto last = fruitless.find(requests);
  *done = last == fruitless.end() || last->second != simgrid_get_clock();
  for (int i = 0; i < count && *done != 0; ++i) {
    if (requests[i] == MPI_REQUEST_NULL) continue;
    const int code = MPI_Test(&requests[i], done, &statuses[i]);
    if (code != MPI_SUCCESS) return code;
  }
  fruitless[requests] = *done != 0 ? -1.0 : simgrid_get_clock();
  return MPI_SUCCESS;
}

// SimGrid's own first reads the system's clock, as often as loops that poll ask for the time.
double __wrap_MPI_Wtime() { return simgrid_get_clock(); }

// Whoever waits yields (comm/detail/backoff.cpp): a simulated rank that yields must let time pass, or
// nothing that it waits for would ever come.
int __wrap_sched_yield() {
  simulate::pass_time(5e-6);
  return 0;
}

void* __real_mmap(void*, std::size_t, int, int, int, off_t);
int __real_munmap(void*, std::size_t);

// Segments of one rank alone (comm/detail/node_memory.cpp).
void* __wrap_mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t offset) {
  if (!simulate::memory_is_shared || file != -1 || bytes <= simulate::kOwnBytes) {
    return __real_mmap(at, bytes, protection, flags, file, offset);
  }
  const std::size_t shared[] = {simulate::kOwnBytes, bytes};
  return smpi_shared_malloc_partial(bytes, shared, 1);
}

int __wrap_munmap(void* at, std::size_t bytes) {
  if (!simulate::memory_is_shared || bytes <= simulate::kOwnBytes) return __real_munmap(at, bytes);
  smpi_shared_free(at);
  return 0;
}

// lockstep::comm::add_to reads both terms and writes one.
void __real__ZN8lockstep4comm6add_toEPfPKfm(float*, const float*, std::size_t);
void __wrap__ZN8lockstep4comm6add_toEPfPKfm(float* left, const float* right, std::size_t count) {
  simulate::move_bytes(3 * count * sizeof(float));
  if (!simulate::memory_is_shared) __real__ZN8lockstep4comm6add_toEPfPKfm(left, right, count);
}

}  // extern "C"

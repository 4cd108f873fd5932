// Stands, by the linker's --wrap, between the sources of comm, which are compiled as they are, and
// what they call: in a simulation computing takes no time unless it is said how much.
#include <sched.h>
#include <simgrid/actor.h>
#include <simgrid/engine.h>
#include <smpi/mpi.h>

#include <unordered_map>
#include <utility>

#include "comm/detail/exchange_state.hpp"
#include "comm/tree_sum.hpp"
#include "simulate/node.hpp"

namespace lockstep::simulate {
namespace {

double bandwidth = 0;    // of additions and copies
void* shared = nullptr;  // what all large messages are sent from and received into, if anything
constexpr std::size_t kSharedBytes = std::size_t{64} << 20;
constexpr int kSmall = 64;  // bytes

bool is_real(int bytes, int tag) {
  return shared == nullptr || bytes <= kSmall || tag < comm::detail::flag_tags;
}

constexpr std::size_t kPortion = std::size_t{256} << 10;  // bytes whose time passes at once

// Copies come chunk by chunk, and each time that passes is dear to simulate.
void move_bytes(std::size_t bytes) {
  static auto& unpaid = *new std::unordered_map<aid_t, std::size_t>;  // by rank
  std::size_t& portion = unpaid[sg_actor_self_get_pid()];
  portion += bytes;
  if (bandwidth == 0 || portion < kPortion) return;
  pass_time(static_cast<double>(std::exchange(portion, 0)) / bandwidth);
}

}  // namespace

void pass_time(double seconds) {
  if (seconds > 0) sg_actor_sleep_for(seconds);
}

void set_addition_bandwidth(double bytes_per_second) {
  bandwidth = bytes_per_second;
}
void share_all_memory() {
  if (shared == nullptr) shared = SMPI_SHARED_MALLOC(kSharedBytes);
}

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

// SimGrid 3.32 has only the duplicate that waits, and never says of an empty request that it is
// done.
int __wrap_MPI_Comm_idup(MPI_Comm comm, MPI_Comm* copy, MPI_Request* request) {
  *request = MPI_REQUEST_NULL;
  return MPI_Comm_dup(comm, copy);
}

int __real_MPI_Test(MPI_Request*, int*, MPI_Status*);
int __wrap_MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  if (*request != MPI_REQUEST_NULL) return __real_MPI_Test(request, done, status);
  *done = 1;
  return MPI_SUCCESS;
}

// SimGrid 3.32 takes the complete ones away when others are not, and empties their statuses the
// next time. This one leaves a status alone once it is there: comm gives the same array every time.
// A second look at the same moment of simulated time, of which a loop that polls takes many, sees
// nothing new, and a look at SimGrid's messages is dear.
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
double __wrap_MPI_Wtime() {
  return simgrid_get_clock();
}

// Whoever waits yields (comm/detail/backoff.cpp): a simulated rank that yields must let time pass,
// or nothing that it waits for would ever come.
int __wrap_sched_yield() {
  simulate::pass_time(5e-6);
  return 0;
}

// Messages from and to memory that SimGrid knows as shared are not copied; only small ones and what
// goes round with flags are real then.
int __real_MPI_Isend(const void*, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request*);
int __wrap_MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                     MPI_Request* request) {
  const bool real = simulate::is_real(count, tag);
  return __real_MPI_Isend(real ? data : simulate::shared, count, type, to, tag, comm, request);
}

int __real_MPI_Irecv(void*, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request*);
int __wrap_MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
                     MPI_Request* request) {
  const bool real = simulate::is_real(count, tag);
  return __real_MPI_Irecv(real ? data : simulate::shared, count, type, from, tag, comm, request);
}

// lockstep::comm::add_to reads both terms and writes one.
void __real__ZN8lockstep4comm6add_toEPfPKfm(float*, const float*, std::size_t);
void __wrap__ZN8lockstep4comm6add_toEPfPKfm(float* left, const float* right, std::size_t count) {
  simulate::move_bytes(3 * count * sizeof(float));
  if (simulate::shared == nullptr) __real__ZN8lockstep4comm6add_toEPfPKfm(left, right, count);
}

// lockstep::comm::TreeSum::at reads each term; what it makes of them stays in the cache.
const float* __real__ZN8lockstep4comm7TreeSum2atENS0_7SubtreeEmmPf(comm::TreeSum*, comm::Subtree,
                                                                   std::size_t, std::size_t,
                                                                   float*);
const float* __wrap__ZN8lockstep4comm7TreeSum2atENS0_7SubtreeEmmPf(comm::TreeSum* tree,
                                                                   comm::Subtree node,
                                                                   std::size_t offset,
                                                                   std::size_t count, float* out) {
  const std::size_t terms = tree->terms(node);
  if (terms > 1) simulate::move_bytes(terms * count * sizeof(float));
  if (simulate::shared != nullptr && terms > 1) return out;
  return __real__ZN8lockstep4comm7TreeSum2atENS0_7SubtreeEmmPf(tree, node, offset, count, out);
}

// lockstep::comm::TreeSum::write reads each term and writes their sum.
void __real__ZN8lockstep4comm7TreeSum5writeENS0_7SubtreeEmmPf(comm::TreeSum*, comm::Subtree,
                                                              std::size_t, std::size_t, float*);
void __wrap__ZN8lockstep4comm7TreeSum5writeENS0_7SubtreeEmmPf(comm::TreeSum* tree,
                                                              comm::Subtree node,
                                                              std::size_t offset, std::size_t count,
                                                              float* out) {
  simulate::move_bytes((tree->terms(node) + 1) * count * sizeof(float));
  if (simulate::shared != nullptr) return;
  __real__ZN8lockstep4comm7TreeSum5writeENS0_7SubtreeEmmPf(tree, node, offset, count, out);
}

// lockstep::comm::copy_to reads what it copies and, as a processor does, what it overwrites.
void __real__ZN8lockstep4comm7copy_toEPfPKfm(float*, const float*, std::size_t);
void __wrap__ZN8lockstep4comm7copy_toEPfPKfm(float* left, const float* right, std::size_t count) {
  simulate::move_bytes(3 * count * sizeof(float));
  if (simulate::shared == nullptr) __real__ZN8lockstep4comm7copy_toEPfPKfm(left, right, count);
}

}  // extern "C"

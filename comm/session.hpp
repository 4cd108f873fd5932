// The life of MPI in this process: from MPI_Init_thread to MPI_Finalize or MPI_Abort.
//
// Owns MPI itself and every communicator made from world(); one Session per process. Construction
// and finalize() are collective and, being MPI's own, start with a wait that no time limit bounds;
// abort() and the queries are local. MPI calls may come from any thread, but never from two at once
// (MPI_THREAD_SERIALIZED).
//
// The destructor calls no MPI: MPI_Finalize waits for the other ranks, and during an exception that
// is a hang. A program therefore ends in one of two ways:
//
//   int code = 0;
//   try {
//     together(session.world(), exit_code_of, [&] { code = run(); });
//   } catch (const RemoteError& error) {
//     code = error.exit_code;            // the origin prints
//   } catch (const std::exception& error) {
//     print(error.what());
//     code = exit_code_of(std::current_exception());
//   }
//   if (!session.in_step()) session.abort(code);
//   session.finalize();
//   return code;
#pragma once

#include <memory>

#include "comm/communicator.hpp"

namespace lockstep::comm {

class Session {
 public:
  // Throws CommError if MPI cannot be initialised or does not let threads take turns.
  Session(int& argc, char**& argv);
  ~Session();
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // All ranks of the program, node after node; rank 0 is the launcher's. Lives as long as the
  // Session, also when that is moved.
  Communicator& world();

  // False once a wait was given up on any rank that this one has heard of (time limit, failed
  // communication, another rank's error in the middle of a collective). Then messages may still be
  // under way, finalize() might never return, and abort() is the only way out.
  bool in_step() const noexcept;

  // Collective: waits, within the time limit, until all ranks are here, frees all communicators and
  // ends MPI. Throws CommError if a rank does not come or in_step() is false.
  void finalize();

  // Ends all ranks with `exit_code`, 1..255 (anything else becomes 1: MPI_Abort(0), (256), … would
  // let mpirun report success). Flushes stdio first. A rank that leaves because of a RemoteError
  // waits up to two seconds to be ended by the origin, whose message must come out first.
  [[noreturn]] void abort(int exit_code) noexcept;

  // Whether MPI is initialised and not yet finalized.
  static bool active();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::comm

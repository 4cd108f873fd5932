// The ways in which a rank can fail, as a program: session_faults CASE. session_test runs it under
// mpirun and looks at its exit code, output and time. The program ends as session.hpp says that one
// should.

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/error.hpp"
#include "comm/parameter_exchange.hpp"
#include "comm/probe.hpp"
#include "comm/session.hpp"
#include "comm/together.hpp"

namespace {

using lockstep::comm::CommError;
using lockstep::comm::Communicator;
using lockstep::comm::ParameterExchange;
using lockstep::comm::RankPair;
using lockstep::comm::RemoteError;
using lockstep::comm::Session;
using lockstep::comm::time_pairs;

constexpr int comm_code = 4;
constexpr int work_code = 3;

int exit_code_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const CommError&) {
    return comm_code;
  } catch (...) {
    return work_code;
  }
}

// The last rank stays away.
bool is_last(const Communicator& world) {
  return world.rank() + 1 == world.size();
}

// sum_FAULT through the node's memory, messages_FAULT through messages.
void sum_forever(Communicator& world, const std::string& how) {
  const std::string fault = how.substr(how.find('_') + 1);
  ParameterExchange exchange(world, 8, 3'000'000, {.shared_memory = how.starts_with("sum_")});
  exchange.set_move([](std::size_t, std::span<const float>, std::span<float>, unsigned) {});
  const std::vector<std::uint8_t> present(8, 1);
  for (int step = 0;; ++step) {
    if (step == 5 && is_last(world)) {
      exchange.set_phase("forward");
      if (fault == "throw") throw std::runtime_error("broken in step 5");
      if (fault == "sleep") sleep(60);
      if (fault == "kill") raise(SIGKILL);
      if (fault == "stop") raise(SIGSTOP);
    }
    exchange.set_phase("forward");
    exchange.begin(present, 0);
    exchange.set_phase("backward");
    exchange.final_from(0);
    exchange.finish();
  }
}

void run(Communicator& world, const std::string& how) {
  if (how == "done") return;
  if (how == "no_child" && waitpid(-1, nullptr, WNOHANG) == 0) {
    throw std::runtime_error("there is a child process");
  }
  if (how == "throw" && is_last(world)) throw std::runtime_error("bad input");
  if (how == "throw_all") throw std::runtime_error("bad input");
  if (how == "barrier_sleep") {
    if (is_last(world)) sleep(60);
    world.barrier();
  }
  if (how == "barrier_throw") {
    if (is_last(world)) throw std::runtime_error("bad input");
    world.barrier();
  }
  if (how == "probe_sleep" && world.size() > 1) {
    const std::vector<RankPair> pairs{{0, world.size() - 1}};
    // Long messages, so that MPI is left with their memory.
    time_pairs(world, pairs, {.small_bytes = std::size_t{1} << 22}, [&](std::size_t) {
      if (is_last(world)) sleep(60);
    });
  }
  if (how.starts_with("sum_") || how.starts_with("messages_")) sum_forever(world, how);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  Session session(argc, argv);
  session.world().set_timeout(1.0);
  if (how.starts_with("abort ")) session.abort(std::stoi(how.substr(6)));
  int code = 0;
  try {
    together(session.world(), exit_code_of, [&] { run(session.world(), how); });
  } catch (const RemoteError& error) {
    code = error.exit_code;
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    code = exit_code_of(std::current_exception());
  }
  if (!session.in_step()) session.abort(code);
  session.finalize();
  return code;
}

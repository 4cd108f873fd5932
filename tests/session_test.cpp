#include "comm/session.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace lockstep::comm {
namespace {

struct Ending {
  int exit_code = -1;
  double seconds = 0.0;
  std::string output;  // of all ranks
  int errors = 0;      // lines that begin with "error:"
};

// Runs session_faults CASE on `ranks` ranks (0: alone, without mpirun), with a limit so that a hang
// is a failure.
Ending run(const std::string& fault, int ranks) {
  const std::string mpirun =
      ranks == 0 ? "" : MPIEXEC " --oversubscribe --bind-to none -np " + std::to_string(ranks);
  const std::string command = "timeout 40 " + mpirun + " " SESSION_FAULTS " '" + fault + "' 2>&1";
  Ending ending;
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return ending;
  std::array<char, 4096> line{};
  while (fgets(line.data(), line.size(), pipe) != nullptr) {
    ending.output += line.data();
    if (std::string(line.data()).starts_with("error:")) ++ending.errors;
  }
  const int status = pclose(pipe);
  ending.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (WIFEXITED(status)) ending.exit_code = WEXITSTATUS(status);
  return ending;
}

// Seconds within which a run must end by itself, generous for a busy machine.
constexpr double soon = 15.0;

TEST(Session, EndsInOrder) {
  for (const int ranks : {0, 1, 3}) {
    const Ending ending = run("done", ranks);
    EXPECT_EQ(ending.exit_code, 0) << ending.output;
    EXPECT_LT(ending.seconds, soon);
  }
}

TEST(Session, OneErrorEndsAllWithOneMessageAndItsCode) {
  for (const char* const fault :
       {"throw", "throw_all", "barrier_throw", "sum_throw", "messages_throw"}) {
    for (const int ranks : {1, 3}) {
      const Ending ending = run(fault, ranks);
      EXPECT_EQ(ending.exit_code, 3) << fault << " on " << ranks << "\n" << ending.output;
      EXPECT_EQ(ending.errors, 1) << fault << " on " << ranks << "\n" << ending.output;
      EXPECT_LT(ending.seconds, soon) << fault << " on " << ranks;
    }
  }
}

// The time limit is one second in session_faults; the absent rank would sleep for sixty.
TEST(Session, ARankThatDoesNotAnswerIsNamedWithinTheTimeLimit) {
  for (const char* const fault : {"barrier_sleep", "sum_sleep", "messages_sleep", "probe_sleep"}) {
    for (const int ranks : {2, 4}) {
      const Ending ending = run(fault, ranks);
      EXPECT_EQ(ending.exit_code, 4) << fault << " on " << ranks << "\n" << ending.output;
      EXPECT_EQ(ending.errors, 1) << fault << " on " << ranks << "\n" << ending.output;
      EXPECT_NE(ending.output.find("\n  rank " + std::to_string(ranks - 1) + ": no answer"),
                std::string::npos)
          << ending.output;
      EXPECT_GE(ending.seconds, 1.0);
      EXPECT_LT(ending.seconds, soon) << fault << " on " << ranks;
    }
  }
}

TEST(Session, AKilledRankEndsAll) {
  for (const char* const fault : {"sum_kill", "messages_kill"}) {
    const Ending ending = run(fault, 3);
    EXPECT_NE(ending.exit_code, 0) << ending.output;
    EXPECT_LT(ending.seconds, soon);
  }
}

// It cannot say where it is; its memory can, to the ranks of its node, and the others do so
// themselves.
TEST(Session, WhereEachRankIsIsSaidWhenOneIsStopped) {
  const Ending shared = run("sum_stop", 3);
  EXPECT_EQ(shared.exit_code, 4) << shared.output;
  EXPECT_EQ(shared.errors, 1) << shared.output;
  EXPECT_LT(shared.seconds, soon);
  EXPECT_NE(shared.output.find("in the gradient exchange of step 6 (flags)"), std::string::npos)
      << shared.output;
  EXPECT_NE(shared.output.find("\n  ranks 0, 1: step 6, backward, bucket 1 of 12"),
            std::string::npos)
      << shared.output;
  EXPECT_NE(shared.output.find("\n  rank 2: no answer; its memory says: step 5, forward"),
            std::string::npos)
      << shared.output;

  const Ending apart = run("messages_stop", 3);
  EXPECT_EQ(apart.exit_code, 4) << apart.output;
  EXPECT_NE(apart.output.find("\n  rank 2: no answer\n"), std::string::npos) << apart.output;
  EXPECT_NE(apart.output.find("\n  ranks 0, 1: step 6, backward"), std::string::npos)
      << apart.output;
}

TEST(Session, AbortNeverReportsSuccess) {
  for (const int code : {-1, 0, 256, 512}) {
    EXPECT_EQ(run("abort " + std::to_string(code), 2).exit_code, 1) << code;
  }
  EXPECT_EQ(run("abort 5", 2).exit_code, 5);
  EXPECT_EQ(run("abort 5", 1).exit_code, 5);
}

TEST(Session, AProcessAloneStartsNoOther) {
  const Ending ending = run("no_child", 0);
  EXPECT_EQ(ending.exit_code, 0) << ending.output;
}

TEST(Session, IsNotActiveOutsideOne) {
  EXPECT_FALSE(Session::active());
}

}  // namespace
}  // namespace lockstep::comm

#include "trainer/stop_signal.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <string>
#include <thread>

namespace lockstep::trainer {
namespace {

// How the child ends that runs `body`: its exit code, or minus the signal that killed it.
template <class Body>
int end_of_child(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);  // a test may have been started with it ignored
    _exit(body());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(StopSignal, IsQuietUntilASignalComes) {
  const StopSignal stop;
  EXPECT_FALSE(stop.requested());
  EXPECT_STREQ(stop.name(), "");
}

TEST(StopSignal, RemembersEachOfItsSignals) {
  const struct {
    int number;
    std::string name;
  } signals[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}};
  for (const auto& signal : signals) {
    const StopSignal stop;  // each starts anew
    EXPECT_FALSE(stop.requested());
    raise(signal.number);
    EXPECT_TRUE(stop.requested());
    EXPECT_EQ(stop.name(), signal.name);
  }
}

TEST(StopSignal, OthersStillEndTheProcess) {
  EXPECT_EQ(end_of_child([] {
              const StopSignal stop;
              raise(SIGUSR2);
              return 0;
            }),
            -SIGUSR2);
}

TEST(StopSignal, SecondInterruptEndsTheProcess) {
  EXPECT_EQ(end_of_child([] {
              const StopSignal stop;
              raise(SIGINT);
              if (!stop.requested()) return 1;
              raise(SIGINT);
              return 0;
            }),
            -SIGINT);
}

// A batch system may send more than one of these before it kills.
TEST(StopSignal, SecondTerminationDoesNot) {
  EXPECT_EQ(end_of_child([] {
              const StopSignal stop;
              for (int i = 0; i < 3; ++i) {
                raise(SIGTERM);
                raise(SIGUSR1);
              }
              return stop.requested() ? 7 : 1;
            }),
            7);
}

TEST(StopSignal, PutsTheOldHandlersBack) {
  EXPECT_EQ(end_of_child([] {
              std::signal(SIGTERM, SIG_IGN);
              { const StopSignal stop; }
              raise(SIGTERM);
              { const StopSignal stop; }
              raise(SIGINT);
              return 0;
            }),
            -SIGINT);
}

TEST(StopSignal, LateOnesAreIgnoredOnDemand) {
  EXPECT_EQ(end_of_child([] {
              {
                StopSignal stop;
                stop.ignore_late_ones();
                raise(SIGUSR1);
                if (!stop.requested()) return 1;  // not before its end
              }
              raise(SIGTERM);
              raise(SIGUSR1);
              return 7;
            }),
            7);
}

TEST(StopSignal, DoesNotCutSystemCallsShort) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const StopSignal stop;
  const pthread_t reader = pthread_self();
  std::thread other([&] {
    // Let the read below begin; if it has not, the test passes without having shown anything.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    pthread_kill(reader, SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(write(ends[1], "x", 1), 1);
  });
  char c = 0;
  EXPECT_EQ(read(ends[0], &c, 1), 1);
  other.join();
  EXPECT_TRUE(stop.requested());
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace lockstep::trainer

#include "trainer/stop_signal.hpp"

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <system_error>

namespace lockstep::trainer {
namespace {

constexpr std::array<int, 3> kSignals{SIGTERM, SIGINT, SIGUSR1};

// A handler may touch lock-free atomics alone, and needs to find them: hence not a member.
std::atomic<int> received{0};
std::atomic<bool> alive{false};
static_assert(std::atomic<int>::is_always_lock_free);

void remember(int signal) {
  received.store(signal, std::memory_order_relaxed);
}

}  // namespace

StopSignal::StopSignal() {
  [[maybe_unused]] const bool other = alive.exchange(true);
  assert(!other && "one StopSignal at a time");
  received = 0;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction action {};
    action.sa_handler = remember;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    // The default comes back with the first Ctrl-C, so that the second one ends the process.
    if (kSignals[i] == SIGINT) action.sa_flags |= static_cast<int>(SA_RESETHAND);
    if (::sigaction(kSignals[i], &action, &before_[i]) != 0) {
      throw std::system_error(errno, std::generic_category(), "cannot set up a signal's handler");
    }
  }
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  alive = false;
}

bool StopSignal::requested() const {
  return received.load(std::memory_order_relaxed) != 0;
}

const char* StopSignal::name() const {
  switch (received.load(std::memory_order_relaxed)) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "";
  }
}

void StopSignal::ignore_late_ones() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    if (kSignals[i] == SIGINT) continue;  // Ctrl-C is for whoever waits at a terminal
    before_[i] = {};
    before_[i].sa_handler = SIG_IGN;
    sigemptyset(&before_[i].sa_mask);
  }
}

}  // namespace lockstep::trainer

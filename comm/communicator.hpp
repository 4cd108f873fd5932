// A group of ranks that make collective calls together, every wait among them bounded.
//
// Ranks are 0..size()-1, those of one node neighbours. Every call is collective (all ranks make it,
// in the same order) unless it says local. A handle that is move-only and moved-from is null; the
// MPI communicator behind it is a duplicate of its own and is freed by Session::finalize, never by
// this destructor, since freeing is collective. Not thread-safe: one call at a time over all
// communicators of a session.
//
// Errors: each call throws CommError if communication fails or another rank does not answer within
// the time limit, and RemoteError if another rank reports that its work failed (together.hpp).
// After either the communicator is broken, and later calls on it throw CommError at once.
//
// These calls carry what a run needs to agree on: kilobytes, seldom, so each rank talks to each
// other directly and an error can name who is missing. Gradients take ParameterExchange. Data
// travel through buffers of the communicator, so that a wait that is given up never leaves the
// caller's memory in MPI's hands. With one rank nothing is sent, and no call can fail.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::comm {

namespace detail {
struct CommunicatorState;
}

class Communicator {
 public:
  explicit Communicator(std::unique_ptr<detail::CommunicatorState> state);
  ~Communicator();
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // Local.
  std::size_t rank() const;
  std::size_t size() const;
  std::size_t local_rank() const;  // among the ranks that share this node's memory
  std::size_t local_size() const;

  // Local. How many seconds any wait for another rank may take (300 at first), for this
  // communicator and all of the same session.
  void set_timeout(double seconds);
  double timeout() const;

  // The same ranks with messages of their own, which never meet those of this communicator.
  Communicator duplicate();

  // Returns when all ranks have called it.
  void barrier();

  // data = root's data; the same size on all ranks.
  void broadcast(std::span<std::byte> data, std::size_t root);

  // text = root's text, of any length.
  void broadcast(std::string& text, std::size_t root);

  // Everybody's string, in rank order.
  std::vector<std::string> gather_strings(std::string_view mine);

  // all = the ranks' values in rank order. counts[r] is how many rank r gives, the same on all
  // ranks; mine has counts[rank()], all has their sum. Throws std::invalid_argument otherwise.
  void all_gather(std::span<const double> mine, std::span<const std::size_t> counts,
                  std::span<double> all);

  // Whether `mine` is true on any rank.
  bool any(bool mine);

  // For the other parts of comm.
  detail::CommunicatorState& state() { return *state_; }

 private:
  std::unique_ptr<detail::CommunicatorState> state_;
};

}  // namespace lockstep::comm

// What stands behind ParameterExchange: its parts, who drives them, and how it waits.
//
// For the sources of comm only. Driven by whoever holds the session's lock: the caller while it
// waits or makes progress, else the exchange's thread, if there is one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/detail/backoff.hpp"
#include "comm/detail/boards.hpp"
#include "comm/detail/bucket_exchange.hpp"
#include "comm/detail/exchange_state.hpp"
#include "comm/detail/flag_exchange.hpp"
#include "comm/detail/node_memory.hpp"
#include "comm/detail/requests.hpp"
#include "comm/parameter_exchange.hpp"

namespace lockstep::comm {

struct ParameterExchange::State {
  State(Communicator& parent, std::size_t leaves, std::size_t element_count,
        const Options& options);
  ~State() { stop_thread(); }

  void stop_thread();

  // Who shares memory with whom, and the memory.
  void arrange(Communicator& parent, const Options& options);
  void set_hierarchy(const detail::Hierarchy& hierarchy);
  void plan_buckets(const Options& options);
  // Goes on as far as it can without waiting; true if it came further.
  bool advance();
  bool land_one();
  void note_idle_links();
  void drive_in_background();
  // Until done(); throws what Communicator says. The time limit counts from when something last
  // came.
  void wait_until(const std::function<bool()>& done);
  // Sends or receives, through memory of this object; of at most most_transferred floats.
  static constexpr std::size_t most_transferred = std::size_t{1} << 20;
  void transfer(std::size_t peer, std::span<const float> out, std::span<float> in);
  [[noreturn]] void run_out_of_time(double seconds) const;
  std::string ranks_without_post() const;  // at `place`
  bool moved_before(std::size_t end) const;
  detail::BucketExchange& bucket_with(std::size_t element);
  bool all_done() const { return flags->done() && first_open == buckets.size(); }
  bool outstanding() const;
  void note_status();
  std::string look_at(std::size_t other) const;

  std::size_t rank;
  std::size_t ranks;
  std::size_t elements;
  std::size_t extra;
  std::string why_not_shared;
  detail::ExchangeState shared;
  detail::NodeMemory memory;
  detail::Boards boards;
  std::optional<std::size_t> place;  // of the boards, that the caller waits for
  std::size_t segment_bytes = 0;
  std::optional<Communicator> communicator;  // none with one rank
  std::optional<detail::FlagExchange> flags;
  std::vector<detail::BucketExchange> buckets;
  std::size_t first_open = 0;  // no bucket before it is under way
  double seconds_waited = 0;
  bool watched = false;  // the session asks it about other ranks
  detail::AlignedFloats staging;
  detail::Requests gathering;

  // Whoever drives the exchange holds this lock of the session, and with it the right to call MPI.
  std::mutex& lock;
  std::exception_ptr error;               // of the thread, for the caller
  std::atomic<std::uint64_t> begun{0};    // steps; the thread sleeps until there is another one
  std::atomic<bool> caller_waits{false};  // and drives, so the thread need not
  std::atomic<bool> stopping{false};
  std::thread thread;
};

}  // namespace lockstep::comm

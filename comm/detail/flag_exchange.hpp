// Each step, every rank learns which flags any rank raised, and, where replicas are watched, each
// owner's words (parameter_watch.hpp): all of them are or-ed together.
//
// A state machine without waits. Within a group they are read from the members' memory; between G
// groups it takes ceil(log2 G) rounds of one message, in round k to the group 2^k further on
// (dissemination: D. Hensgen, R. Finkel, U. Manber, Int. J. Parallel Programming 17, 1988), of 8
// bytes and as much for each 4 KiB of parameters. Nobody knows the flags before all ranks have
// begun the step. Refers to the ExchangeState; not thread-safe; allocates in the first step alone.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/detail/exchange_state.hpp"
#include "comm/detail/requests.hpp"

namespace lockstep::comm::detail {

class FlagExchange {
 public:
  explicit FlagExchange(ExchangeState& state);

  // Starts a new step, of which this rank raises `flags`.
  void begin(std::uint64_t flags);

  // Goes on as far as it can without waiting. True if it came further. Throws CommError.
  bool advance();

  bool done() const { return stage_ == Stage::done; }
  std::uint64_t raised() const { return words_.front(); }  // once done

  bool outstanding() const { return requests_.outstanding(); }
  std::string missing() const;

 private:
  enum class Stage { gathering, exchanging, done };

  bool gather();
  void start_round();
  bool exchange();
  void finish();

  ExchangeState& state_;
  Stage stage_ = Stage::done;
  std::size_t rounds_ = 0;
  std::size_t round_ = 0;

  // Of all ranks that were heard of so far: the flags, then the words of the watch.
  std::vector<std::uint64_t> words_ = {0};
  std::vector<std::uint64_t> received_;
  Requests requests_;
};

}  // namespace lockstep::comm::detail

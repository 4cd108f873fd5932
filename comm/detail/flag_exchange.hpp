// Each step, every rank learns which flags any rank raised.
//
// A state machine without waits. Within a group flags are read from the members' memory; between G
// groups it takes ceil(log2 G) rounds of one small message, in round k to the group 2^k further on
// (dissemination: D. Hensgen, R. Finkel, U. Manber, Int. J. Parallel Programming 17, 1988). Nobody
// knows the flags before all ranks have begun the step. Refers to the ExchangeState; not
// thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>

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
  std::uint64_t raised() const { return raised_; }  // once done

  bool outstanding() const { return requests_.outstanding(); }
  std::string missing() const;

 private:
  enum class Stage { gathering, exchanging, done };

  bool gather();
  void start_round();
  bool exchange();

  ExchangeState& state_;
  Stage stage_ = Stage::done;
  std::size_t rounds_ = 0;
  std::size_t round_ = 0;
  std::uint64_t raised_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t sent_ = 0;
  Requests requests_;
};

}  // namespace lockstep::comm::detail

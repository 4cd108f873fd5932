// Brings together numbers of which each rank has those of its share of the parameters: squares of
// chunks, say.
//
// Owns its memory, all of it from the start, so that steps may gather. One caller at a time. Views
// the communicator.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/parameter_exchange.hpp"

namespace lockstep::trainer {

class ShareGather {
 public:
  // numbers_before(e) says how many numbers belong to the elements before `e`, which is a multiple
  // of comm::chunk or the end of what is exchanged. Local.
  ShareGather(const comm::ParameterExchange& exchange, comm::Communicator& communicator,
              const std::function<std::size_t(std::size_t)>& numbers_before);
  ShareGather(const ShareGather&) = delete;  // own_ looks into ranges_
  ShareGather& operator=(const ShareGather&) = delete;

  // Collective. Each rank has its own numbers in their places; then all ranks have all.
  void gather(std::span<double> numbers);

 private:
  struct Range {
    std::size_t begin;
    std::size_t count;
  };

  comm::Communicator& communicator_;
  std::vector<Range> ranges_;  // rank by rank
  std::span<const Range> own_;
  std::vector<std::size_t> counts_;  // numbers of each rank
  std::vector<double> mine_;
  std::vector<double> all_;
};

}  // namespace lockstep::trainer

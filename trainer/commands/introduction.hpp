// What a run says of itself before its first step: the program, the data, the model, how it is
// trained, and how its ranks work together; slower ways than might be had are warnings.
//
// Local; for rank 0, which has the record.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "datasets/dataset.hpp"
#include "trainer/config.hpp"
#include "trainer/run_record.hpp"
#include "trainer/training.hpp"

namespace lockstep::trainer {

struct Placed {
  std::size_t ranks;
  std::size_t threads;                 // of each
  std::optional<std::string> warning;  // of where they may run
};

void introduce(RunRecord& record, const Config& config, const Training& training,
               const datasets::Dataset& data, const Placed& placed);

}  // namespace lockstep::trainer

// What goes into the network at each step: the samples of a batch, decoded before they are needed.
//
// While a step computes, other threads of the arena decode the samples of the next one into a
// second buffer, and the step finds them there. Where there is no other thread, or where handing
// out the work would cost more than it takes, samples are decoded when they are asked for, and the
// processor is told which come next: a few samples by the backward pass, as it goes. The values are
// the same. Nothing is allocated but by the constructor. One caller at a time; local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "datasets/dataset.hpp"
#include "nn/network.hpp"
#include "trainer/background.hpp"
#include "trainer/batch.hpp"

namespace lockstep::trainer {

class Input {
 public:
  // For up to `rows` samples at a time, on the threads of the current task arena. With `ahead`
  // there is a second buffer, if it is of use at all. Views the network and the data.
  Input(const nn::Network<float>& network, const datasets::Dataset& data, std::size_t rows,
        bool ahead);

  // Samples `rows` are in workspace.input(), and targets() are theirs. `next` says what will be
  // asked for the next time, or is empty; decoding of it may begin.
  void bring(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> next,
             nn::Workspace<float>& workspace);

  nn::Targets<float> targets() const { return now_->targets(); }

  // Cache lines of the next samples, which the network's pass is to ask for (nn::Pass); none where
  // these are many, or decoded by another thread.
  std::span<const void* const> upcoming() const { return upcoming_; }

  // Whether other threads are decoding, or have decoded, the next samples.
  bool decodes_ahead() const { return background_.under_way(); }
  // How often bring() found that its samples had been decoded ahead.
  std::uint64_t times_ahead() const { return times_ahead_; }

 private:
  bool worth_a_task(std::size_t rows) const;
  bool left_to_pass(std::size_t rows) const;

  const datasets::Dataset& data_;
  std::size_t features_;
  bool pass_asks_;                  // the network's backward pass asks for upcoming()
  std::vector<const void*> lines_;  // room for upcoming_
  std::span<const void* const> upcoming_;
  Batch batches_[2];
  Batch* now_ = &batches_[0];
  Batch* later_ = &batches_[1];
  nn::Matrix<float> later_inputs_;         // empty without a second buffer
  std::vector<std::uint32_t> later_rows_;  // what they hold once background_ is done
  std::uint64_t times_ahead_ = 0;
  Background background_;  // last: it ends before what it writes to
};

}  // namespace lockstep::trainer

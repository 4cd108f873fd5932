// What a run has to remember between two steps, beside tensors.
//
// Plain values, the same on every rank. A checkpoint holds one, each member under its name.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace lockstep::trainer {

struct TrainingState {
  std::uint64_t epoch = 0;                    // epochs finished
  std::uint64_t step = 0;                     // updates done in all
  std::uint64_t step_in_epoch = 0;            // updates done in the epoch under way
  std::vector<double> epoch_loss_by_leaf;     // sums over the samples of the epoch under way
  std::vector<double> epoch_correct_by_leaf;  // how many of them were classified right
  double best_validation_loss = std::numeric_limits<double>::infinity();
  std::uint64_t best_epoch = 0;  // from 1; 0: none yet
  std::uint64_t epochs_without_improvement = 0;
  double seconds = 0;                                            // training time so far
  double train_loss = std::numeric_limits<double>::quiet_NaN();  // of the last epoch that ended
  double gradient_norm = 0;                                      // of the last step
  bool finished = false;
};

// Calls visit(name, pointer to member) for each member, in this order, which a checkpoint's
// checksum relies on.
template <class Visitor>
void for_each_state_member(Visitor&& visit) {
  visit("epoch", &TrainingState::epoch);
  visit("step", &TrainingState::step);
  visit("step_in_epoch", &TrainingState::step_in_epoch);
  visit("epoch_loss_by_leaf", &TrainingState::epoch_loss_by_leaf);
  visit("epoch_correct_by_leaf", &TrainingState::epoch_correct_by_leaf);
  visit("best_validation_loss", &TrainingState::best_validation_loss);
  visit("best_epoch", &TrainingState::best_epoch);
  visit("epochs_without_improvement", &TrainingState::epochs_without_improvement);
  visit("seconds", &TrainingState::seconds);
  visit("train_loss", &TrainingState::train_loss);
  visit("gradient_norm", &TrainingState::gradient_norm);
  visit("finished", &TrainingState::finished);
}

}  // namespace lockstep::trainer

#include "trainer/training_step.hpp"

#include <algorithm>
#include <cmath>

namespace lockstep::trainer {
namespace {

// Flags of the reduction.
constexpr unsigned kStop = 1;
constexpr unsigned kDiverged = 2;

// The most samples that the leaves of a rank can hold in batches of up to `largest_batch`.
std::size_t most_rows(comm::LeafRange leaves, std::size_t all_leaves, std::size_t largest_batch) {
  const std::size_t owned = leaves.end - leaves.begin;
  return std::min(largest_batch, owned * ((largest_batch + all_leaves - 1) / all_leaves));
}

}  // namespace

TrainingStep::TrainingStep(const nn::Network<float>& network, const datasets::Dataset& data,
                           comm::Communicator& communicator, std::size_t leaves,
                           std::size_t largest_batch, std::uint64_t seed, bool ahead)
    : network_(network),
      seed_(seed),
      alone_(communicator.size() == 1),
      others_(others_can_work()),
      leaves_(comm::leaves_of_rank(communicator.rank(), communicator.size(), leaves)),
      reduction_(communicator, leaves, network.layout().buffer_size()),
      bounds_(leaves),
      workspace_(network, most_rows(leaves_, leaves, largest_batch), true),
      input_(network, data, most_rows(leaves_, leaves, largest_batch), ahead),
      sample_loss_(most_rows(leaves_, leaves, largest_batch)),
      sample_correct_(sample_loss_.size()) {
  for (const comm::Subtree& subtree : reduction_.subtrees()) {
    subtree_rows_.emplace_back(subtree.size + 1);
  }
  present_subtrees_.reserve(subtree_rows_.size());
  present_leaves_.reserve(leaves_.end - leaves_.begin);
}

TrainingStep::Outcome TrainingStep::run(std::uint64_t step, std::span<const std::uint32_t> batch,
                                        std::span<const std::uint32_t> next,
                                        nn::Optimizer<float>& optimizer,
                                        std::span<float> parameters, std::span<double> leaf_loss,
                                        std::span<double> leaf_correct, Wish wish) {
  if (bounds_.set_batch(batch.size())) cut_into_leaves();
  const auto rows = own_part(batch);
  Outcome outcome;
  input_.bring(rows, own_part(next), workspace_);
  outcome.input_ready = std::chrono::steady_clock::now();
  const auto rest = [&] {
    compute(step, batch.size(), rows, optimizer, parameters, leaf_loss, leaf_correct, wish,
            outcome);
  };
  if (others_) {
    apart_from_background(rest);
  } else {
    rest();
  }
  return outcome;
}

void TrainingStep::compute(std::uint64_t step, std::size_t samples,
                           std::span<const std::uint32_t> rows, nn::Optimizer<float>& optimizer,
                           std::span<float> parameters, std::span<double> leaf_loss,
                           std::span<double> leaf_correct, Wish wish, Outcome& outcome) {
  const std::size_t first = bounds_.begin(leaves_.begin);
  if (alone_ && !wish.stop && !wish.gradient_norm) {
    const nn::Update<float> update = optimizer.rule_at(step, samples, parameters);
    outcome.diverged =
        !compute_gradients(step, rows, first, parameters, leaf_loss, leaf_correct, &update);
    return;
  }
  const bool finite = rows.empty() || compute_gradients(step, rows, first, parameters, leaf_loss,
                                                        leaf_correct, nullptr);
  // The ranks must agree on both.
  const auto [gradient, raised] =
      reduction_.sum(bounds_.present(), (wish.stop ? kStop : 0) | (finite ? 0 : kDiverged));
  outcome.stop = (raised & kStop) != 0;
  outcome.diverged = (raised & kDiverged) != 0;
  if (wish.gradient_norm || outcome.stop) {
    outcome.gradient_norm = std::sqrt(optimizer.mean_gradient_squares(samples, gradient));
    outcome.diverged = outcome.diverged || !std::isfinite(*outcome.gradient_norm);
  }
  optimizer.update(step, samples, parameters, gradient);
}

std::span<const std::uint32_t> TrainingStep::own_part(std::span<const std::uint32_t> batch) const {
  const std::size_t leaves = bounds_.leaves();
  const std::size_t first = leaves_.begin * batch.size() / leaves;
  return batch.subspan(first, leaves_.end * batch.size() / leaves - first);
}

bool TrainingStep::compute_gradients(std::uint64_t step, std::span<const std::uint32_t> rows,
                                     std::size_t first_sample, std::span<const float> parameters,
                                     std::span<double> leaf_loss, std::span<double> leaf_correct,
                                     const nn::Update<float>* update) {
  const nn::Pass pass{.training = true, .seed = seed_, .step = step, .first_sample = first_sample};
  const auto outputs = network_.forward(pass, parameters, rows.size(), workspace_);
  nn::evaluate_loss<float>(network_.loss(), outputs, input_.targets(), sample_loss_,
                           sample_correct_, workspace_.d_outputs().top(rows.size()));
  const bool finite = add_leaf_sums(first_sample, leaf_loss, leaf_correct);
  for (nn::SubtreeGradient<float>& subtree : present_subtrees_) subtree.update = update;
  network_.backward(pass, parameters, rows.size(), workspace_, present_subtrees_);
  return finite;
}

bool TrainingStep::add_leaf_sums(std::size_t first_sample, std::span<double> leaf_loss,
                                 std::span<double> leaf_correct) const {
  bool finite = true;
  const bool classes = !input_.targets().labels.empty();
  for (const std::size_t leaf : present_leaves_) {
    double loss = 0;
    double correct = 0;
    for (std::size_t m = bounds_.begin(leaf) - first_sample; m < bounds_.end(leaf) - first_sample;
         ++m) {
      loss += static_cast<double>(sample_loss_[m]);
      if (classes) correct += sample_correct_[m];
    }
    finite = finite && std::isfinite(loss);
    leaf_loss[leaf] += loss;
    leaf_correct[leaf] += correct;
  }
  return finite;
}

// Leaves and subtrees without a sample are left out: the tree passes over them.
void TrainingStep::cut_into_leaves() {
  present_leaves_.clear();
  for (std::size_t leaf = leaves_.begin; leaf < leaves_.end; ++leaf) {
    if (bounds_.present()[leaf]) present_leaves_.push_back(leaf);
  }
  const std::size_t first_sample = bounds_.begin(leaves_.begin);
  present_subtrees_.clear();
  const auto subtrees = reduction_.subtrees();
  for (std::size_t i = 0; i < subtrees.size(); ++i) {
    std::vector<std::size_t>& rows = subtree_rows_[i];
    for (std::size_t l = 0; l < subtrees[i].size; ++l) {
      rows[l] = bounds_.begin(subtrees[i].first + l) - first_sample;
    }
    rows.back() = bounds_.end(subtrees[i].first + subtrees[i].size - 1) - first_sample;
    if (rows.front() < rows.back()) present_subtrees_.push_back({rows, reduction_.partial(i)});
  }
}

}  // namespace lockstep::trainer

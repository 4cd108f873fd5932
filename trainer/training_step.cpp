#include "trainer/training_step.hpp"

#include <algorithm>
#include <cmath>

#include "nn/parallel.hpp"

namespace lockstep::trainer {

using Sums = comm::ParameterExchange::Sums;

namespace {

// Flags of the reduction.
constexpr unsigned kStop = 1;
constexpr unsigned kDiverged = 2;

// Those of a step that tells the norm of its gradient.
constexpr unsigned kTellsNorm = kStop;

// The most samples that the leaves of a rank can hold in batches of up to `largest_batch`.
std::size_t most_rows(comm::LeafRange leaves, std::size_t all_leaves, std::size_t largest_batch) {
  const std::size_t owned = leaves.end - leaves.begin;
  return std::min(largest_batch, owned * ((largest_batch + all_leaves - 1) / all_leaves));
}

// The statistics behind what ranks exchange are each rank's own.
comm::ParameterExchange::Options exchange_options(const CommConfig& config,
                                                  const nn::ParameterLayout& layout,
                                                  const NodeShares::Plan& shared) {
  using Thread = comm::ParameterExchange::Thread;
  const Thread overlap = nn::others_can_work() ? Thread::always : Thread::between_nodes;
  const Thread thread = config.overlap ? overlap : Thread::never;
  const auto bytes = [](double mib) { return static_cast<std::size_t>(mib * (1 << 20)); };
  comm::BucketSizes buckets{bytes(config.first_bucket_mib), bytes(config.bucket_mib)};
  // A rank's share of a matrix should be one piece then; and since most of what buckets hold is
  // summed when backward is done, small ones would not begin earlier.
  if (!shared.matrices.empty()) {
    buckets.first = buckets.others = std::min(64 * buckets.others, comm::BucketSizes::largest);
  }
  return {.buckets = buckets,
          .cuts = shared.cuts(),
          .round_messages = config.wire == "bfloat16",
          .shared_memory = config.shared_memory,
          .thread = thread,
          .extra = layout.buffer_size() - layout.trained_size()};
}

// For `shared`, or, if that cannot be had, which becomes nothing then, for none. Collective.
comm::ParameterExchange make_exchange(comm::Communicator& communicator, std::size_t leaves,
                                      const CommConfig& config, const nn::ParameterLayout& layout,
                                      NodeShares::Plan& shared, std::string& why_not) {
  const auto exchange = [&] {
    return comm::ParameterExchange(communicator, leaves, layout.trained_size(),
                                   exchange_options(config, layout, shared));
  };
  if (!shared.matrices.empty() && !NodeShares::kernels_agree(communicator)) {
    why_not = "they use different instruction sets";
    shared.matrices.clear();
  }
  {
    comm::ParameterExchange first = exchange();
    if (shared.matrices.empty() || first.can_sum_by_elements()) return first;
  }
  shared.matrices.clear();  // and the exchange says why ranks do not share memory
  return exchange();
}

// A pass of several ranks: it waits for what the last step moved, and tells of what it has summed.
// Without a thread of its own the exchange goes on then, while the sums are still in a cache.
class Flow : public nn::ParameterFlow {
 public:
  explicit Flow(comm::ParameterExchange& exchange) : exchange_(exchange) {}
  void before_reading(std::size_t end) override {
    exchange_.wait_for(end);
    exchange_.set_phase("forward");
  }
  void final_from(std::size_t begin, Parameters parameters) override {
    if (parameters == Parameters::free) {
      exchange_.final_from(begin);
    } else {
      exchange_.sums_final_from(begin);
    }
    if (exchange_.wants_progress()) exchange_.progress();
  }
  bool carries_sums_meanwhile() const override { return exchange_.has_thread(); }

 private:
  comm::ParameterExchange& exchange_;
};

}  // namespace

TrainingStep::TrainingStep(const nn::Network<float>& network, nn::Optimizer<float>& optimizer,
                           const datasets::Dataset& data, comm::Communicator& communicator,
                           std::size_t leaves, std::size_t largest_batch, std::uint64_t seed,
                           bool ahead, const CommConfig& comm)
    : network_(network),
      optimizer_(optimizer),
      seed_(seed),
      alone_(communicator.size() == 1),
      others_(nn::others_can_work()),
      overlap_(comm.overlap),
      leaves_(comm::leaves_of_rank(communicator.rank(), communicator.size(), leaves)),
      shared_(NodeShares::plan(network.layout(), communicator, comm, leaves, largest_batch)),
      exchange_(make_exchange(communicator, leaves, comm, network.layout(), shared_,
                              why_not_by_weights_)),
      bounds_(leaves),
      workspace_(network, most_rows(leaves_, leaves, largest_batch), true),
      input_(network, data, most_rows(leaves_, leaves, largest_batch), ahead),
      guard_(exchange_, communicator),
      sample_loss_(most_rows(leaves_, leaves, largest_batch)),
      sample_correct_(sample_loss_.size()) {
  for (const comm::Subtree& subtree : exchange_.subtrees()) {
    subtree_rows_.emplace_back(subtree.size + 1);
  }
  if (!shared_.matrices.empty()) {
    shares_ = NodeShares::make(exchange_, communicator, guard_, shared_, why_not_by_weights_);
  }
  if (!alone_) {
    batch_sums_.emplace(network, communicator, leaves);
    constexpr std::size_t kChunk = nn::Optimizer<float>::kNormChunk;
    static_assert(kChunk == comm::chunk, "shards are whole chunks of the norms");
    squares_.emplace(exchange_, communicator,
                     [](std::size_t element) { return nn::parts_of(element, kChunk); });
    if (const nn::TrustRatios* ratios = optimizer.trust_ratios()) {
      ratios_.emplace(exchange_, communicator, [ratios](std::size_t element) {
        return nn::TrustRatios::kNumbers * ratios->pieces_before(element);
      });
    }
  }
  present_subtrees_.reserve(subtree_rows_.size());
  present_rows_.reserve(subtree_rows_.size());
  present_leaves_.reserve(leaves_.end - leaves_.begin);
  exchange_.set_move([this](std::size_t begin, std::span<const float> sum, std::span<float> moved,
                            unsigned flags) { move(begin, sum, moved, flags); },
                     [this](std::size_t begin, std::span<const float> sum, unsigned flags) {
                       note(begin, sum, flags);
                     });
  if (!alone_) exchange_.set_watch(guard_);
}

TrainingStep::Outcome TrainingStep::run(std::uint64_t step, std::span<const std::uint32_t> batch,
                                        std::span<const std::uint32_t> next,
                                        std::span<double> leaf_loss, std::span<double> leaf_correct,
                                        Wish wish) {
  if (bounds_.set_batch(batch.size())) cut_into_leaves();
  const auto rows = own_part(batch);
  Outcome outcome;
  input_.bring(rows, own_part(next), workspace_);
  outcome.input_ready = std::chrono::steady_clock::now();
  const nn::Pass pass{.training = true,
                      .seed = seed_,
                      .step = step,
                      .first_sample = bounds_.begin(leaves_.begin),
                      .subtrees = present_rows_,
                      .batch_samples = batch.size(),
                      .sums = batch_sums_ ? &*batch_sums_ : nullptr,
                      .upcoming = input_.upcoming()};
  const Move next_move{optimizer_.rule_at(step, batch.size(), exchange_.parameters()), batch.size(),
                       wish.gradient_norm};
  const LeafSums sums{leaf_loss, leaf_correct};
  const auto rest = [&] {
    if (alone_) {
      move_ = next_move;
      compute_alone(pass, rows.size(), sums, wish, outcome);
    } else {
      compute_with_others(pass, rows.size(), sums, next_move, wish.stop, outcome);
    }
    network_.update_statistics(pass, exchange_.parameters(), workspace_);
  };
  if (others_) {
    apart_from_background(rest);
  } else {
    rest();
  }
  return outcome;
}

void TrainingStep::compute_alone(const nn::Pass& pass, std::size_t rows, const LeafSums& sums,
                                 Wish wish, Outcome& outcome) {
  outcome.diverged = !losses(pass, rows, sums);
  outcome.stop = wish.stop;
  const bool norm_wanted = wish.stop || wish.gradient_norm || optimizer_.clips();
  if (!norm_wanted && !optimizer_.needs_whole_gradient()) {
    gradients(pass, rows, &move_.rule);
    return;
  }
  gradients(pass, rows, nullptr);
  const std::span<const float> gradient = exchange_.partial(0);
  if (norm_wanted) {
    const double norm = std::sqrt(optimizer_.mean_gradient_squares(move_.samples, gradient));
    outcome.gradient_norm = norm;
    outcome.diverged = outcome.diverged || !std::isfinite(norm);
    if (optimizer_.clips()) move_.rule = optimizer_.clipped(move_.rule, move_.samples, norm);
  }
  optimizer_.update_all(move_.rule, gradient);
}

// A rank without samples has nothing to add, but its share to move, and takes part in the sums over
// the batch that layers wait for.
void TrainingStep::compute_with_others(nn::Pass pass, std::size_t rows, const LeafSums& sums,
                                       const Move& next_move, bool stop, Outcome& outcome) {
  Flow flow(exchange_);
  if (overlap_) {
    pass.flow = &flow;
  } else {
    exchange_.finish();
  }
  if (!guarded_) guard_.remember(parameters());
  guarded_ = true;
  const bool finite = losses(pass, rows, sums);
  exchange_.finish();
  guard_.begin(pass.step);
  exchange_.set_phase("backward");
  move_ = next_move;
  const bool holds = optimizer_.needs_whole_gradient();
  exchange_.begin(bounds_.present(), (stop ? kStop : 0) | (finite ? 0 : kDiverged),
                  holds ? Sums::hold : Sums::move);
  if (shares_) {
    shares_->begin(holds || norm_is_told(0) ? nullptr : &move_.rule, kTellsNorm);
    pass.shares = &*shares_;
  }
  gradients(pass, rows, nullptr);
  exchange_.final_from(0);
  const unsigned raised = exchange_.raised();
  outcome.stop = (raised & kStop) != 0;
  outcome.diverged = (raised & kDiverged) != 0;
  if (holds) {
    exchange_.wait_for_sums();
    prepare_held(outcome);
    exchange_.release();
  }
  exchange_.set_phase("input");
  const bool told = next_move.gradient_norm || outcome.stop || outcome.diverged;
  if (told) exchange_.finish();
  if (told && !outcome.gradient_norm) outcome.gradient_norm = norm_of_gathered();
  if (!outcome.gradient_norm || std::isfinite(*outcome.gradient_norm)) return;
  exchange_.finish();
  outcome.diverged = true;
}

// Of a step that holds its sums. LAMB's moments take the gradient in as it comes, unless it must be
// clipped before.
void TrainingStep::note(std::size_t begin, std::span<const float> sum, unsigned flags) {
  if (optimizer_.clips() || norm_is_told(flags)) {
    optimizer_.note_squares(move_.samples, begin, sum);
  }
  if (ratios_ && !optimizer_.clips()) optimizer_.take_in(move_.rule, begin, sum);
}

// What all sums together tell, before a parameter moves.
void TrainingStep::prepare_held(Outcome& outcome) {
  if (optimizer_.clips()) {
    outcome.gradient_norm = norm_of_gathered();
    move_.rule = optimizer_.clipped(move_.rule, move_.samples, *outcome.gradient_norm);
  }
  if (!ratios_) return;
  if (optimizer_.clips()) {
    exchange_.visit_sums([this](std::size_t begin, std::span<const float> sum) {
      optimizer_.take_in(move_.rule, begin, sum);
    });
  }
  ratios_->gather(optimizer_.trust_ratios()->squares());
  optimizer_.trust_ratios()->update();
}

void TrainingStep::move(std::size_t begin, std::span<const float> sum, std::span<float> moved,
                        unsigned flags) {
  const bool noted = optimizer_.needs_whole_gradient();
  if (!noted && norm_is_told(flags)) optimizer_.note_squares(move_.samples, begin, sum);
  nn::Update<float> rule = move_.rule;
  if (rule.parameters != moved.data()) {
    std::copy_n(rule.parameters + begin, sum.size(), moved.data() + begin);
    rule.parameters = moved.data();
  }
  optimizer_.update(rule, begin, sum);
}

bool TrainingStep::norm_is_told(unsigned flags) const {
  return move_.gradient_norm || (flags & kTellsNorm) != 0;
}

std::span<float> TrainingStep::parameters_to_set() {
  guarded_ = false;
  return exchange_.parameters();
}

double TrainingStep::seconds_waited() const {
  return exchange_.seconds_waited() + (batch_sums_ ? batch_sums_->seconds_waited() : 0);
}

void TrainingStep::compare_replicas(std::uint64_t step) {
  exchange_.finish();
  exchange_.set_phase("compare");
  guard_.compare(step, parameters());
}

// Collective. Each rank knows the squares of the chunks of the gradient that it moved parameters
// by.
double TrainingStep::norm_of_gathered() {
  squares_->gather(optimizer_.chunk_squares());
  return std::sqrt(optimizer_.sum_of_squares());
}

// Whether all losses are finite.
bool TrainingStep::losses(const nn::Pass& pass, std::size_t rows, const LeafSums& sums) {
  const auto outputs = network_.forward(pass, parameters(), rows, workspace_);
  if (rows == 0) return true;
  nn::evaluate_loss<float>(network_.loss(), outputs, input_.targets(), sample_loss_,
                           sample_correct_, workspace_.d_outputs().top(rows));
  return add_leaf_sums(pass.first_sample, sums);
}

// With `update`, which only a rank alone may give, the parameters move by them.
void TrainingStep::gradients(const nn::Pass& pass, std::size_t rows,
                             const nn::Update<float>* update) {
  for (nn::SubtreeGradient<float>& subtree : present_subtrees_) subtree.update = update;
  network_.backward(pass, parameters(), rows, workspace_, present_subtrees_);
}

std::span<const std::uint32_t> TrainingStep::own_part(std::span<const std::uint32_t> batch) const {
  const std::size_t leaves = bounds_.leaves();
  const std::size_t first = leaves_.begin * batch.size() / leaves;
  return batch.subspan(first, leaves_.end * batch.size() / leaves - first);
}

bool TrainingStep::add_leaf_sums(std::size_t first_sample, const LeafSums& sums) const {
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
    sums.loss[leaf] += loss;
    sums.correct[leaf] += correct;
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
  present_rows_.clear();
  if (batch_sums_) batch_sums_->set_batch(bounds_.present());
  if (shares_) shares_->set_batch(bounds_);
  const auto subtrees = exchange_.subtrees();
  for (std::size_t i = 0; i < subtrees.size(); ++i) {
    std::vector<std::size_t>& rows = subtree_rows_[i];
    for (std::size_t l = 0; l < subtrees[i].size; ++l) {
      rows[l] = bounds_.begin(subtrees[i].first + l) - first_sample;
    }
    rows.back() = bounds_.end(subtrees[i].first + subtrees[i].size - 1) - first_sample;
    if (rows.front() == rows.back()) continue;
    present_subtrees_.push_back({rows, exchange_.partial(i)});
    present_rows_.push_back(rows);
  }
}

}  // namespace lockstep::trainer

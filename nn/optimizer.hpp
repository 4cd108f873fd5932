// The optimizers: how parameters move, given the gradient of a batch.
//
// With g the mean gradient over the batch (plus penalties, see below), a the learning rate (by its
// schedule, see learning_rate.hpp), e the epsilon, t the number of the update, from 1:
//
//   sgd       w -= a g
//   momentum  v = b v + g                      B. Polyak, 1964, in the form of PyTorch
//             w -= a v
//             averaged: v = b v + (1 - b) g    an exponentially weighted mean, without correction
//   adagrad   s += g^2                         J. Duchi et al., JMLR 12 (2011); epsilon outside
//             w -= a g / (sqrt(s) + e)         the root as in PyTorch
//   rmsprop   s = d s + (1 - d) g^2            T. Tieleman, G. Hinton, Coursera lecture 6.5 (2012);
//             w -= a g / (sqrt(s) + e)         epsilon as in PyTorch
//   adam      m = b1 m + (1 - b1) g            D. Kingma, J. Ba, ICLR 2015, algorithm 1
//             v = b2 v + (1 - b2) g^2
//             M = m / (1 - b1^t)
//             V = v / (1 - b2^t)
//             w -= a M / (sqrt(V) + e)
//   lamb      m, v, M, V as adam               Y. You et al., ICLR 2020 (arXiv:1904.00962),
//             r = M / (sqrt(V) + e) + d w      algorithm 2 with phi(x) = x; d the weight decay
//             w -= a |w| / |r| r               tensor by tensor; see trust_ratios.hpp
//
// `epsilon_inside_root` divides by sqrt(s + e) instead. Penalties add l1 sign(w) + l2 w to g, for
// weights and, if asked, biases. lamb's decay and ratio are for the same tensors alone: for others
// d is 0 and the ratio |w| / |r| is 1, as in its authors' program, where algorithm 2 excludes none.
// `clip_norm` c scales g, before penalties, by min(1, c / (|g| + 1e-6)), |g| its Euclidean norm
// over all parameters (R. Pascanu et al., ICML 2013; the 1e-6 as in PyTorch).
//
// An Optimizer owns its moments, in the layout of what is trained. One caller at a time; runs on
// the caller's task arena; local.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/buffer.hpp"
#include "nn/kernels/kernels.hpp"
#include "nn/learning_rate.hpp"
#include "nn/named.hpp"
#include "nn/parameters.hpp"
#include "nn/trust_ratios.hpp"

namespace lockstep::nn {

inline constexpr std::array<std::string_view, 6> kUpdateRuleNames = {
    "sgd", "momentum", "adagrad", "rmsprop", "adam", "lamb"};

constexpr std::optional<UpdateRule> update_rule_named(std::string_view name) {
  return value_named<UpdateRule>(kUpdateRuleNames, name);
}

struct OptimizerOptions {
  UpdateRule rule = UpdateRule::sgd;
  double learning_rate = 0.01;
  LearningRateSchedule schedule = {};
  double momentum = 0.9;               // momentum's b
  bool averaged = false;               // momentum
  double beta1 = 0.9;                  // adam, lamb
  double beta2 = 0.999;                // adam, lamb
  double decay = 0.99;                 // rmsprop's d
  std::optional<double> epsilon = {};  // 1e-8; adagrad 1e-10, lamb 1e-6
  bool epsilon_inside_root = false;
  double weight_decay = 0;  // lamb's d
  double l1 = 0;
  double l2 = 0;
  bool penalise_biases = false;
  double clip_norm = 0;  // 0: off
};

// A buffer that an optimizer keeps from one update to the next.
template <class T>
struct Moment {
  std::string name;  // "velocity", "mean_square", …: its name in checkpoints
  AlignedBuffer<T> values;
};

template <class T>
class Optimizer {
 public:
  // With `sparse` moments take memory only where they were used: for whoever moves a share alone.
  Optimizer(const ParameterLayout& layout, const OptimizerOptions& options, bool sparse = false);

  // How update number `step` (from 1) moves the parameters, given the gradient's sum over `samples`
  // samples, which is divided by their number there and nowhere else. A view of the parameters and
  // the moments: for whoever has the gradient piece by piece.
  Update<T> rule_at(std::uint64_t step, std::size_t samples, std::span<T> parameters) const;

  // The learning rate of update number `step`, from 1.
  double learning_rate_at(std::uint64_t step) const {
    return options_.learning_rate * options_.schedule.factor(step);
  }

  // Whether no parameter can move before the whole gradient is known.
  bool needs_whole_gradient() const { return clips() || trust_ratios_; }

  // Whether updates depend on the norm of the whole gradient; then `rule` for that norm.
  bool clips() const { return options_.clip_norm > 0; }
  Update<T> clipped(Update<T> rule, std::size_t samples, double gradient_norm) const;

  // lamb alone, null else. Before update() moves a parameter, take_in() takes the gradient of all
  // elements into the moments, those from `begin`, a multiple of kNormChunk, on at a time, and sets
  // their pieces; then the ratios are to be updated.
  TrustRatios* trust_ratios() { return trust_ratios_ ? &*trust_ratios_ : nullptr; }
  void take_in(const Update<T>& rule, std::size_t begin, std::span<const T> gradient);

  // Moves the elements from `begin` on by their gradient, a multiple of kLanes each. From any
  // thread, as long as elements are distinct.
  void update(const Update<T>& rule, std::size_t begin, std::span<const T> gradient) const;

  // The same for the whole gradient at once; without a rule, by that of rule_at(), clipped if need
  // be.
  void update_all(const Update<T>& rule, std::span<const T> gradient);
  void update(std::uint64_t step, std::size_t samples, std::span<T> parameters,
              std::span<const T> gradient);

  // The squared norm of the mean gradient, penalties left out, is summed over chunks of kNormChunk
  // elements of the flat buffer, in their order: note_squares() notes those from `begin`, a
  // multiple of kNormChunk, on; where others have the rest, chunk_squares() is where it goes.
  static constexpr std::size_t kNormChunk = 1024;
  void note_squares(std::size_t samples, std::size_t begin, std::span<const T> gradient);
  std::span<double> chunk_squares() { return chunk_squares_; }
  double sum_of_squares() const;

  // The same for the whole gradient at once.
  double mean_gradient_squares(std::size_t samples, std::span<const T> gradient);

  std::span<Moment<T>> moments() { return moments_; }
  std::span<const Moment<T>> moments() const { return moments_; }
  const OptimizerOptions& options() const { return options_; }

 private:
  // Where tensors lie in the flat buffer, padding included.
  struct Extent {
    std::size_t begin;
    std::size_t end;
    bool is_bias;
  };

  OptimizerOptions options_;
  std::vector<Extent> tensors_;
  std::vector<double> chunk_squares_;
  std::optional<TrustRatios> trust_ratios_;
  std::vector<Moment<T>> moments_;
  T* first_moment_ = nullptr;  // into moments_; null where the rule keeps none
  T* second_moment_ = nullptr;
};

}  // namespace lockstep::nn

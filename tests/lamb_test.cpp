// LAMB against its formula written out tensor by tensor, where a norm is zero, and cut in parts.
#include <gtest/gtest.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "instruction_sets.hpp"
#include "nn/optimizer.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

using test::bytes_of;
using test::fill_uniform;

// A weight of two chunks that ends in the middle of one, a bias, and another weight.
ParameterLayout layout() {
  ParameterLayout layout;
  layout.add("0.weight", {30, 50}, false);
  layout.add("0.bias", {30}, true);
  layout.add("1.weight", {7, 30}, false);
  return layout;
}

// Uniform values in a buffer of the layout, zeros between the tensors.
template <class T>
void fill(const ParameterLayout& layout, AlignedBuffer<T>& buffer, std::uint64_t seed) {
  for (const ParameterTensor& tensor : layout.tensors()) {
    fill_uniform(buffer.span().subspan(tensor.offset, tensor.size), seed + tensor.offset);
  }
}

double norm_of(const std::vector<double>& v) {
  double squares = 0;
  for (const double x : v) squares += x * x;
  return std::sqrt(squares);
}

// One tensor, moved as algorithm 2 says.
struct Plain {
  std::vector<double> w, m, v;

  void step(const OptimizerOptions& o, double t, bool is_scaled, const std::vector<double>& g) {
    std::vector<double> r(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
      const double mean = m[i] / (1 - std::pow(o.beta1, t));
      const double square = v[i] / (1 - std::pow(o.beta2, t));
      r[i] = mean / (std::sqrt(square) + 1e-6) + (is_scaled ? o.weight_decay * w[i] : 0);
    }
    const double ratio = is_scaled ? norm_of(w) / norm_of(r) : 1;
    for (std::size_t i = 0; i < w.size(); ++i) w[i] -= o.learning_rate * ratio * r[i];
  }
};

void expect_formula(const OptimizerOptions& options) {
  const ParameterLayout tensors = layout();
  Optimizer<double> optimizer(tensors, options);
  AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
  fill(tensors, w, 1);
  std::vector<Plain> expected;
  for (const ParameterTensor& tensor : tensors.tensors()) {
    const double* first = w.data() + tensor.offset;
    expected.push_back({{first, first + tensor.size},
                        std::vector<double>(tensor.size),
                        std::vector<double>(tensor.size)});
  }
  for (std::uint64_t t = 1; t <= 7; ++t) {
    fill(tensors, g, 10000 * t);
    double scale = 0.25;  // four samples
    if (options.clip_norm > 0) {
      std::vector<double> all(g.data(), g.data() + g.size());
      for (double& x : all) x *= scale;
      ASSERT_GT(norm_of(all), options.clip_norm) << "nothing is clipped";
      scale *= options.clip_norm / (norm_of(all) + 1e-6);
    }
    optimizer.update(t, 4, w.span(), g.span());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const ParameterTensor& tensor = tensors.tensors()[k];
      const double* first = g.data() + tensor.offset;
      std::vector<double> mean(first, first + tensor.size);
      const bool is_scaled = !tensor.is_bias || options.penalise_biases;
      for (std::size_t i = 0; i < tensor.size; ++i) {
        mean[i] = mean[i] * scale + (is_scaled ? options.l2 * expected[k].w[i] : 0);
      }
      expected[k].step(options, static_cast<double>(t), is_scaled, mean);
      for (std::size_t i = 0; i < tensor.size; ++i) {
        // The root of a plain sum of 1,500 squares may be 750 units off; seven steps of some 0.15.
        ASSERT_NEAR(w.data()[tensor.offset + i], expected[k].w[i], 2e-13)
            << "step " << t << ", " << tensor.name << " " << i;
      }
      for (std::size_t i = tensor.size; i < round_up(tensor.size, kLanes); ++i) {
        ASSERT_EQ(w.data()[tensor.offset + i], 0) << "padding moved";
      }
    }
  }
}

constexpr OptimizerOptions kLamb{.rule = UpdateRule::lamb, .learning_rate = 0.1};

TEST(Lamb, FollowsTheFormula) {
  for (const double weight_decay : {0.0, 0.3}) {
    for (const double clip_norm : {0.0, 0.5}) {
      for (const double l2 : {0.0, 0.1}) {
        for (const bool biases : {false, true}) {
          OptimizerOptions options = kLamb;
          options.beta1 = 0.8;
          options.beta2 = 0.95;
          options.weight_decay = weight_decay;
          options.l2 = l2;
          options.penalise_biases = biases;
          options.clip_norm = clip_norm;
          expect_formula(options);
        }
      }
    }
  }
}

// A tensor of zeros moves as with Adam: it has no size of its own to go by.
TEST(Lamb, ZeroWeightsMoveWithRatioOne) {
  const ParameterLayout tensors = layout();
  OptimizerOptions adam{.rule = UpdateRule::adam, .learning_rate = 0.1, .epsilon = 1e-6};
  OptimizerOptions lamb = kLamb;
  lamb.penalise_biases = true;
  lamb.weight_decay = 0.5;
  AlignedBuffer<double> of_adam(tensors.buffer_size()), of_lamb(tensors.buffer_size());
  AlignedBuffer<double> g(tensors.buffer_size());
  fill(tensors, g, 3);
  Optimizer<double>(tensors, adam).update(1, 1, of_adam.span(), g.span());
  Optimizer<double>(tensors, lamb).update(1, 1, of_lamb.span(), g.span());
  for (std::size_t i = 0; i < of_lamb.size(); ++i) {
    ASSERT_NEAR(of_lamb.data()[i], of_adam.data()[i], 1e-15) << i;
  }
  ASSERT_NE(of_lamb.data()[0], 0);
}

TEST(Lamb, NothingMovesWithoutAGradient) {
  const ParameterLayout tensors = layout();
  Optimizer<float> optimizer(tensors, kLamb);
  AlignedBuffer<float> w(tensors.buffer_size()), g(tensors.buffer_size());
  fill(tensors, w, 4);
  const auto before = bytes_of(std::as_const(w).span());
  for (std::uint64_t t = 1; t <= 3; ++t) optimizer.update(t, 1, w.span(), g.span());
  EXPECT_EQ(bytes_of(std::as_const(w).span()), before);
  std::ranges::fill(w.span(), 0.0f);
  optimizer.update(4, 1, w.span(), g.span());
  for (const float x : w.span()) ASSERT_EQ(x, 0) << "zeros, and no gradient";
}

// With decay alone the direction is the tensor's own, and the ratio takes its length away.
TEST(Lamb, DecayAloneShrinksWeightsByTheLearningRate) {
  const ParameterLayout tensors = layout();
  OptimizerOptions options = kLamb;
  options.weight_decay = 0.01;
  Optimizer<double> optimizer(tensors, options);
  AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
  fill(tensors, w, 5);
  const std::vector<double> before(w.data(), w.data() + w.size());
  optimizer.update(1, 1, w.span(), g.span());
  for (const ParameterTensor& tensor : tensors.tensors()) {
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
      ASSERT_NEAR(w.data()[i], before[i] * (tensor.is_bias ? 1 : 0.9), 1e-14) << tensor.name;
    }
  }
}

// A step of one tensor does not depend on the length of its gradient, nor on other tensors.
TEST(Lamb, ATensorMovesByItsOwnLength) {
  const ParameterLayout tensors = layout();
  AlignedBuffer<double> w(tensors.buffer_size()), g(tensors.buffer_size());
  fill(tensors, w, 6);
  fill(tensors, g, 7);
  for (double& x : g.span().last(224)) x *= 1e4;  // 1.weight's
  const std::vector<double> before(w.data(), w.data() + w.size());
  Optimizer<double>(tensors, kLamb).update(1, 1, w.span(), g.span());
  for (const ParameterTensor& tensor : tensors.tensors()) {
    if (tensor.is_bias) continue;
    std::vector<double> from(tensor.size), moved(tensor.size);
    for (std::size_t i = 0; i < tensor.size; ++i) {
      from[i] = before[tensor.offset + i];
      moved[i] = w.data()[tensor.offset + i] - from[i];
    }
    EXPECT_NEAR(norm_of(moved), 0.1 * norm_of(from), 1e-12) << tensor.name;
  }
}

constexpr std::size_t kChunk = Optimizer<float>::kNormChunk;

// Shares of several ranks, in any order, and parts of several threads.
TEST(Lamb, HowWorkIsCutChangesNoBits) {
  ParameterLayout tensors;
  tensors.add("0.weight", {300, 211}, false);
  tensors.add("0.bias", {300}, true);
  tensors.add("1.weight", {9, 300}, false);
  OptimizerOptions options = kLamb;
  options.weight_decay = 0.02;
  const auto three_steps = [&](const auto& update) {
    Optimizer<float> optimizer(tensors, options);
    AlignedBuffer<float> w(tensors.buffer_size()), g(tensors.buffer_size());
    fill(tensors, w, 8);
    for (std::uint64_t t = 1; t <= 3; ++t) {
      fill(tensors, g, 100 + t);
      update(optimizer, optimizer.rule_at(t, 10, w.span()), g.span());
    }
    return bytes_of(std::as_const(w).span());
  };
  const auto whole = [](auto& optimizer, const auto& rule, std::span<const float> g) {
    optimizer.update_all(rule, g);
  };
  const auto in_shares = [](auto& optimizer, const auto& rule, std::span<const float> g) {
    const std::size_t chunks = (g.size() + kChunk - 1) / kChunk;
    const auto of_chunk = [&](std::size_t c) {
      return g.subspan(c * kChunk, std::min(kChunk, g.size() - c * kChunk));
    };
    for (std::size_t c = chunks; c-- > 0;) optimizer.take_in(rule, c * kChunk, of_chunk(c));
    optimizer.trust_ratios()->update();
    for (std::size_t c = chunks; c-- > 0;) optimizer.update(rule, c * kChunk, of_chunk(c));
  };
  const tbb::global_control four(tbb::global_control::max_allowed_parallelism, 4);
  tbb::task_arena one_thread(1), four_threads(4);
  const auto first = one_thread.execute([&] { return three_steps(whole); });
  EXPECT_EQ(four_threads.execute([&] { return three_steps(whole); }), first);
  EXPECT_EQ(three_steps(in_shares), first);
}

}  // namespace
}  // namespace lockstep::nn

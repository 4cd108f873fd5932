// Speed of the kernels on one thread beside what the processor allows. Every kernel's answer is
// checked before it is timed. Prints GFLOP/s or GB/s and the share of the limit measured here.
//
//   build/tests/kernels_benchmark [--benchmark_filter=forward] [--benchmark_format=json]
//   build/tests/kernels_benchmark --limits [THREADS]   the limits alone, as JSON, for one thread and
//                                                      for THREADS (all cores) at once
#include <benchmark/benchmark.h>
#include <tbb/global_control.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "machine_limits.hpp"
#include "nn/optimizer.hpp"
#include "nn/product.hpp"
#include "nn/weight_gradient.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

void require(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "kernels_benchmark: wrong answer of %s\n", what);
  std::exit(1);
}

// Times work() and, between any two calls, limit(): clocks and neighbours change by the second, and
// both are timed under the same ones. The seconds of limit() to one of work().
template <class Work, class Limit>
double run_beside(benchmark::State& state, const Work& work, const Limit& limit) {
  using Clock = std::chrono::steady_clock;
  Clock::duration at_work{}, at_limit{};
  for (auto _ : state) {
    const auto start = Clock::now();
    work();
    const auto done = Clock::now();
    limit();
    at_limit += Clock::now() - done;
    at_work += done - start;
    state.SetIterationTime(std::chrono::duration<double>(done - start).count());
  }
  return std::chrono::duration<double>(at_limit) / std::chrono::duration<double>(at_work);
}

void report(benchmark::State& state, const char* unit, double billions, const char* limit,
            double share) {
  state.counters[unit] = benchmark::Counter(billions * static_cast<double>(state.iterations()),
                                            benchmark::Counter::kIsRate);
  state.counters[limit] = 100 * share;
}

// Of so many operations, beside the multiply-adds that a core does without any memory. The limit is
// float32's for bfloat16 too, which may be above it where the processor has an instruction for it.
template <class Work>
void run_beside_peak(benchmark::State& state, double operations, const Work& work) {
  const auto steps =
      static_cast<std::size_t>(operations / 8 / test::multiply_adds_operations(1)) + 1;
  const double seconds = run_beside(state, work, [&] { test::multiply_adds(steps); });
  report(state, "GFLOP/s", 1e-9 * operations, "% of peak",
         seconds * operations / test::multiply_adds_operations(steps));
}

// Of so many bytes read and written, beside arrays far larger than the caches, a piece after the
// other.
template <class Work>
void run_beside_memory(benchmark::State& state, double bytes, const Work& work) {
  constexpr std::size_t kFloats = std::size_t{64} << 20;
  const auto in = test::touched(kFloats);
  auto out = test::touched(kFloats);
  const auto piece = std::min(kFloats, static_cast<std::size_t>(bytes / 4 / 12));
  std::size_t at = 0;
  const double seconds = run_beside(state, work, [&] {
    if (at + piece > kFloats) at = 0;
    test::stream(out.data() + at, in.data() + at, piece);
    at += piece;
  });
  report(state, "GB/s", 1e-9 * bytes, "% of memory",
         seconds * bytes / (12.0 * static_cast<double>(piece)));
}

// One dense layer: x rows × inputs, y rows × outputs, weights inputs × outputs.
struct Layer {
  Layer(const benchmark::State& state, Precision precision)
      : rows(static_cast<std::size_t>(state.range(0))),
        inputs(static_cast<std::size_t>(state.range(1))),
        outputs(static_cast<std::size_t>(state.range(2))),
        x(test::uniform_matrix<float>(rows, inputs, 1)),
        y(test::uniform_matrix<float>(rows, outputs, 2)),
        d_x(rows, inputs),
        weights(inputs * outputs) {
    test::fill_uniform(weights.span(), 3);
    if (precision == Precision::float32) return;
    kernels<float>().round_to_bfloat16(x.view());
    kernels<float>().round_to_bfloat16(y.view());
    // So that the answers below are those of the factors as they stand.
    kernels<float>().round_to_bfloat16({weights.data(), 1, weights.size(), weights.size()});
  }

  double operations() const { return 2.0 * static_cast<double>(rows * inputs * outputs); }

  // |found - expected| for one element whose `terms` products are at most 1 in size.
  static bool close(double found, double expected, std::size_t terms) {
    return std::abs(found - expected) <= 1.2e-7 * static_cast<double>(terms * terms);
  }

  std::size_t rows, inputs, outputs;
  Matrix<float> x, y, d_x;
  AlignedBuffer<float> weights;
};

void forward(benchmark::State& state, Precision precision) {
  Layer layer(state, precision);
  Product<float> product;
  product.a = std::as_const(layer.x).view();
  product.b = layer.weights.data();
  product.b_stride = layer.outputs;
  product.c = layer.y.view();
  product.precision = precision;
  AlignedBuffer<float> scratch(
      multiply_scratch<float>(layer.rows, layer.inputs, layer.outputs, product.precision));
  multiply(product, scratch.span());
  double expected = 0;
  for (std::size_t k = 0; k < layer.inputs; ++k) {
    expected += static_cast<double>(layer.x.view().row(1)[k]) *
                static_cast<double>(layer.weights.data()[k * layer.outputs + 2]);
  }
  require(Layer::close(layer.y.view().row(1)[2], expected, layer.inputs), "forward");
  run_beside_peak(state, layer.operations(), [&] { multiply(product, scratch.span()); });
}

void input_gradient(benchmark::State& state, Precision precision) {
  Layer layer(state, precision);
  Product<float> product;
  product.a = std::as_const(layer.y).view();
  product.b = layer.weights.data();
  product.b_stride = layer.outputs;
  product.b_transposed = true;
  product.c = layer.d_x.view();
  product.precision = precision;
  AlignedBuffer<float> scratch(
      multiply_scratch<float>(layer.rows, layer.outputs, layer.inputs, product.precision));
  multiply(product, scratch.span());
  double expected = 0;
  for (std::size_t n = 0; n < layer.outputs; ++n) {
    expected += static_cast<double>(layer.y.view().row(1)[n]) *
                static_cast<double>(layer.weights.data()[2 * layer.outputs + n]);
  }
  require(Layer::close(layer.d_x.view().row(1)[2], expected, layer.outputs), "input_gradient");
  run_beside_peak(state, layer.operations(), [&] { multiply(product, scratch.span()); });
}

// The fourth argument is the number of leaves.
void weight_gradient(benchmark::State& state, Precision precision) {
  Layer layer(state, precision);
  const auto leaves = static_cast<std::size_t>(state.range(3));
  std::vector<std::size_t> bounds;
  for (std::size_t l = 0; l <= leaves; ++l) bounds.push_back(l * layer.rows / leaves);
  AlignedBuffer<float> gradient(layer.inputs * layer.outputs);
  AlignedBuffer<float> scratch(
      weight_gradient_scratch<float>(layer.rows, layer.inputs, layer.outputs));
  const SubtreeGradient<float> subtree{bounds, gradient.span()};
  const auto run = [&] {
    weight_gradients<float>(std::as_const(layer.x).view(), std::as_const(layer.y).view(),
                            std::span(&subtree, 1), 0, scratch.span(), precision);
  };
  run();
  double expected = 0;
  for (std::size_t m = 0; m < layer.rows; ++m) {
    expected += static_cast<double>(layer.y.view().row(m)[1]) *
                static_cast<double>(layer.x.view().row(m)[2]);
  }
  require(Layer::close(gradient.data()[2 * layer.outputs + 1], expected, layer.rows),
          "weight_gradient");
  run_beside_peak(state, layer.operations(), run);
}

// Kernels that are bound by memory: bytes that a call reads and writes.
void report_bytes(benchmark::State& state, double bytes) {
  const double rate = 1e-9 * bytes * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["% of memory"] =
      benchmark::Counter(100 * rate / test::memory_bandwidth(), benchmark::Counter::kIsRate);
}

// d_y rows × outputs in eight leaves.
void bias_gradient(benchmark::State& state) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto outputs = static_cast<std::size_t>(state.range(1));
  const auto d_y = test::uniform_matrix<float>(rows, outputs, 1);
  std::vector<std::size_t> bounds;
  for (std::size_t l = 0; l <= 8; ++l) bounds.push_back(l * rows / 8);
  AlignedBuffer<float> d_bias(outputs);
  nn::bias_gradient<float>(d_y.view(), bounds, d_bias.data());
  double expected = 0;
  for (std::size_t m = 0; m < rows; ++m) expected += static_cast<double>(d_y.view().row(m)[1]);
  require(Layer::close(d_bias.data()[1], expected, rows), "bias_gradient");
  for (auto _ : state) nn::bias_gradient<float>(d_y.view(), bounds, d_bias.data());
  report_bytes(state, 4.0 * static_cast<double>(rows * outputs));
}

void activate(benchmark::State& state, Activation activation, double (*formula)(double)) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto cols = static_cast<std::size_t>(state.range(1));
  auto z = test::uniform_matrix<float>(rows, cols, 1);
  const double before = static_cast<double>(z.view().row(1)[2]);
  kernels<float>().activate(activation, 0, z.view());
  require(std::abs(static_cast<double>(z.view().row(1)[2]) - formula(before)) < 1e-6, "activate");
  for (auto _ : state) kernels<float>().activate(activation, 0, z.view());
  report_bytes(state, 8.0 * static_cast<double>(rows * cols));
}

void activation_backward(benchmark::State& state, Activation activation,
                         double (*derivative)(double)) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto cols = static_cast<std::size_t>(state.range(1));
  const auto y = test::uniform_matrix<float>(rows, cols, 1);
  auto d_y = test::uniform_matrix<float>(rows, cols, 2);
  const double expected = static_cast<double>(d_y.view().row(1)[2]) *
                          derivative(static_cast<double>(y.view().row(1)[2]));
  const auto run = [&] {
    kernels<float>().activation_backward(activation, 0, y.view(), d_y.view());
  };
  run();
  require(std::abs(static_cast<double>(d_y.view().row(1)[2]) - expected) < 1e-6,
          "activation_backward");
  for (auto _ : state) run();
  report_bytes(state, 12.0 * static_cast<double>(rows * cols));
}

// Softmax, the loss and its gradient in one.
void cross_entropy(benchmark::State& state) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto classes = static_cast<std::size_t>(state.range(1));
  const auto z = test::uniform_matrix<float>(rows, classes, 1);
  Matrix<float> d_z(rows, classes);
  std::vector<std::int32_t> labels(rows, 1);
  std::vector<float> loss(rows);
  const auto run = [&] {
    kernels<float>().cross_entropy(z.view(), labels.data(), loss.data(), d_z.view());
  };
  run();
  double sum = 0;
  for (std::size_t j = 0; j < classes; ++j) {
    sum += std::exp(static_cast<double>(z.view().row(2)[j]));
  }
  require(std::abs(static_cast<double>(loss[2]) -
                   (std::log(sum) - static_cast<double>(z.view().row(2)[1]))) < 1e-5,
          "cross_entropy");
  for (auto _ : state) run();
  const double samples = static_cast<double>(rows) * static_cast<double>(state.iterations());
  state.counters["samples/s"] = benchmark::Counter(samples, benchmark::Counter::kIsRate);
}

// `floats`: how many are read and written for a parameter; `moved`: how far the first step of a
// gradient of 1/2 moves a parameter.
void update(benchmark::State& state, UpdateRule rule, int floats, float moved) {
  const auto count = static_cast<std::size_t>(state.range(0));
  ParameterLayout layout;
  layout.add("0.weight", {count}, false);
  Optimizer<float> optimizer(layout, {.rule = rule, .learning_rate = 1e-3});
  AlignedBuffer<float> parameters(layout.buffer_size()), gradient(layout.buffer_size());
  std::ranges::fill(gradient.span().first(count), 0.5f);
  std::uint64_t step = 0;
  optimizer.update(++step, 1, parameters.span(), gradient.span());
  require(std::abs(parameters.data()[0] + moved) < 1e-5f * moved, "update");
  run_beside_memory(state, 4.0 * floats * static_cast<double>(count),
                    [&] { optimizer.update(++step, 1, parameters.span(), gradient.span()); });
}

void layers(benchmark::internal::Benchmark* b) {
  for (const std::int64_t rows : {128, 1024}) {
    b->Args({rows, 784, 512})->Args({rows, 512, 512})->Args({rows, 2048, 2048});
  }
}

void layers_in_leaves(benchmark::internal::Benchmark* b) {
  for (const std::int64_t leaves : {1, 8, 64}) {
    b->Args({128, 784, 512, leaves})->Args({1024, 784, 512, leaves});
    b->Args({128, 2048, 2048, leaves})->Args({1024, 2048, 2048, leaves});
  }
}

void print_limits(unsigned threads) {
  const auto of = [](unsigned n) {
    const std::optional<double> bfloat16 = test::bfloat16_peak(n);
    std::printf(
        "{\"threads\": %u, \"fma_gflops\": %.1f, \"bfloat16_gflops\": %s, \"memory_gbs\": %.1f}", n,
        test::fma_peak(n), bfloat16 ? std::to_string(*bfloat16).c_str() : "null",
        test::memory_bandwidth(n));
  };
  std::printf("{\"kernels\": \"%s\", \"one\": ",
              std::string(kernels<float>().instruction_set).c_str());
  of(1);
  std::printf(", \"all\": ");
  of(threads);
  std::printf("}\n");
}

// THREADS of the command line, or all cores.
unsigned threads_of(int argc, char** argv) {
  const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
  return threads > 0 ? static_cast<unsigned>(threads)
                     : std::max(1u, std::thread::hardware_concurrency());
}

BENCHMARK_CAPTURE(forward, float32, Precision::float32)->Apply(layers)->UseManualTime();
BENCHMARK_CAPTURE(forward, bfloat16, Precision::bfloat16)->Apply(layers)->UseManualTime();
BENCHMARK_CAPTURE(input_gradient, float32, Precision::float32)->Apply(layers)->UseManualTime();
BENCHMARK_CAPTURE(input_gradient, bfloat16, Precision::bfloat16)->Apply(layers)->UseManualTime();
BENCHMARK_CAPTURE(weight_gradient, float32, Precision::float32)
    ->Apply(layers_in_leaves)
    ->UseManualTime();
BENCHMARK_CAPTURE(weight_gradient, bfloat16, Precision::bfloat16)
    ->Apply(layers_in_leaves)
    ->UseManualTime();
BENCHMARK(bias_gradient)->Args({128, 512})->Args({1024, 2048});
BENCHMARK_CAPTURE(activate, relu, Activation::relu, [](double z) {
  return std::max(z, 0.0);
})->Args({128, 512});
BENCHMARK_CAPTURE(activate, sigmoid, Activation::sigmoid, [](double z) {
  return 1 / (1 + std::exp(-z));
})->Args({128, 512});
BENCHMARK_CAPTURE(activate, tanh, Activation::tanh, [](double z) {
  return std::tanh(z);
})->Args({128, 512});
BENCHMARK_CAPTURE(activation_backward, relu, Activation::relu, [](double y) {
  return y > 0 ? 1.0 : 0.0;
})->Args({128, 512});
BENCHMARK_CAPTURE(activation_backward, sigmoid, Activation::sigmoid, [](double y) {
  return y * (1 - y);
})->Args({128, 512});
BENCHMARK(cross_entropy)->Args({128, 10})->Args({128, 1000});
void all_sizes(benchmark::internal::Benchmark* b) {
  b->Arg(669'706)->Arg(50'000'000);
}
// The gradient is read; parameters and moments are read and written, and by lamb read twice.
BENCHMARK_CAPTURE(update, sgd, UpdateRule::sgd, 3, 5e-4f)->Apply(all_sizes)->UseManualTime();
BENCHMARK_CAPTURE(update, momentum, UpdateRule::momentum, 5, 5e-4f)
    ->Apply(all_sizes)
    ->UseManualTime();
BENCHMARK_CAPTURE(update, adagrad, UpdateRule::adagrad, 5, 1e-3f)
    ->Apply(all_sizes)
    ->UseManualTime();
BENCHMARK_CAPTURE(update, rmsprop, UpdateRule::rmsprop, 5, 1e-2f)
    ->Apply(all_sizes)
    ->UseManualTime();
BENCHMARK_CAPTURE(update, adam, UpdateRule::adam, 7, 1e-3f)->Apply(all_sizes)->UseManualTime();
BENCHMARK_CAPTURE(update, lamb, UpdateRule::lamb, 10, 1e-3f)->Apply(all_sizes)->UseManualTime();

}  // namespace
}  // namespace lockstep::nn

int main(int argc, char** argv) {
  using namespace lockstep::nn;
  const std::string_view asked = argc > 1 ? argv[1] : "";
  if (asked == "--limits") {
    print_limits(threads_of(argc, argv));
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  std::printf("kernels: %s\n", std::string(kernels<float>().instruction_set).c_str());
  // Kernels are timed on one thread, as a rank with training.threads = 1 runs them.
  tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  benchmark::RunSpecifiedBenchmarks();
}

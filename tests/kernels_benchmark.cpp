// Speed of the kernels on one thread beside what the processor allows. Every kernel's answer is
// checked before it is timed. Prints GFLOP/s or GB/s and the share of the limit measured here.
//
//   build/tests/kernels_benchmark [--benchmark_filter=forward] [--benchmark_format=json]
//   build/tests/kernels_benchmark --limits [THREADS]   the limits alone, as JSON, for one thread and
//                                                      for THREADS (all cores) at once
#include <benchmark/benchmark.h>
#include <tbb/global_control.h>

#include <algorithm>
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
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

void require(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "kernels_benchmark: wrong answer of %s\n", what);
  std::exit(1);
}

// The limit is measured anew beside each figure, since clocks and neighbours change by the minute.
void report(benchmark::State& state, double operations) {
  const double rate = 1e-9 * operations * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["% of peak"] =
      benchmark::Counter(100 * rate / test::fma_peak(), benchmark::Counter::kIsRate);
}

// One dense layer: x rows × inputs, y rows × outputs, weights inputs × outputs.
struct Layer {
  explicit Layer(const benchmark::State& state)
      : rows(static_cast<std::size_t>(state.range(0))),
        inputs(static_cast<std::size_t>(state.range(1))),
        outputs(static_cast<std::size_t>(state.range(2))),
        x(test::uniform_matrix<float>(rows, inputs, 1)),
        y(test::uniform_matrix<float>(rows, outputs, 2)),
        d_x(rows, inputs),
        weights(inputs * outputs) {
    test::fill_uniform(weights.span(), 3);
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

void forward(benchmark::State& state) {
  Layer layer(state);
  Product<float> product;
  product.a = std::as_const(layer.x).view();
  product.b = layer.weights.data();
  product.b_stride = layer.outputs;
  product.c = layer.y.view();
  multiply(product);
  double expected = 0;
  for (std::size_t k = 0; k < layer.inputs; ++k) {
    expected += static_cast<double>(layer.x.view().row(1)[k]) *
                static_cast<double>(layer.weights.data()[k * layer.outputs + 2]);
  }
  require(Layer::close(layer.y.view().row(1)[2], expected, layer.inputs), "forward");
  for (auto _ : state) multiply(product);
  report(state, layer.operations());
}

void input_gradient(benchmark::State& state) {
  Layer layer(state);
  Product<float> product;
  product.a = std::as_const(layer.y).view();
  product.b = layer.weights.data();
  product.b_stride = layer.outputs;
  product.b_transposed = true;
  product.c = layer.d_x.view();
  multiply(product);
  double expected = 0;
  for (std::size_t n = 0; n < layer.outputs; ++n) {
    expected += static_cast<double>(layer.y.view().row(1)[n]) *
                static_cast<double>(layer.weights.data()[2 * layer.outputs + n]);
  }
  require(Layer::close(layer.d_x.view().row(1)[2], expected, layer.outputs), "input_gradient");
  for (auto _ : state) multiply(product);
  report(state, layer.operations());
}

// The fourth argument is the number of leaves.
void weight_gradient(benchmark::State& state) {
  Layer layer(state);
  const auto leaves = static_cast<std::size_t>(state.range(3));
  std::vector<std::size_t> bounds;
  for (std::size_t l = 0; l <= leaves; ++l) bounds.push_back(l * layer.rows / leaves);
  AlignedBuffer<float> gradient(layer.inputs * layer.outputs);
  AlignedBuffer<float> scratch(
      weight_gradient_scratch<float>(layer.rows, layer.inputs, layer.outputs));
  const SubtreeGradient<float> subtree{bounds, gradient.span()};
  const auto run = [&] {
    weight_gradients<float>(std::as_const(layer.x).view(), std::as_const(layer.y).view(),
                            std::span(&subtree, 1), 0, scratch.span());
  };
  run();
  double expected = 0;
  for (std::size_t m = 0; m < layer.rows; ++m) {
    expected += static_cast<double>(layer.y.view().row(m)[1]) *
                static_cast<double>(layer.x.view().row(m)[2]);
  }
  require(Layer::close(gradient.data()[2 * layer.outputs + 1], expected, layer.rows),
          "weight_gradient");
  for (auto _ : state) run();
  report(state, layer.operations());
}

void adam_update(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  ParameterLayout layout;
  layout.add("0.weight", {count}, false);
  Optimizer<float> optimizer(layout, {.rule = UpdateRule::adam, .learning_rate = 1e-3});
  AlignedBuffer<float> parameters(layout.buffer_size()), gradient(layout.buffer_size());
  std::ranges::fill(gradient.span().first(count), 0.5f);
  std::uint64_t step = 0;
  optimizer.update(++step, 1, parameters.span(), gradient.span());
  // The first step of Adam is the learning rate against the gradient's sign.
  require(std::abs(parameters.data()[0] + 1e-3f) < 1e-8f, "adam_update");
  for (auto _ : state) optimizer.update(++step, 1, parameters.span(), gradient.span());
  const double bytes = 7.0 * 4 * static_cast<double>(count);  // reads w, g, m, v; writes w, m, v
  const double rate = 1e-9 * bytes * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["% of memory"] =
      benchmark::Counter(100 * rate / test::memory_bandwidth(), benchmark::Counter::kIsRate);
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

BENCHMARK(forward)->Apply(layers);
BENCHMARK(input_gradient)->Apply(layers);
BENCHMARK(weight_gradient)->Apply(layers_in_leaves);
BENCHMARK(adam_update)->Arg(669'706)->Arg(50'000'000);

}  // namespace
}  // namespace lockstep::nn

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--limits") {
    const int threads = argc > 2 ? std::atoi(argv[2]) : 0;
    lockstep::nn::print_limits(threads > 0 ? static_cast<unsigned>(threads)
                                           : std::max(1u, std::thread::hardware_concurrency()));
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  std::printf("kernels: %s\n", std::string(lockstep::nn::kernels<float>().instruction_set).c_str());
  // Kernels are timed on one thread, as a rank with training.threads = 1 runs them.
  tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  benchmark::RunSpecifiedBenchmarks();
}

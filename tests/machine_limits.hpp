// What this machine can do at most, measured: the limits that benchmarks show beside their figures.
//
// Each function runs its work on `threads` threads at once and returns the rate of all together,
// the best of several rounds: a limit is what the machine does when nothing disturbs it.
// Instructions are the widest of this compiler's target, so build it on and for the machine
// (tests/nn.cmake does). Local; starts threads of its own; what else runs meanwhile takes away from
// what is found.
#pragma once

#include <benchmark/benchmark.h>
#include <hwy/highway.h>

#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "nn/buffer.hpp"

namespace lockstep::test {

namespace hn = hwy::HWY_NAMESPACE;

// Billions of `amount` a second, all threads together. work(thread) does `amount` once; every round
// starts on all threads together and ends with the last.
double best_rate(double amount, unsigned threads, const auto& work) {
  constexpr int kRounds = 20;
  double best = 0;
  std::chrono::steady_clock::time_point start;
  int phase = 0;
  const auto completed = [&]() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (phase++ % 2 == 0) {
      start = now;
    } else {
      const double seconds = std::chrono::duration<double>(now - start).count();
      best = std::max(best, 1e-9 * amount * threads / seconds);
    }
  };
  std::barrier barrier(static_cast<std::ptrdiff_t>(threads), completed);
  const auto run = [&](unsigned thread) {
    for (int round = 0; round < kRounds; ++round) {
      barrier.arrive_and_wait();
      work(thread);
      barrier.arrive_and_wait();
    }
  };
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  others.clear();  // joins
  return best;
}

inline constexpr std::size_t kMultiplyAddChains = 12;  // more than latency times throughput

// So many fused multiply-adds of float32 registers in each of the chains, and no memory.
inline void multiply_adds(std::size_t steps) {
  constexpr std::size_t kChains = kMultiplyAddChains;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V factor = hn::Set(d, 0.999f);
  benchmark::DoNotOptimize(factor);
  V sum[kChains];
  // Every loop over `sum` is unrolled, or it would live in memory.
#pragma GCC unroll 12
  for (std::size_t i = 0; i < kChains; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  for (std::size_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kChains; ++i) sum[i] = hn::MulAdd(sum[i], factor, factor);
  }
  V total = sum[0];
#pragma GCC unroll 12
  for (std::size_t i = 1; i < kChains; ++i) total = hn::Add(total, sum[i]);
  benchmark::DoNotOptimize(total);
}

inline double multiply_adds_operations(std::size_t steps) {
  return 2.0 * static_cast<double>(kMultiplyAddChains * steps) *
         static_cast<double>(hn::Lanes(hn::ScalableTag<float>()));
}

// GFLOP/s of float32 fused multiply-adds on registers alone.
inline double fma_peak(unsigned threads = 1) {
  constexpr std::size_t kSteps = 1'000'000;
  return best_rate(multiply_adds_operations(kSteps), threads,
                   [](unsigned) { multiply_adds(kSteps); });
}

#if defined(__AMX_BF16__)
// Linux hands the tile registers out on request, once for the whole process.
inline bool tiles_allowed() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// GFLOP/s of tile products: 16 x 16 sums of 32 products each.
inline double tile_peak(unsigned threads) {
  constexpr std::size_t kSteps = 250'000;
  struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const TileConfig config;
  alignas(64) std::uint16_t ones[16 * 32];
  std::ranges::fill(ones, std::uint16_t{0x3f80});
  // Four chains: a product takes 52 cycles and one begins every 16.
  return best_rate(4.0 * kSteps * 2 * 16 * 16 * 32, threads, [&](unsigned) {
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (std::size_t step = 0; step < kSteps; ++step) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
  });
}
#endif

#if defined(__AVX512BF16__)
// GFLOP/s of the dot products of pairs.
inline double pair_product_peak(unsigned threads) {
  constexpr std::size_t kChains = 12;
  constexpr std::size_t kSteps = 1'000'000;
  return best_rate(2.0 * 32 * kChains * kSteps, threads, [&](unsigned) {
    __m512 sum[kChains];
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kChains; ++i) sum[i] = _mm512_setzero_ps();
    __m512i ones = _mm512_set1_epi16(0x3f80);
    benchmark::DoNotOptimize(ones);
    for (std::size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
      for (std::size_t i = 0; i < kChains; ++i) {
        sum[i] = _mm512_dpbf16_ps(sum[i], reinterpret_cast<__m512bh>(ones),
                                  reinterpret_cast<__m512bh>(ones));
      }
    }
    __m512 total = sum[0];
#pragma GCC unroll 12
    for (std::size_t i = 1; i < kChains; ++i) total = _mm512_add_ps(total, sum[i]);
    benchmark::DoNotOptimize(total);
  });
}
#endif

// GFLOP/s of bfloat16 products added up in float32; nothing where the processor, or the compiler's
// target, has no instruction for it.
inline std::optional<double> bfloat16_peak([[maybe_unused]] unsigned threads = 1) {
#if defined(__AMX_BF16__)
  if (tiles_allowed()) return tile_peak(threads);
#endif
#if defined(__AVX512BF16__)
  return pair_product_peak(threads);
#else
  return std::nullopt;
#endif
}

// Reads both and writes one: 12 bytes an element.
inline void stream(float* HWY_RESTRICT out, const float* HWY_RESTRICT in, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] += in[i];
  benchmark::DoNotOptimize(out);
}

// An array that has memory of its own: what was never written is one page of zeros, again and
// again.
inline nn::AlignedBuffer<float> touched(std::size_t count) {
  nn::AlignedBuffer<float> floats(count);
  std::fill_n(floats.data(), count, 1.0f);
  return floats;
}

// GB/s of reading and writing arrays far larger than the caches.
inline double memory_bandwidth(unsigned threads = 1) {
  constexpr std::size_t kFloats = std::size_t{64} << 20;  // of all threads together
  const std::size_t share = kFloats / threads / 16 * 16;
  const auto a = touched(kFloats);
  auto b = touched(kFloats);
  return best_rate(3.0 * 4 * static_cast<double>(share), threads, [&](unsigned thread) {
    stream(b.data() + thread * share, a.data() + thread * share, share);
  });
}

}  // namespace lockstep::test

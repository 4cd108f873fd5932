#include "trainer/doctor/rates.hpp"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <functional>
#include <new>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "nn/product.hpp"
#include "trainer/config.hpp"

namespace lockstep::trainer {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double processor_seconds_of_this_thread() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A 128 x 256 matrix of ones times a 256 x 256 matrix of halves: 16.8 million operations, and 0.5
// MB.
class Gemm {
 public:
  Gemm() : a_(kRows, kDepth), c_(kRows, kCols), b_(kDepth * kCols) {
    for (std::size_t i = 0; i < kRows; ++i) std::fill_n(a_.view().row(i), kDepth, 1.0F);
    std::ranges::fill(b_.span(), 0.5F);
  }

  static constexpr double amount() { return 2.0 * kRows * kDepth * kCols; }

  void run() {
    const auto& kernel = nn::kernels<float>();
    nn::Product<float> product;
    product.a = std::as_const(a_).view();
    product.b = b_.data();
    product.b_stride = kCols;
    product.c = c_.view();
    const std::size_t panels = nn::parts_of(kCols, kernel.panel_width);
    for (std::size_t panel = 0; panel < panels; panel += nn::kPanelsAtOnce) {
      kernel.product_panels(product, 0, kRows, panel, std::min(nn::kPanelsAtOnce, panels - panel));
    }
  }

  // All numbers on the way are floats without rounding.
  bool is_right(std::size_t) const {
    for (std::size_t i = 0; i < kRows; ++i) {
      const float* row = c_.view().row(i);
      if (std::count(row, row + kCols, 0.5F * kDepth) != kCols) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kRows = 128, kDepth = 256, kCols = 256;
  nn::Matrix<float> a_, c_;
  nn::AlignedBuffer<float> b_;
};

// Gradient descent with a gradient of one everywhere. A run moves a stretch of it, so that the
// clock is looked at often enough.
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : parameters_(nn::round_up(std::max(bytes / 8, kStretch), kStretch)),
        gradient_(parameters_.size()) {
    // Zeros that were never written are one page of the system's.
    std::ranges::fill(parameters_.span(), 0.0F);
    std::ranges::fill(gradient_.span(), 1.0F);
    update_.step_size = 1;
  }

  static constexpr double amount() { return 3.0 * sizeof(float) * kStretch; }

  void run() {
    update_.parameters = parameters_.data() + next_;
    nn::kernels<float>().update(update_, gradient_.data() + next_, kStretch);
    next_ = (next_ + kStretch) % parameters_.size();
  }

  bool is_right(std::size_t runs) const {
    const std::size_t stretches = parameters_.size() / kStretch;
    for (std::size_t i = 0; i < stretches; ++i) {
      const auto moved = static_cast<float>(runs / stretches + (i < runs % stretches ? 1 : 0));
      if (parameters_.data()[i * kStretch] != -moved) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kStretch = 1 << 18;
  nn::AlignedBuffer<float> parameters_, gradient_;
  nn::Update<float> update_;
  std::size_t next_ = 0;
};

// What one thread did.
struct Share {
  double rate = 0;
  double seconds = 0;
  double processor_seconds = 0;
  bool is_right = false;
};

template <class Work>
Share run_for(Work& work, double seconds, std::barrier<>& all) {
  work.run();  // brings code and data in
  std::size_t runs = 1;
  all.arrive_and_wait();  // prepared
  all.arrive_and_wait();  // and ready
  const double processor_before = processor_seconds_of_this_thread();
  const Clock::time_point start = Clock::now();
  Share share;
  do {
    work.run();
    ++runs;
    share.seconds = seconds_since(start);
  } while (share.seconds < seconds);
  share.processor_seconds = processor_seconds_of_this_thread() - processor_before;
  share.rate = Work::amount() * static_cast<double>(runs - 1) / share.seconds;
  share.is_right = work.is_right(runs);
  return share;
}

template <class Work, class... Arguments>
Rate rate_of(std::size_t threads, double seconds, const std::function<void()>& ready,
             Arguments... arguments) {
  std::vector<Share> shares(threads);
  std::atomic<bool> out_of_memory = false;
  std::barrier<> all(static_cast<std::ptrdiff_t>(threads + 1));  // and the caller
  {
    const auto work_on = [&](Share& share) {
      // Each makes its own memory, so that it lies near its processor.
      std::optional<Work> work;
      try {
        work.emplace(arguments...);
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
        all.arrive_and_drop();
        return;
      }
      share = run_for(*work, seconds, all);
    };
    std::vector<std::jthread> pool;
    try {
      for (Share& share : shares) pool.emplace_back(work_on, std::ref(share));
    } catch (const std::system_error&) {
      for (std::size_t i = pool.size(); i < threads + 1; ++i) all.arrive_and_drop();
      throw ConfigError(fmt::format("the system does not start {} threads", threads));
    }
    all.arrive_and_wait();
    try {
      if (ready) ready();
    } catch (...) {
      all.arrive_and_drop();
      throw;
    }
    all.arrive_and_drop();
  }
  if (out_of_memory) throw std::bad_alloc();
  Rate rate;
  rate.slowest_thread = shares.front().rate;
  double wall = 0;
  for (const Share& share : shares) {
    if (!share.is_right) throw std::runtime_error("a processor computed a wrong result");
    rate.total += share.rate;
    rate.slowest_thread = std::min(rate.slowest_thread, share.rate);
    rate.processor_share += share.processor_seconds;
    wall += share.seconds;
  }
  rate.processor_share = std::min(1.0, rate.processor_share / wall);
  return rate;
}

}  // namespace

Rate gemm_rate(std::size_t threads, double seconds, const std::function<void()>& ready) {
  return rate_of<Gemm>(threads, seconds, ready);
}

Rate memory_rate(std::size_t threads, double seconds, std::size_t bytes,
                 const std::function<void()>& ready) {
  return rate_of<Memory>(threads, seconds, ready, bytes);
}

}  // namespace lockstep::trainer

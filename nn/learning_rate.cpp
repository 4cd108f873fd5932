#include "nn/learning_rate.hpp"

#include <algorithm>
#include <numbers>

namespace lockstep::nn {
namespace {

// (1 + cos(pi f)) / 2 = sin(pi / 2 (1 - f))^2 for f in [0, 1], to a few roundings, by the sine's
// series: cos() and sin() are the C library's own.
double half_wave(double f) {
  const double x = std::numbers::pi / 2 * (1 - f);
  const double square = x * x;
  double term = x, sine = x;
  for (int n = 2; n < 24; n += 2) {  // the next term is below 1e-18
    term *= -square / (n * (n + 1));
    sine += term;
  }
  return sine * sine;
}

}  // namespace

double LearningRateSchedule::factor(std::uint64_t step) const {
  if (step <= warmup_updates) {
    return static_cast<double>(step) / static_cast<double>(warmup_updates);
  }
  if (shape == ScheduleShape::constant) return 1;
  const double f = std::min(1.0, static_cast<double>(step - 1 - warmup_updates) /
                                     static_cast<double>(updates - warmup_updates));
  const double falling = shape == ScheduleShape::linear ? 1 - f : half_wave(f);
  return end_factor + (1 - end_factor) * falling;
}

}  // namespace lockstep::nn

#include "nn/initializer.hpp"

#include <algorithm>
#include <cmath>

#include "nn/kernels/kernels.hpp"
#include "nn/parallel.hpp"
#include "nn/random.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kPart = 8 * 1024;  // weights that one thread draws at a time
constexpr double kOperationsPerDraw = 100;

// c[0] + c[1] x + … + c[7] x^7
double polynomial(const double (&c)[8], double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

}  // namespace

double normal_quantile(double p) {
  // Numerators and denominators of the three rational approximations: centre, near and far tail.
  static constexpr double kA[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                                   1.9715909503065514427e+3, 1.3731693765509461125e+4,
                                   4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                   3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static constexpr double kB[8] = {1.0,
                                   4.2313330701600911252e+1,
                                   6.8718700749205790830e+2,
                                   5.3941960214247511077e+3,
                                   2.1213794301586595867e+4,
                                   3.9307895800092710610e+4,
                                   2.8729085735721942674e+4,
                                   5.2264952788528545610e+3};
  static constexpr double kC[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                   5.76949722146069140550e0,  3.64784832476320460504e0,
                                   1.27045825245236838258e0,  2.41780725177450611770e-1,
                                   2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double kD[8] = {1.0,
                                   2.05319162663775882187e0,
                                   1.67638483018380384940e0,
                                   6.89767334985100004550e-1,
                                   1.48103976427480074590e-1,
                                   1.51986665636164571966e-2,
                                   5.47593808499534494600e-4,
                                   1.05075007164441684324e-9};
  static constexpr double kE[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                   1.78482653991729133580e0,  2.96560571828504891230e-1,
                                   2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                   2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double kF[8] = {1.0,
                                   5.99832206555887937690e-1,
                                   1.36929880922735805310e-1,
                                   1.48753612908506148525e-2,
                                   7.86869131145613259100e-4,
                                   1.84631831751005468180e-5,
                                   1.42151175831644588870e-7,
                                   2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(kA, r) / polynomial(kB, r);
  }
  // The logarithm is the kernels', whose bits do not depend on the C library.
  const double r = std::sqrt(-kernels<double>().log(q < 0 ? p : 1 - p));
  const double tail = r <= 5 ? polynomial(kC, r - 1.6) / polynomial(kD, r - 1.6)
                             : polynomial(kE, r - 5) / polynomial(kF, r - 5);
  return q < 0 ? -tail : tail;
}

template <class T>
void initialize(const InitialValues& values, std::uint64_t seed, std::size_t tensor,
                std::span<T> weights) {
  const Draws draws(seed, Purpose::initial_parameters, static_cast<std::uint32_t>(tensor), 0);
  const auto fill = [&](const auto& value) {
    const double operations = kOperationsPerDraw * static_cast<double>(weights.size());
    for_each_part(parts_of(weights.size(), kPart), operations, [&](std::size_t part) {
      const std::size_t end = std::min(weights.size(), (part + 1) * kPart);
      for (std::size_t i = part * kPart; i < end; ++i) weights[i] = static_cast<T>(value(i));
    });
  };
  const auto fill_normal = [&](double deviation) {
    fill([&](std::size_t i) { return deviation * normal_quantile(draws.uniform(i)); });
  };
  const auto fill_uniform = [&](double width) {
    fill([&](std::size_t i) { return width * (2 * draws.uniform(i) - 1); });
  };
  const double inputs = static_cast<double>(values.inputs);
  const double outputs = static_cast<double>(values.outputs);
  switch (values.initializer) {
    case Initializer::he:
      return fill_normal(std::sqrt(2.0 / inputs));
    case Initializer::xavier:
      return fill_uniform(std::sqrt(6.0 / (inputs + outputs)));
    case Initializer::normal:
      return fill_normal(values.scale);
    case Initializer::uniform:
      return fill_uniform(values.scale);
    case Initializer::zero:
      std::ranges::fill(weights, T{0});
      return;
    case Initializer::constant:
      std::ranges::fill(weights, static_cast<T>(values.scale));
      return;
  }
}

template void initialize<float>(const InitialValues&, std::uint64_t, std::size_t, std::span<float>);
template void initialize<double>(const InitialValues&, std::uint64_t, std::size_t,
                                 std::span<double>);

}  // namespace lockstep::nn

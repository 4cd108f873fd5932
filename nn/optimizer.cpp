#include "nn/optimizer.hpp"

#include <algorithm>

#include "nn/parallel.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kChunk = 8192;  // elements; part of the order of sums, so of the contract

// base^exponent by squaring: IEEE products alone, where pow() is the C library's own.
double power(double base, std::uint64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

// What a rule keeps of gradients and of their squares; null: nothing.
struct MomentNames {
  const char* first;
  const char* second;
};

MomentNames moment_names(UpdateRule rule) {
  switch (rule) {
    case UpdateRule::sgd:
      return {nullptr, nullptr};
    case UpdateRule::momentum:
      return {"velocity", nullptr};
    case UpdateRule::adagrad:
      return {nullptr, "sum_of_squares"};
    case UpdateRule::rmsprop:
      return {nullptr, "mean_square"};
    case UpdateRule::adam:
      return {"mean", "mean_square"};
  }
  return {nullptr, nullptr};
}

}  // namespace

template <class T>
Optimizer<T>::Optimizer(const ParameterLayout& layout, const OptimizerOptions& options)
    : options_(options) {
  for (const ParameterTensor& tensor : layout.tensors()) {
    const std::size_t padded = round_up(tensor.size, kLanes);
    for (std::size_t at = 0; at < padded; at += kChunk) {
      chunks_.push_back({tensor.offset + at, std::min(kChunk, padded - at), tensor.is_bias});
    }
  }
  chunk_squares_.resize(chunks_.size());
  const MomentNames names = moment_names(options.rule);
  const auto keep = [&](const char* name) -> T* {
    if (name == nullptr) return nullptr;
    moments_.push_back({name, AlignedBuffer<T>(layout.buffer_size())});
    return moments_.back().values.data();
  };
  first_moment_ = keep(names.first);
  second_moment_ = keep(names.second);
}

template <class T>
Update<T> Optimizer<T>::rule_at(std::uint64_t step, std::size_t samples,
                                std::span<T> parameters) const {
  const OptimizerOptions& o = options_;
  Update<T> u;
  u.rule = o.rule;
  u.parameters = parameters.data();
  u.moment1 = first_moment_;
  u.moment2 = second_moment_;
  u.l1 = static_cast<T>(o.l1);
  u.l2 = static_cast<T>(o.l2);
  u.penalise_biases = o.penalise_biases;
  u.per_sample = static_cast<T>(1 / static_cast<double>(samples));
  u.epsilon = static_cast<T>(o.epsilon.value_or(o.rule == UpdateRule::adagrad ? 1e-10 : 1e-8));
  u.epsilon_inside_root = o.epsilon_inside_root;
  double step_size = o.learning_rate;
  switch (o.rule) {
    case UpdateRule::sgd:
      break;
    case UpdateRule::momentum:
      u.keep1 = static_cast<T>(o.momentum);
      u.take1 = static_cast<T>(o.averaged ? 1 - o.momentum : 1);
      break;
    case UpdateRule::adagrad:
      u.keep2 = u.take2 = 1;
      break;
    case UpdateRule::rmsprop:
      u.keep2 = static_cast<T>(o.decay);
      u.take2 = static_cast<T>(1 - o.decay);
      break;
    case UpdateRule::adam:
      u.keep1 = static_cast<T>(o.beta1);
      u.take1 = static_cast<T>(1 - o.beta1);
      u.keep2 = static_cast<T>(o.beta2);
      u.take2 = static_cast<T>(1 - o.beta2);
      u.correction2 = static_cast<T>(1 / (1 - power(o.beta2, step)));
      step_size /= 1 - power(o.beta1, step);
      break;
  }
  u.step_size = static_cast<T>(step_size);
  return u;
}

template <class T>
void Optimizer<T>::update(std::uint64_t step, std::size_t samples, std::span<T> parameters,
                          std::span<const T> gradient) {
  const Kernels<T>& kernel = kernels<T>();
  const Update<T> rule = rule_at(step, samples, parameters);
  const double operations = 20.0 * static_cast<double>(gradient.size());
  for_each_part(chunks_.size(), operations, [&](std::size_t i) {
    const Chunk& chunk = chunks_[i];
    kernel.update(rule.at(chunk.offset, chunk.is_bias), gradient.data() + chunk.offset,
                  chunk.count);
  });
}

template <class T>
double Optimizer<T>::mean_gradient_squares(std::size_t samples, std::span<const T> gradient) {
  const Kernels<T>& kernel = kernels<T>();
  const T per_sample = static_cast<T>(1 / static_cast<double>(samples));
  const double operations = 4.0 * static_cast<double>(gradient.size());
  for_each_part(chunks_.size(), operations, [&](std::size_t i) {
    const Chunk& chunk = chunks_[i];
    chunk_squares_[i] =
        kernel.sum_of_squares(gradient.data() + chunk.offset, chunk.count, per_sample);
  });
  double squares = 0;
  for (const double s : chunk_squares_) squares += s;
  return squares;
}

template class Optimizer<float>;
template class Optimizer<double>;

}  // namespace lockstep::nn

#include "nn/optimizer.hpp"

#include <algorithm>
#include <cmath>

#include "nn/parallel.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t kPart = 8 * 1024;  // elements of the work that one thread takes at a time

double default_epsilon(UpdateRule rule) {
  return rule == UpdateRule::adagrad ? 1e-10 : rule == UpdateRule::lamb ? 1e-6 : 1e-8;
}

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
    case UpdateRule::lamb:
      return {"mean", "mean_square"};
  }
  return {nullptr, nullptr};
}

// Calls work(begin, gradient from there on) for whole chunks of the gradient's norm at a time.
template <class T, class Work>
void for_each_gradient_part(std::span<const T> gradient, double operations_per_element,
                            const Work& work) {
  static_assert(kPart % Optimizer<T>::kNormChunk == 0);
  const double operations = operations_per_element * static_cast<double>(gradient.size());
  for_each_part(parts_of(gradient.size(), kPart), operations, [&](std::size_t part) {
    const std::size_t begin = part * kPart;
    work(begin, gradient.subspan(begin, std::min(kPart, gradient.size() - begin)));
  });
}

}  // namespace

template <class T>
Optimizer<T>::Optimizer(const ParameterLayout& layout, const OptimizerOptions& options, bool sparse)
    : options_(options), chunk_squares_(parts_of(layout.trained_size(), kNormChunk)) {
  for (const ParameterTensor& tensor : layout.tensors()) {
    if (!tensor.is_trained) continue;
    tensors_.push_back(
        {tensor.offset, tensor.offset + round_up(tensor.size, kLanes), tensor.is_bias});
  }
  if (options.rule == UpdateRule::lamb) {
    trust_ratios_.emplace(layout, kNormChunk, options.penalise_biases);
  }
  const Pages pages = sparse ? Pages::small : Pages::huge;
  const MomentNames names = moment_names(options.rule);
  const auto keep = [&](const char* name) -> T* {
    if (name == nullptr) return nullptr;
    moments_.push_back({name, AlignedBuffer<T>(layout.trained_size(), pages)});
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
  u.epsilon = static_cast<T>(o.epsilon.value_or(default_epsilon(o.rule)));
  u.epsilon_inside_root = o.epsilon_inside_root;
  double step_size = learning_rate_at(step);
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
    case UpdateRule::lamb:
      u.keep1 = static_cast<T>(o.beta1);
      u.take1 = static_cast<T>(1 - o.beta1);
      u.keep2 = static_cast<T>(o.beta2);
      u.take2 = static_cast<T>(1 - o.beta2);
      u.correction2 = static_cast<T>(1 / (1 - power(o.beta2, step)));
      if (o.rule == UpdateRule::adam) {
        step_size /= 1 - power(o.beta1, step);
      } else {
        u.correction1 = static_cast<T>(1 / (1 - power(o.beta1, step)));
        u.weight_decay = static_cast<T>(o.weight_decay);
      }
      break;
  }
  u.step_size = static_cast<T>(step_size);
  return u;
}

template <class T>
void Optimizer<T>::take_in(const Update<T>& rule, std::size_t begin, std::span<const T> gradient) {
  const auto pieces = trust_ratios_->pieces();
  const std::size_t end = begin + gradient.size();
  for (std::size_t i = trust_ratios_->pieces_before(begin); i < pieces.size(); ++i) {
    const TrustRatios::Piece& piece = pieces[i];
    if (piece.begin >= end) break;
    const Update<T> here = rule.at(piece.begin, tensors_[piece.tensor].is_bias);
    trust_ratios_->set(i, kernels<T>().lamb_moments(here, gradient.data() + (piece.begin - begin),
                                                    piece.end - piece.begin));
  }
}

template <class T>
void Optimizer<T>::update(const Update<T>& rule, std::size_t begin,
                          std::span<const T> gradient) const {
  const Kernels<T>& kernel = kernels<T>();
  const std::size_t end = begin + gradient.size();
  auto tensor = std::ranges::upper_bound(tensors_, begin, {}, &Extent::end);
  for (std::size_t at = begin; at < end; ++tensor) {
    const std::size_t stop = std::min(end, tensor->end);
    Update<T> here = rule.at(at, tensor->is_bias);
    if (trust_ratios_) {
      const double ratio = (*trust_ratios_)[static_cast<std::size_t>(tensor - tensors_.begin())];
      here.step_size = static_cast<T>(static_cast<double>(rule.step_size) * ratio);
      kernel.lamb_move(here, stop - at);
    } else {
      kernel.update(here, gradient.data() + (at - begin), stop - at);
    }
    at = stop;
  }
}

template <class T>
Update<T> Optimizer<T>::clipped(Update<T> rule, std::size_t samples, double gradient_norm) const {
  const double scale = options_.clip_norm / (gradient_norm + 1e-6);
  if (!(scale >= 1)) rule.per_sample = static_cast<T>(scale / static_cast<double>(samples));
  return rule;
}

template <class T>
void Optimizer<T>::update(std::uint64_t step, std::size_t samples, std::span<T> parameters,
                          std::span<const T> gradient) {
  Update<T> rule = rule_at(step, samples, parameters);
  if (clips()) rule = clipped(rule, samples, std::sqrt(mean_gradient_squares(samples, gradient)));
  update_all(rule, gradient);
}

template <class T>
void Optimizer<T>::update_all(const Update<T>& rule, std::span<const T> gradient) {
  if (trust_ratios_) {
    for_each_gradient_part(gradient, 20, [&](std::size_t begin, std::span<const T> part) {
      take_in(rule, begin, part);
    });
    trust_ratios_->update();
  }
  for_each_gradient_part(
      gradient, 20, [&](std::size_t begin, std::span<const T> part) { update(rule, begin, part); });
}

template <class T>
void Optimizer<T>::note_squares(std::size_t samples, std::size_t begin,
                                std::span<const T> gradient) {
  const T per_sample = static_cast<T>(1 / static_cast<double>(samples));
  for (std::size_t at = 0; at < gradient.size(); at += kNormChunk) {
    const std::size_t count = std::min(kNormChunk, gradient.size() - at);
    chunk_squares_[(begin + at) / kNormChunk] =
        kernels<T>().sum_of_squares(gradient.data() + at, count, per_sample);
  }
}

template <class T>
double Optimizer<T>::sum_of_squares() const {
  double squares = 0;
  for (const double s : chunk_squares_) squares += s;
  return squares;
}

template <class T>
double Optimizer<T>::mean_gradient_squares(std::size_t samples, std::span<const T> gradient) {
  for_each_gradient_part(gradient, 4, [&](std::size_t begin, std::span<const T> part) {
    note_squares(samples, begin, part);
  });
  return sum_of_squares();
}

template class Optimizer<float>;
template class Optimizer<double>;

}  // namespace lockstep::nn

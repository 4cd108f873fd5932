// Parameters, moments and a rule that moves them, for tests of updates.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "instruction_sets.hpp"
#include "nn/kernels/kernels.hpp"
#include "random_matrix.hpp"

namespace lockstep::test {

// 256 parameters and moments, and a rule in whose formula every constant counts.
template <class T>
struct Moving {
  explicit Moving(nn::UpdateRule rule, std::size_t count = 256) : w(count), m1(count), m2(count) {
    fill_uniform(w.span(), 9);
    fill_uniform(m1.span(), 11);
    for (T& x : m2.span()) x = T{0.5};
    u.rule = rule;
    u.parameters = w.data();
    const bool takes_mean = rule == nn::UpdateRule::momentum || rule == nn::UpdateRule::adam ||
                            rule == nn::UpdateRule::lamb;
    u.moment1 = takes_mean ? m1.data() : nullptr;
    u.moment2 =
        rule == nn::UpdateRule::sgd || rule == nn::UpdateRule::momentum ? nullptr : m2.data();
    u.per_sample = T(1) / 3;
    u.l1 = T(0.01);
    u.l2 = T(0.1);
    u.step_size = T(0.1);
    u.keep1 = T(0.9);
    u.take1 = T(0.1);
    u.keep2 = T(0.99);
    u.take2 = T(0.01);
    u.correction1 = T(1.25);
    u.correction2 = T(1.5);
    u.epsilon = T(1e-8);
    u.weight_decay = T(0.05);
  }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const nn::AlignedBuffer<T>* buffer : {&w, &m1, &m2}) {
      const auto one = bytes_of(buffer->span());
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }

  nn::AlignedBuffer<T> w, m1, m2;
  nn::Update<T> u;
};

// All that need nothing but a parameter's own gradient.
inline constexpr std::array kAllRules = {nn::UpdateRule::sgd, nn::UpdateRule::momentum,
                                         nn::UpdateRule::adagrad, nn::UpdateRule::rmsprop,
                                         nn::UpdateRule::adam};

}  // namespace lockstep::test

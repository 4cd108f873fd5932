// How the learning rate changes over the updates of a run.
//
// With w updates of warm-up, T updates in all, e the end factor, update t (from 1) goes by the
// optimizer's learning rate times
//
//   t / w                                    in the warm-up, t <= w
//   1                                        constant
//   e + (1 - e) (1 - f)                      linear
//   e + (1 - e) (1 + cos(pi f)) / 2          cosine: I. Loshchilov, F. Hutter, ICLR 2017
//                                            (arXiv:1608.03983), equation 5 without restarts
//
// where f = (t - 1 - w) / (T - w), from 0 at the first update after the warm-up to nearly 1 at the
// last, which so still moves something; beyond T it stays 1. The same bits on every processor:
// additions, products and quotients alone. Plain values; local.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "nn/named.hpp"

namespace lockstep::nn {

enum class ScheduleShape { constant, linear, cosine };

inline constexpr std::array<std::string_view, 3> kScheduleNames = {"constant", "linear", "cosine"};

constexpr std::optional<ScheduleShape> schedule_named(std::string_view name) {
  return value_named<ScheduleShape>(kScheduleNames, name);
}

struct LearningRateSchedule {
  ScheduleShape shape = ScheduleShape::constant;
  double end_factor = 0;             // e, [0, 1]; constant reads neither it nor T
  std::uint64_t warmup_updates = 0;  // w
  std::uint64_t updates = 0;         // T, more than w

  // What the learning rate is multiplied with at update `step`, from 1.
  double factor(std::uint64_t step) const;
};

}  // namespace lockstep::nn

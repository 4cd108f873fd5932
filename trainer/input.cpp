#include "trainer/input.hpp"

#include <algorithm>

#include "nn/parallel.hpp"

namespace lockstep::trainer {
namespace {

// More than that would drive out of the nearest caches what the pass itself needs.
constexpr std::size_t kMostUpcoming = 512;  // cache lines

}  // namespace

Input::Input(const nn::Network<float>& network, const datasets::Dataset& data, std::size_t rows,
             bool ahead)
    : data_(data),
      features_(data.features()),
      pass_asks_(network.asks_for_upcoming()),
      batches_{Batch(network, data, rows), Batch(network, data, ahead ? rows : 0)} {
  if (pass_asks_) lines_.resize(kMostUpcoming);
  if (!ahead || !nn::others_can_work() || !worth_a_task(rows)) return;
  later_inputs_ = nn::Matrix<float>(rows, features_);
  later_rows_.reserve(rows);
}

bool Input::worth_a_task(std::size_t rows) const {
  return Batch::operations(rows, features_) >= nn::kOperationsWorthATask;
}

bool Input::left_to_pass(std::size_t rows) const {
  return pass_asks_ && rows * data_.lines_of_sample() <= kMostUpcoming;
}

void Input::bring(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> next,
                  nn::Workspace<float>& workspace) {
  const bool decodes_next = later_inputs_.rows() > 0 && worth_a_task(next.size());
  const bool asked_later = !decodes_next && left_to_pass(next.size());
  upcoming_ = asked_later ? std::span(lines_).first(data_.list_lines(next, lines_))
                          : std::span<const void*>();
  const bool decoded = background_.under_way() && std::ranges::equal(rows, later_rows_);
  background_.wait();
  if (decoded) {
    workspace.exchange_input(later_inputs_);
    std::swap(now_, later_);
    ++times_ahead_;
  } else {
    now_->fill(rows, workspace.input(), asked_later ? std::span<const std::uint32_t>() : next);
  }
  if (!decodes_next) return;
  later_rows_.assign(next.begin(), next.end());
  background_.start([this] { later_->fill(later_rows_, later_inputs_.view()); });
}

}  // namespace lockstep::trainer

#include "trainer/epoch_order.hpp"

#include <algorithm>
#include <utility>

#include "datasets/sample_order.hpp"
#include "nn/parallel.hpp"

namespace lockstep::trainer {
namespace {

// Fewer are in order sooner than another thread is awake.
constexpr std::size_t kRowsWorthATask = 4096;

}  // namespace

EpochOrder::EpochOrder(std::span<const std::uint32_t> rows, const Options& options)
    : rows_(rows), options_(options) {
  if (!options.shuffle) return;
  order_.resize(rows.size());
  next_.resize(rows.size());
}

void EpochOrder::begin(std::uint64_t epoch) {
  if (!options_.shuffle) return;
  background_.wait();
  if (ahead_ && next_epoch_ == epoch) {
    std::swap(order_, next_);
  } else {
    compute(epoch, order_);
  }
  ahead_ = nn::others_can_work() && rows_.size() >= kRowsWorthATask;
  if (!ahead_) return;
  next_epoch_ = epoch + 1;
  background_.start([this] { compute(next_epoch_, next_); });
}

void EpochOrder::compute(std::uint64_t epoch, std::span<std::uint32_t> order) const {
  datasets::permute(order, options_.seed, datasets::Purpose::shuffle, epoch);
  for (std::uint32_t& row : order) row = rows_[row];
}

std::span<const std::uint32_t> EpochOrder::batch(std::uint64_t step) const {
  const auto order = options_.shuffle ? std::span<const std::uint32_t>(order_) : rows_;
  const std::size_t first = std::min(step * options_.batch_size, order.size());
  return order.subspan(first, std::min(options_.batch_size, order.size() - first));
}

std::span<const std::uint32_t> EpochOrder::first_of_next_epoch() {
  if (!options_.shuffle) return batch(0);
  if (!ahead_) return {};
  background_.wait();
  return std::span<const std::uint32_t>(next_).first(std::min(options_.batch_size, next_.size()));
}

}  // namespace lockstep::trainer

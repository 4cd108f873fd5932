#include "trainer/share_gather.hpp"

#include <algorithm>

namespace lockstep::trainer {

ShareGather::ShareGather(const comm::ParameterExchange& exchange, comm::Communicator& communicator,
                         const std::function<std::size_t(std::size_t)>& numbers_before)
    : communicator_(communicator) {
  std::size_t own_begin = 0;
  std::size_t own_end = 0;
  for (std::size_t rank = 0; rank < communicator.size(); ++rank) {
    if (rank == communicator.rank()) own_begin = ranges_.size();
    std::size_t count = 0;
    for (const comm::Shard& shard : exchange.share_of(rank)) {
      const std::size_t begin = numbers_before(shard.begin);
      ranges_.push_back({begin, numbers_before(shard.end) - begin});
      count += ranges_.back().count;
    }
    if (rank == communicator.rank()) own_end = ranges_.size();
    counts_.push_back(count);
    all_.resize(all_.size() + count);
  }
  own_ = std::span(ranges_).subspan(own_begin, own_end - own_begin);
  mine_.resize(counts_[communicator.rank()]);
}

void ShareGather::gather(std::span<double> numbers) {
  auto out = mine_.begin();
  for (const Range& range : own_) {
    out = std::ranges::copy(numbers.subspan(range.begin, range.count), out).out;
  }
  communicator_.all_gather(mine_, counts_, all_);
  const double* next = all_.data();
  for (const Range& range : ranges_) {
    std::copy_n(next, range.count, numbers.subspan(range.begin).begin());
    next += range.count;
  }
}

}  // namespace lockstep::trainer

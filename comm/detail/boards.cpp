#include "comm/detail/boards.hpp"

namespace lockstep::comm::detail {

std::string Boards::make(Communicator& communicator, const Hierarchy& hierarchy, std::size_t floats,
                         std::size_t places) {
  own_ = hierarchy.member;
  floats_ = floats;
  counter_bytes_ = SegmentLayout::round_to_page(places * sizeof(Counter));
  return memory_.share(communicator, hierarchy,
                       counter_bytes_ + SegmentLayout::round_to_page(floats * sizeof(float)));
}

float* Boards::board(std::size_t member) const {
  return reinterpret_cast<float*>(memory_.segment(member) + counter_bytes_);
}

void Boards::post(std::size_t place, std::uint64_t step) const {
  counter(own_, place).store(step, std::memory_order_release);
}

bool Boards::is_posted(std::size_t member, std::size_t place, std::uint64_t step) const {
  return counter(member, place).load(std::memory_order_acquire) >= step;
}

std::atomic<std::uint64_t>& Boards::counter(std::size_t member, std::size_t place) const {
  return reinterpret_cast<Counter*>(memory_.segment(member))[place].value;
}

}  // namespace lockstep::comm::detail

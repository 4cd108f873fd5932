#include "comm/detail/status.hpp"

#include <algorithm>

#include "comm/detail/requests.hpp"

namespace lockstep::comm::detail {

std::string Status::text() const {
  char name[sizeof phase + 1] = {};
  std::memcpy(name, &phase, sizeof phase);
  std::string text = step == 0 ? "before its first step" : "step " + std::to_string(step);
  if (phase != 0) text += std::string(", ") + name;
  if (bucket != 0) text += ", bucket " + std::to_string(bucket) + " of " + std::to_string(buckets);
  return text;
}

std::string describe_ranks(const std::vector<std::string>& known) {
  std::string text;
  std::vector<bool> told(known.size());
  for (std::size_t r = 0; r < known.size(); ++r) {
    if (told[r]) continue;
    std::vector<std::size_t> same;
    for (std::size_t other = r; other < known.size(); ++other) {
      if (known[other] != known[r]) continue;
      told[other] = true;
      same.push_back(other);
    }
    text += "\n  " + name_ranks(same) + ": " + known[r];
  }
  return text;
}

}  // namespace lockstep::comm::detail

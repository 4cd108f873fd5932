// Numbers as people read them. Pure; local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lockstep::datasets {

// 1234567 as "1,234,567".
inline std::string with_commas(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

}  // namespace lockstep::datasets

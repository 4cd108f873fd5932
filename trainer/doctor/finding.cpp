#include "trainer/doctor/finding.hpp"

#include <fmt/format.h>

namespace lockstep::trainer {

std::string list_text(std::span<const std::size_t> numbers, std::size_t most) {
  std::string text;
  std::size_t ranges = 0;
  for (std::size_t begin = 0, end = 0; begin < numbers.size(); begin = end, ++ranges) {
    if (ranges == most) return text + ",...";
    for (end = begin + 1; end < numbers.size() && numbers[end] == numbers[end - 1] + 1;) ++end;
    if (!text.empty()) text += ',';
    text += fmt::format("{}", numbers[begin]);
    if (end - begin > 1) text += fmt::format("-{}", numbers[end - 1]);
  }
  return text;
}

std::string ranks_text(std::span<const std::size_t> ranks) {
  constexpr std::size_t kMostRanges = 6;
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", list_text(ranks, kMostRanges));
}

std::string count_text(std::size_t count, std::string_view one, std::string_view many) {
  if (count == 1) return fmt::format("1 {}", one);
  return many.empty() ? fmt::format("{} {}s", count, one) : fmt::format("{} {}", count, many);
}

}  // namespace lockstep::trainer

// Enumerations that people write by name, in configurations and messages. Pure; local.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace lockstep::nn {

// The enumerator called `name`, where names[i] is that of the enumerator of value i.
template <class Enum, std::size_t kCount>
constexpr std::optional<Enum> value_named(const std::array<std::string_view, kCount>& names,
                                          std::string_view name) {
  for (std::size_t i = 0; i < kCount; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace lockstep::nn

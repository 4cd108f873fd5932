// Values and limits of the configuration as text. Pure functions; thread-safe; local.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config_schema.hpp"

namespace lockstep::trainer::schema {

// A value as TOML that reads back to the same bits: doubles as the shortest decimal that does,
// integers above 2^63-1 in quotes, strings escaped. An unset optional is empty text.
std::string toml_text(bool value);
std::string toml_text(double value);
std::string toml_text(std::uint64_t value);
std::string toml_text(std::string_view value);
inline std::string toml_text(const std::string& value) {
  return toml_text(std::string_view(value));
}
std::string toml_text(const std::vector<LayerConfig>& layers);
template <class T>
std::string toml_text(const std::optional<T>& value) {
  return value ? toml_text(*value) : std::string();
}

// The limits alone: "[0, 1)", ">= 1", "relu, tanh", or empty if there are none.
std::string range_text(const Rule& rule);

// What a key of type T takes, for messages: "an integer >= 1", "one of relu, tanh".
std::string expected_text(const Rule& rule, const bool*);
std::string expected_text(const Rule& rule, const double*);
std::string expected_text(const Rule& rule, const std::uint64_t*);
std::string expected_text(const Rule& rule, const std::string*);
template <class T>
std::string expected_text(const Rule& rule, const std::optional<T>*) {
  return expected_text(rule, static_cast<const T*>(nullptr));
}

}  // namespace lockstep::trainer::schema

// The known word that a mistyped one most likely meant.
//
// Pure functions on bytes; thread-safe; local.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lockstep::trainer {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal
// string alignment), without regard to upper and lower case.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The first of `known` at the least distance from `word`; empty if `known` is.
std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace lockstep::trainer

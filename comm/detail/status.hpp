// Where a rank is in its work, for the message that says who keeps whom waiting.
//
// Plain values; local; no MPI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::comm::detail {

// Up to eight characters in one word, which one rank writes and another may read at any time.
inline std::uint64_t word_of(std::string_view name) {
  std::uint64_t word = 0;
  std::memcpy(&word, name.data(), name.size() < sizeof word ? name.size() : sizeof word);
  return word;
}

struct Status {
  std::uint64_t phase = 0;   // word_of("forward")
  std::uint64_t step = 0;    // of the exchange; 0: none has begun
  std::uint64_t bucket = 0;  // from 1, the first one that is under way; 0: none
  std::uint64_t buckets = 0;

  bool operator==(const Status&) const = default;
  std::string text() const;  // "step 17, backward, bucket 2 of 4"
};

// One line for all ranks of which the same is known: "\n  ranks 0, 2: step 17, …". known[r] says it
// of rank r.
std::string describe_ranks(const std::vector<std::string>& known);

}  // namespace lockstep::comm::detail

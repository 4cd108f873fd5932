// The order in which samples are visited, and which of them are held out.
//
// Everything here is a pure function of its arguments, the same bits on every platform, however
// many ranks and threads ask, and in whatever order. Thread-safe. Local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::datasets {

// Purposes draw from independent streams. The values are part of the results: never change one.
enum class Purpose : std::uint16_t { shuffle = 1, split = 2 };

// A uniform integer in [0, bound), bound >= 1: one draw for each (seed, purpose, epoch, position).
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key =
// seed and counter = (position, epoch low, epoch high, purpose << 8 | block), made unbiased by
// rejection (Lemire, "Fast random integer generation in an interval", 2019). Draws that are
// rejected take the next of the four words of the block, then the next block of the same position,
// so no draw moves another. The highest bit of the counter is never set here: with it set are the
// draws of nn.
std::uint32_t uniform_below(std::uint32_t bound, std::uint64_t seed, Purpose purpose,
                            std::uint64_t epoch, std::uint32_t position);

// The numbers 0 to n-1 in random order, n < 2^32 (else std::length_error). Fisher-Yates: for i =
// n-1 down to 1, entry i is swapped with entry uniform_below(i + 1, …, position = i).
std::vector<std::uint32_t> permutation(std::size_t n, std::uint64_t seed, Purpose purpose,
                                       std::uint64_t epoch);

// The same for n = order.size(), written to `order`. Allocates nothing.
void permute(std::span<std::uint32_t> order, std::uint64_t seed, Purpose purpose,
             std::uint64_t epoch);

struct Split {
  std::vector<std::uint32_t> train, validation;  // ascending rows; disjoint, together all n
};

// Holds out round(n * validation_fraction) rows, the first of permutation(n, seed, split, 0). A
// fraction above 0 holds out at least one row of two or more, and at least one is always left to
// train. Throws std::invalid_argument unless 0 <= validation_fraction < 1.
Split split(std::size_t n, double validation_fraction, std::uint64_t seed);

}  // namespace lockstep::datasets

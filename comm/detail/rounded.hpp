// Floats as bfloat16 on the wire: rounded to nearest, ties to even, in the memory where they stand.
//
// After round_in_place() the first half of the bytes holds `count` values of 16 bits, the upper
// half of a float each; expand_in_place() is the way back. NaNs stay NaNs. Local; thread-safe for
// distinct memory; no MPI.
#pragma once

#include <cstddef>

namespace lockstep::comm::detail {

void round_in_place(float* values, std::size_t count);
void expand_in_place(float* values, std::size_t count);

}  // namespace lockstep::comm::detail

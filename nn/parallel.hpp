// Hands out the parts of one piece of work to the threads of the current task arena.
//
// Parts are cut by what the work is, never by the number of threads, and write to places of their
// own, so the result is the same for any number of threads. Work that is shorter than handing it
// out stays on the calling thread. Local.
#pragma once

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cstddef>

namespace lockstep::nn {

// Handing a task to another thread costs about as much as this many floating-point operations.
inline constexpr double kOperationsWorthATask = 400'000;

// Whether the current task arena has a thread beside the caller's.
inline bool others_can_work() {
  return tbb::this_task_arena::max_concurrency() > 1;
}

// Parts of `size` that `whole` makes; the last may be smaller.
constexpr std::size_t parts_of(std::size_t whole, std::size_t size) {
  return (whole + size - 1) / size;
}

// Calls part(i) for i = 0..parts-1, on several threads if the whole takes `operations`
// floating-point operations or so and that is worth it. Throws what a part throws.
template <class Part>
void for_each_part(std::size_t parts, double operations, const Part& part) {
  if (parts < 2 || operations < kOperationsWorthATask) {
    for (std::size_t i = 0; i < parts; ++i) part(i);
  } else {
    tbb::parallel_for(std::size_t{0}, parts, part);
  }
}

inline constexpr std::size_t kRowsPerBlock = 16;

// The same, where every part has memory of its own that the next call for the same parts comes back
// to: they go to the same threads each time, as far as these are there, so that what a part brought
// into its thread's cache is still in it.
template <class Part>
void for_each_part_of_memory(std::size_t parts, double operations, const Part& part) {
  if (parts < 2 || operations < kOperationsWorthATask) {
    for (std::size_t i = 0; i < parts; ++i) part(i);
  } else {
    tbb::parallel_for(std::size_t{0}, parts, part, tbb::static_partitioner());
  }
}

// Calls work(begin, end) for blocks of rows that together are 0..rows-1.
template <class Work>
void for_each_row_block(std::size_t rows, double operations_per_row, const Work& work) {
  const std::size_t blocks = parts_of(rows, kRowsPerBlock);
  for_each_part(blocks, operations_per_row * static_cast<double>(rows), [&](std::size_t block) {
    const std::size_t begin = block * kRowsPerBlock;
    work(begin, std::min(rows, begin + kRowsPerBlock));
  });
}

}  // namespace lockstep::nn

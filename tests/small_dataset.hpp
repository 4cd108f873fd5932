// A small dataset in memory, for tests of what trains and evaluates.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "datasets/dataset.hpp"
#include "datasets/writer.hpp"
#include "random_matrix.hpp"

namespace lockstep::test {

// `samples` points of five numbers; the class of each, 0 to 2, says which third its first number
// lies in. With `classes` false, the five numbers' sum is a real target instead.
inline datasets::Dataset small_dataset(std::size_t samples, bool classes = true) {
  constexpr std::size_t kFeatures = 5;
  datasets::Contents contents;
  contents.x_shape = {samples, kFeatures};
  std::vector<float> x(samples * kFeatures);
  fill_uniform(std::span(x), 1);
  for (std::size_t i = 0; i < samples; ++i) {
    const float* sample = &x[i * kFeatures];
    if (classes) {
      contents.labels.push_back(sample[0] < -1.0f / 3 ? 0 : sample[0] < 1.0f / 3 ? 1 : 2);
    } else {
      contents.targets.push_back(sample[0] + sample[1] + sample[2] + sample[3] + sample[4]);
    }
  }
  contents.x = x;
  contents.classes = classes ? 3 : 0;
  contents.target_width = classes ? 0 : 1;
  const auto path = std::filesystem::path(::testing::TempDir()) /
                    ("lockstep-small-" + std::to_string(::getpid()) + ".h5");
  datasets::write_dataset(path, contents);
  datasets::Dataset data = datasets::Dataset::read(path);
  std::filesystem::remove(path);
  return data;
}

}  // namespace lockstep::test

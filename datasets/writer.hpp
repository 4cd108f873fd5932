// Dataset and prediction files, written whole or not at all.
//
// Both calls build the file in memory (up to three times its size at once), then write it by
// write_file_atomically(): a file of that name is replaced only by a complete one. They throw
// DataError for contents that do not fit together and std::system_error when writing fails. Local;
// not to be called from several threads at once (see hdf5.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace lockstep::datasets {

// What a dataset file holds; dataset.hpp explains the fields. Owns its values.
struct Contents {
  std::vector<std::size_t> x_shape;  // N first
  std::variant<std::vector<std::uint8_t>, std::vector<float>> x;
  std::vector<std::int32_t> labels;  // N classes, or empty
  std::vector<float> targets;        // N x target_width, or empty
  std::size_t target_width = 0;      // D; 0 without targets
  std::size_t classes = 0;           // 0: no such attribute
  double scale = 1.0, offset = 0.0;
  std::string source;

  std::size_t samples() const { return x_shape.empty() ? 0 : x_shape.front(); }
};

// Writes /x, /y (from labels or targets; none if both are empty) and the attributes. Labels are
// stored as uint8 if all are below 256, else as int32.
void write_dataset(const std::filesystem::path& path, const Contents& contents);

// Outputs of a network for every sample of a dataset. Views what the caller owns.
struct Predictions {
  std::size_t samples = 0, width = 0;     // N, D
  std::span<const float> outputs;         // N x D
  std::span<const std::int32_t> classes;  // N, or empty: not a classifier
  std::string source;                     // which network and data
};

// Writes /outputs (N x D float32), /class (N int32, of a classifier) and the attribute `source`.
void write_predictions(const std::filesystem::path& path, const Predictions& predictions);

}  // namespace lockstep::datasets

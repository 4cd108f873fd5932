#include "datasets/writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "datasets/atomic_file.hpp"
#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"

namespace lockstep::datasets {
namespace {

void expect_size(const std::filesystem::path& path, const char* object, std::size_t found,
                 std::size_t expected) {
  if (found != expected) {
    throw DataError(path, object, fmt::format("{} values given, expected {}", found, expected));
  }
}

void write_labels(hdf5::File& file, std::span<const std::int32_t> labels) {
  const std::array<std::size_t, 1> shape{labels.size()};
  const bool narrow = std::all_of(labels.begin(), labels.end(),
                                  [](std::int32_t label) { return label >= 0 && label < 256; });
  if (!narrow) {
    file.write<std::int32_t>("y", labels, shape);
    return;
  }
  std::vector<std::uint8_t> bytes;
  bytes.reserve(labels.size());
  for (const std::int32_t label : labels) bytes.push_back(static_cast<std::uint8_t>(label));
  file.write<std::uint8_t>("y", bytes, shape);
}

}  // namespace

void write_dataset(const std::filesystem::path& path, const Contents& contents) {
  const std::size_t samples = contents.samples();
  if (!contents.labels.empty() && !contents.targets.empty()) {
    throw DataError(path, "/y", "both labels and targets given, expected one of them");
  }
  hdf5::File file = hdf5::File::create_image(path.string());
  std::visit([&]<typename T>(const std::vector<T>& x) { file.write<T>("x", x, contents.x_shape); },
             contents.x);
  if (!contents.labels.empty()) {
    expect_size(path, "/y", contents.labels.size(), samples);
    write_labels(file, contents.labels);
  } else if (!contents.targets.empty()) {
    expect_size(path, "/y", contents.targets.size(), samples * contents.target_width);
    file.write<float>("y", contents.targets, std::array{samples, contents.target_width});
  }
  if (contents.classes > 0) {
    file.write_attribute<std::int64_t>("/", "classes", static_cast<std::int64_t>(contents.classes));
  }
  file.write_attribute<double>("/", "scale", contents.scale);
  file.write_attribute<double>("/", "offset", contents.offset);
  if (!contents.source.empty()) file.write_text_attribute("/", "source", contents.source);
  write_file_atomically(path, file.image());
}

void write_predictions(const std::filesystem::path& path, const Predictions& predictions) {
  expect_size(path, "/outputs", predictions.outputs.size(),
              predictions.samples * predictions.width);
  hdf5::File file = hdf5::File::create_image(path.string());
  file.write<float>("outputs", predictions.outputs,
                    std::array{predictions.samples, predictions.width});
  if (!predictions.classes.empty()) {
    expect_size(path, "/class", predictions.classes.size(), predictions.samples);
    file.write<std::int32_t>("class", predictions.classes, std::array{predictions.samples});
  }
  if (!predictions.source.empty()) file.write_text_attribute("/", "source", predictions.source);
  write_file_atomically(path, file.image());
}

}  // namespace lockstep::datasets

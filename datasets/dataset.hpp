// A dataset file in memory: N samples of F real inputs each, and a class or D real targets for
// each.
//
// In the file `x` is N x … of any integer or float type, and `y` is N integers (the class of each
// sample, from 0) or N or N x D numbers (real targets). Root attributes, all optional:
//   classes   number of classes, >= 1                      default: highest label + 1
//   scale     real input = stored value * scale + offset   default: 1
//   offset                                                 default: 0
//   source    where the data came from, as text
// The scaling is computed in double and rounded to float once; targets are not scaled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "datasets/scaling.hpp"

namespace lockstep::datasets {

namespace hdf5 {
class File;
}

// Paths of inputs and targets in the file. Empty names are recognised: x and y, data and label, X
// and y, features and targets, in this order.
struct Names {
  std::string x, y;
};

// Owns all samples, inputs in their stored type (floats of other widths than 32 and 64 bit as
// float32). Immutable after read(): every call may be made from many threads at once. Move-only; a
// moved-from Dataset may only be destroyed or assigned. All calls are local. Rows are 0 to
// samples() - 1 in file order and are asserted, not checked.
class Dataset {
 public:
  // Reads and checks the whole file. Throws DataError, one line naming file and dataset, if the
  // file is missing, damaged or not HDF5, or if inputs or targets are absent (targets only where
  // `targets_required`), empty, of the wrong rank or type, of different numbers of samples, not
  // finite (as float32), or labels below 0 or not below `classes`.
  static Dataset read(const std::filesystem::path& path, const Names& names = {},
                      bool targets_required = true);

  std::size_t samples() const { return samples_; }                                // N >= 1
  std::size_t features() const { return features_; }                              // F >= 1
  const std::vector<std::size_t>& sample_shape() const { return sample_shape_; }  // product is F

  bool has_targets() const { return has_classes() || target_width_ > 0; }
  bool has_classes() const { return classes_ > 0; }
  std::size_t classes() const { return classes_; }  // 0 without classes
  // Outputs that a network for this data has: classes(), or D; 0 without targets.
  std::size_t target_width() const { return has_classes() ? classes_ : target_width_; }

  // out[0 .. F) = real inputs of sample `row`, in file order of its shape.
  void copy_sample(std::size_t row, float* out) const;
  // The same for each of `rows`, from out[0], out[stride], … on. Meanwhile `upcoming`, which will
  // be copied next, are on their way from memory: in random order each would be waited for.
  void copy_samples(std::span<const std::uint32_t> rows, float* out, std::size_t stride,
                    std::span<const std::uint32_t> upcoming = {}) const;

  // lines[0 .. returned) = addresses in the cache lines of memory that copying samples `rows` and
  // their labels will read: at most lines_of_sample() each, for which there must be room. The ends
  // of all samples come first: whoever asks for those at once has the processor look up the
  // addresses of their pages side by side, and it knows them when the lines between come.
  std::size_t list_lines(std::span<const std::uint32_t> rows, std::span<const void*> lines) const;
  std::size_t lines_of_sample() const;

  // Class of sample `row`, 0 to classes() - 1. Only if has_classes().
  std::int32_t label(std::size_t row) const;
  // out[0 .. D) = real targets of sample `row`. Only if has_targets() and not has_classes().
  void copy_targets(std::size_t row, float* out) const;
  // labels[i] = class of sample rows[i]. Only if has_classes().
  void copy_labels(std::span<const std::uint32_t> rows, std::int32_t* labels) const;

  // SHA-256 (hexadecimal) over names of types, shapes, scale, offset, classes and all values: what
  // training sees, and neither names nor source. Computed at the first call and kept.
  const std::string& digest() const;

  const std::filesystem::path& path() const { return path_; }  // as given to read()
  const std::string& source() const { return source_; }
  const std::string& x_name() const { return x_name_; }  // with a leading '/'
  const std::string& y_name() const { return y_name_; }  // empty without targets
  const std::string& x_type() const { return x_type_; }  // as stored: "uint8", …
  const std::string& y_type() const { return y_type_; }
  double scale() const { return scaling_.scale(); }
  double offset() const { return scaling_.offset(); }

 private:
  using Stored =
      std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                   std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                   std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<float>,
                   std::vector<double>>;
  struct Digest {
    std::once_flag once;
    std::string hex;
  };

  template <typename T>
  std::span<const T> sample(const std::vector<T>& values, std::size_t row) const;
  template <typename T>
  void ask_for_sample(const std::vector<T>& values, std::size_t row) const;

  Dataset() = default;
  void read_scale(const hdf5::File& file);
  void read_inputs(const hdf5::File& file);
  void read_targets(const hdf5::File& file);
  void read_labels(const hdf5::File& file);
  void check_inputs_finite() const;
  std::string compute_digest() const;

  std::filesystem::path path_;
  std::string x_name_, y_name_, x_type_, y_type_, source_;
  std::size_t samples_ = 0, features_ = 0, classes_ = 0;
  std::size_t target_width_ = 0;  // D; 0 with classes or without targets
  std::vector<std::size_t> sample_shape_;
  Scaling scaling_;
  Stored x_;                          // N x F
  std::vector<std::int32_t> labels_;  // N, or empty
  std::vector<float> targets_;        // N x D, or empty
  std::unique_ptr<Digest> digest_ = std::make_unique<Digest>();
};

}  // namespace lockstep::datasets

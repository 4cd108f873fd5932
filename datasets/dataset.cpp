#include "datasets/dataset.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

#include "datasets/detail/names.hpp"
#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"
#include "datasets/sha256.hpp"

namespace lockstep::datasets {
namespace {

using hdf5::Info;

constexpr std::size_t kLine = 64;  // bytes of a cache line

// Only advice to the processor. GCC takes a function that does nothing else for one without effect,
// and drops calls to it; a statement of assembly, even of none, it leaves alone.
inline void ask_for(const void* line) {
  __builtin_prefetch(line);
  asm volatile("");
}

// Calls use(address) for the cache lines at the ends of a sample, …
template <typename T, typename Use>
void for_each_end(std::span<const T> sample, const Use& use) {
  const auto* first = reinterpret_cast<const char*>(sample.data());
  use(first);
  use(first + sample.size_bytes() - 1);
}

// … and for all others of it.
template <typename T, typename Use>
void for_each_line_between(std::span<const T> sample, const Use& use) {
  const auto* first = reinterpret_cast<const char*>(sample.data());
  for (std::size_t at = kLine; at < sample.size_bytes(); at += kLine) use(first + at);
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// A value that is no number a network can learn from, as a person would call it.
std::string name_of(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return "infinity";
  return fmt::format("{} (infinity as float32)", value);
}

// An attribute of the root that is one number, or `fallback` where it is absent.
double number(const hdf5::File& file, const std::string& attribute, double fallback) {
  if (!file.has_attribute("/", attribute)) return fallback;
  const auto value = file.read_attribute<double>("/", attribute);
  if (!std::isfinite(value)) {
    throw DataError(file.name(), "attribute " + attribute,
                    fmt::format("is {}, expected a finite number", value));
  }
  return value;
}

// Where the data came from. Other programs use the name for other things than one text; that is no
// reason to refuse their data.
std::string source_of(const hdf5::File& file) {
  if (!file.has_attribute("/", "source")) return {};
  try {
    return file.read_text_attribute("/", "source");
  } catch (const DataError&) {
    return {};
  }
}

Info number_info(const hdf5::File& file, const std::string& name) {
  Info info = file.info(name);
  if (!info.is_number() || info.bytes > 8) {
    throw DataError(
        file.name(), name,
        fmt::format("holds {}, expected integers or floats of at most 64 bits", info.type_name()));
  }
  return info;
}

}  // namespace

Dataset Dataset::read(const std::filesystem::path& path, const Names& names,
                      bool targets_required) {
  const hdf5::File file = hdf5::File::open(path);
  Dataset dataset;
  dataset.path_ = path;
  const Names found = find_names(file, names, targets_required);
  dataset.x_name_ = found.x;
  dataset.y_name_ = found.y;
  dataset.source_ = source_of(file);
  dataset.read_scale(file);
  dataset.read_inputs(file);
  dataset.check_inputs_finite();
  if (!found.y.empty()) dataset.read_targets(file);
  return dataset;
}

void Dataset::read_scale(const hdf5::File& file) {
  const double scale = number(file, "scale", 1.0);
  if (scale == 0.0) {
    throw DataError(file.name(), "attribute scale", "is 0, expected another number");
  }
  scaling_ = Scaling(scale, number(file, "offset", 0.0));
}

void Dataset::read_inputs(const hdf5::File& file) {
  const Info info = number_info(file, x_name_);
  if (info.shape.empty()) {
    throw DataError(path_, x_name_, "is a scalar, expected samples x features");
  }
  if (std::count(info.shape.begin(), info.shape.end(), 0u) > 0) {
    throw DataError(path_, x_name_,
                    fmt::format("is empty ({}), expected at least one sample and one feature",
                                hdf5::to_string(info.shape)));
  }
  x_type_ = info.type_name();
  samples_ = info.shape.front();
  sample_shape_.assign(info.shape.begin() + 1, info.shape.end());

  const auto read_as = [&]<typename T>(T) { x_ = file.read<T>(x_name_); };
  if (info.kind == Info::Kind::floating) {
    info.bytes <= 4 ? read_as(float{}) : read_as(double{});
  } else if (info.kind == Info::Kind::unsigned_integer) {
    if (info.bytes == 1) {
      read_as(std::uint8_t{});
    } else if (info.bytes == 2) {
      read_as(std::uint16_t{});
    } else if (info.bytes <= 4) {
      read_as(std::uint32_t{});
    } else {
      read_as(std::uint64_t{});
    }
  } else {
    if (info.bytes == 1) {
      read_as(std::int8_t{});
    } else if (info.bytes == 2) {
      read_as(std::int16_t{});
    } else if (info.bytes <= 4) {
      read_as(std::int32_t{});
    } else {
      read_as(std::int64_t{});
    }
  }
  features_ = std::visit([](const auto& values) { return values.size(); }, x_) / samples_;
}

void Dataset::check_inputs_finite() const {
  std::visit(
      [this]<typename T>(const std::vector<T>& values) {
        // The largest integers, scaled, bound all others; only if these overflow is every one
        // tried.
        if constexpr (std::is_integral_v<T>) {
          if (std::isfinite(scaling_(std::numeric_limits<T>::max())) &&
              std::isfinite(scaling_(std::numeric_limits<T>::min()))) {
            return;
          }
        }
        const auto bad = std::find_if(values.begin(), values.end(), [this](T stored) {
          return !std::isfinite(scaling_(stored));
        });
        if (bad == values.end()) return;
        const auto at = static_cast<std::size_t>(bad - values.begin());
        throw DataError(path_, x_name_,
                        fmt::format("{} in row {}, column {}; expected finite numbers",
                                    name_of(static_cast<double>(*bad) * scale() + offset()),
                                    at / features_, at % features_));
      },
      x_);
}

void Dataset::read_targets(const hdf5::File& file) {
  const Info info = number_info(file, y_name_);
  if (info.shape.empty() || info.shape.size() > 2) {
    throw DataError(path_, y_name_,
                    fmt::format("has the shape {}, expected samples or samples x targets",
                                hdf5::to_string(info.shape)));
  }
  if (info.shape.front() != samples_) {
    throw DataError(
        path_, y_name_,
        fmt::format("has {} samples, expected {} as in {}", info.shape.front(), samples_, x_name_));
  }
  y_type_ = info.type_name();
  if (info.is_integer() && info.shape.size() == 1) {
    read_labels(file);
    return;
  }
  target_width_ = info.shape.size() == 2 ? info.shape[1] : 1;
  if (target_width_ == 0) {
    throw DataError(path_, y_name_, "is empty, expected at least one target a sample");
  }
  targets_ = file.read<float>(y_name_);
  const auto bad = std::find_if(targets_.begin(), targets_.end(),
                                [](float target) { return !std::isfinite(target); });
  if (bad != targets_.end()) {
    const auto at = static_cast<std::size_t>(bad - targets_.begin());
    throw DataError(path_, y_name_,
                    fmt::format("{} in row {}, column {}; expected finite numbers (as float32)",
                                name_of(*bad), at / target_width_, at % target_width_));
  }
}

void Dataset::read_labels(const hdf5::File& file) {
  // The highest class is one below this, so that `classes` itself is an int32 too.
  constexpr std::int64_t kLimit = std::numeric_limits<std::int32_t>::max();
  std::int64_t limit = kLimit;
  std::string expected = fmt::format("0 to {}", kLimit - 1);
  const bool given = file.has_attribute("/", "classes");
  if (given) {
    const double classes = number(file, "classes", 0.0);
    if (classes < 1.0 || classes > static_cast<double>(kLimit) || classes != std::floor(classes)) {
      throw DataError(path_, "attribute classes",
                      fmt::format("is {}, expected an integer from 1 to {}", classes, kLimit));
    }
    limit = static_cast<std::int64_t>(classes);
    expected = fmt::format("0 to {} (attribute classes is {})", limit - 1, limit);
  }

  // int64 holds every label or, where HDF5 meets a larger one, a value that is out of range as
  // well.
  const std::vector<std::int64_t> stored = file.read<std::int64_t>(y_name_);
  const auto bad = std::find_if(stored.begin(), stored.end(), [limit](std::int64_t label) {
    return label < 0 || label >= limit;
  });
  if (bad != stored.end()) {
    throw DataError(
        path_, y_name_,
        fmt::format("label {} in row {}; expected {}", *bad, bad - stored.begin(), expected));
  }
  labels_.reserve(stored.size());
  for (const std::int64_t label : stored) labels_.push_back(static_cast<std::int32_t>(label));
  const std::int64_t highest = *std::max_element(stored.begin(), stored.end());
  classes_ = static_cast<std::size_t>(given ? limit : highest + 1);
}

void Dataset::copy_sample(std::size_t row, float* out) const {
  const auto narrow = static_cast<std::uint32_t>(row);
  copy_samples({&narrow, 1}, out, features_);
}

void Dataset::copy_samples(std::span<const std::uint32_t> rows, float* out, std::size_t stride,
                           std::span<const std::uint32_t> upcoming) const {
  std::visit(
      [&](const auto& values) {
        // Asked for one by one between the copies, they never wait for one another.
        for (std::size_t i = 0; i < rows.size(); ++i) {
          assert(rows[i] < samples_);
          if (i < upcoming.size()) ask_for_sample(values, upcoming[i]);
          scaling_.apply(values.data() + rows[i] * features_, features_, out + i * stride);
        }
        for (std::size_t i = rows.size(); i < upcoming.size(); ++i) {
          ask_for_sample(values, upcoming[i]);
        }
      },
      x_);
}

template <typename T>
std::span<const T> Dataset::sample(const std::vector<T>& values, std::size_t row) const {
  return std::span(values).subspan(row * features_, features_);
}

template <typename T>
void Dataset::ask_for_sample(const std::vector<T>& values, std::size_t row) const {
  for_each_end(sample(values, row), ask_for);
  for_each_line_between(sample(values, row), ask_for);
  if (has_classes()) ask_for(&labels_[row]);
}

std::size_t Dataset::list_lines(std::span<const std::uint32_t> rows,
                                std::span<const void*> lines) const {
  std::size_t count = 0;
  const auto list = [&](const void* line) { lines[count++] = line; };
  std::visit(
      [&](const auto& values) {
        for (const std::uint32_t row : rows) {
          assert(row < samples_);
          for_each_end(sample(values, row), list);
        }
        for (const std::uint32_t row : rows) {
          for_each_line_between(sample(values, row), list);
          if (has_classes()) list(&labels_[row]);
        }
      },
      x_);
  return count;
}

std::size_t Dataset::lines_of_sample() const {
  return std::visit(
      [&](const auto& values) {
        const std::size_t bytes = features_ * sizeof(values.front());
        return (bytes + kLine - 1) / kLine + 2;
      },
      x_);
}

void Dataset::copy_labels(std::span<const std::uint32_t> rows, std::int32_t* labels) const {
  assert(has_classes());
  for (const std::uint32_t row : rows) *labels++ = labels_[row];
}

std::int32_t Dataset::label(std::size_t row) const {
  assert(has_classes() && row < samples_);
  return labels_[row];
}

void Dataset::copy_targets(std::size_t row, float* out) const {
  assert(target_width_ > 0 && row < samples_);
  std::memcpy(out, targets_.data() + row * target_width_, target_width_ * sizeof(float));
}

const std::string& Dataset::digest() const {
  std::call_once(digest_->once, [this] { digest_->hex = compute_digest(); });
  return digest_->hex;
}

std::string Dataset::compute_digest() const {
  static_assert(std::endian::native == std::endian::little,
                "the digest is taken over little-endian values");
  Sha256 sha;
  const auto add = [&sha](const std::string& text) {
    sha.update(std::as_bytes(std::span(text.data(), text.size())));
  };
  // Hexadecimal floats are exact.
  add(fmt::format("lockstep dataset 1\nx {} {} {}\nscale {:a} offset {:a}\ny {} {} classes {}\n",
                  x_type_, samples_, fmt::join(sample_shape_, " "), scale(), offset(), y_type_,
                  target_width_, classes_));
  std::visit([&sha](const auto& values) { sha.update(bytes_of(values)); }, x_);
  sha.update(bytes_of(labels_));
  sha.update(bytes_of(targets_));
  return sha.hex_digest();
}

}  // namespace lockstep::datasets

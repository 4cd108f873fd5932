#include "trainer/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fstream>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>

#include "datasets/atomic_file.hpp"
#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"
#include "datasets/sha256.hpp"
#include "trainer/training_state.hpp"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using datasets::Sha256;
using datasets::hdf5::File;
using datasets::hdf5::Info;
using datasets::hdf5::Order;

constexpr std::uint64_t kFormatVersion = 1;
constexpr std::string_view kClosing = "lockstep sha256 ";
constexpr std::size_t kDigits = 64;
constexpr std::size_t kClosingSize = kClosing.size() + kDigits + 1;

// The checksum hashes values as they lie in memory.
static_assert(std::endian::native == std::endian::little);
static_assert(std::numeric_limits<float>::is_iec559 && std::numeric_limits<double>::is_iec559);

[[noreturn]] void fail(const fs::path& file, std::string_view text) {
  throw CheckpointError(fmt::format("{}: {}", file.string(), text));
}

// The attributes that are text, in the order of the checksum.
template <class Visitor, class C>
void describe_texts(Visitor&& visit, C& checkpoint) {
  visit("program_version", checkpoint.program_version);
  visit("build", checkpoint.build);
  visit("instruction_set", checkpoint.instruction_set);
  visit("data_digest", checkpoint.data_digest);
  visit("config", checkpoint.config);
}

// The serialisation that the header defines, into a hash.
class Checksum {
 public:
  void add(std::uint64_t value) { bytes(std::span(&value, 1)); }
  void add(double value) { bytes(std::span(&value, 1)); }
  void add(bool value) { add(std::uint64_t{value}); }
  void add(std::string_view text) {
    add(std::uint64_t{text.size()});
    bytes(std::span(text));
  }
  void add(const std::vector<double>& values) {
    add(std::uint64_t{values.size()});
    bytes(std::span(values));
  }
  void add(const std::vector<NamedTensor>& tensors) {
    add(std::uint64_t{tensors.size()});
    for (const NamedTensor& tensor : tensors) {
      add(std::string_view(tensor.name));
      add(std::uint64_t{tensor.shape.size()});
      for (const std::size_t dimension : tensor.shape) add(std::uint64_t{dimension});
      bytes(std::span(tensor.values));
    }
  }
  std::string digest() const { return hash_.hex_digest(); }

 private:
  template <class T, std::size_t N>
  void bytes(std::span<T, N> values) {
    hash_.update(std::as_bytes(values));
  }

  Sha256 hash_;
};

std::string checksum_of(const Checkpoint& checkpoint) {
  Checksum sum;
  sum.add(std::string_view("lockstep checkpoint"));
  sum.add(kFormatVersion);
  describe_texts([&](const char*, const std::string& text) { sum.add(std::string_view(text)); },
                 checkpoint);
  for_each_state_member([&](const char*, auto member) { sum.add(checkpoint.state.*member); });
  sum.add(checkpoint.parameters);
  sum.add(std::uint64_t{checkpoint.moments.size()});
  for (const auto& [name, tensors] : checkpoint.moments) {
    sum.add(std::string_view(name));
    sum.add(tensors);
  }
  sum.add(checkpoint.best);
  return sum.digest();
}

void write_tensors(File& file, const std::string& group, const std::vector<NamedTensor>& tensors) {
  file.create_group(group);
  for (const NamedTensor& tensor : tensors) {
    file.write<float>(group + "/" + tensor.name, tensor.values, tensor.shape);
  }
}

NamedTensor read_tensor(const File& file, const std::string& group, const std::string& name) {
  const std::string path = fmt::format("{}/{}", group, name);
  return {name, file.info(path).shape, file.read<float>(path)};
}

std::vector<NamedTensor> read_tensors(const File& file, const std::string& group) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file.members(group, Order::creation)) {
    tensors.push_back(read_tensor(file, group, name));
  }
  return tensors;
}

class StateWriter {
 public:
  explicit StateWriter(File& file) : file_(file) {}
  void operator()(const std::string& key, const std::vector<double>& values) {
    const std::array<std::size_t, 1> shape{values.size()};
    file_.write<double>("state/" + key, values, shape);
  }
  void operator()(const std::string& key, bool value) {
    file_.write_scalar<std::uint8_t>("state/" + key, value ? 1 : 0);
  }
  template <class T>
  void operator()(const std::string& key, const T& value) {
    file_.write_scalar<T>("state/" + key, value);
  }

 private:
  File& file_;
};

class StateReader {
 public:
  explicit StateReader(const File& file) : file_(file) {}
  void operator()(const std::string& key, std::vector<double>& values) {
    values = file_.read<double>("state/" + key);
  }
  void operator()(const std::string& key, bool& value) {
    value = file_.read_scalar<std::uint8_t>("state/" + key) != 0;
  }
  template <class T>
  void operator()(const std::string& key, T& value) {
    value = file_.read_scalar<T>("state/" + key);
  }

 private:
  const File& file_;
};

struct Closing {
  bool found = false;    // the last line is a digest
  std::string stored;    // the digest there
  std::string computed;  // that of the bytes before it
};

// Reads the whole file. Throws CheckpointError if it cannot be read.
Closing read_closing(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    fail(path, status.type() == fs::file_type::not_found ? "no such file"
                                                         : "cannot be read: " + error.message());
  }
  if (!fs::is_regular_file(status)) fail(path, "is not a regular file, expected a checkpoint");
  const std::uintmax_t size = fs::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) fail(path, "cannot be read: " + std::generic_category().message(errno));

  Sha256 hash;
  Closing closing;
  const std::uintmax_t content = size >= kClosingSize ? size - kClosingSize : 0;
  std::vector<char> buffer(std::size_t{1} << 20);
  const auto read = [&](std::size_t count) {
    if (!in.read(buffer.data(), static_cast<std::streamsize>(count))) {
      fail(path, "cannot be read: it ends early or the disk fails");
    }
  };
  for (std::uintmax_t done = 0; done < content;) {
    const std::size_t count = std::min<std::uintmax_t>(buffer.size(), content - done);
    read(count);
    hash.update(std::as_bytes(std::span(buffer).first(count)));
    done += count;
  }
  const auto rest = static_cast<std::size_t>(size - content);
  read(rest);
  const std::string_view line(buffer.data(), rest);
  closing.found = rest == kClosingSize && line.starts_with(kClosing) && line.back() == '\n';
  if (closing.found) {
    closing.stored = line.substr(kClosing.size(), kDigits);
    closing.computed = hash.hex_digest();
  }
  return closing;
}

bool starts_as_hdf5(const fs::path& path) {
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  std::array<char, kSignature.size()> start{};
  std::ifstream(path, std::ios::binary).read(start.data(), start.size());
  return std::string_view(start.data(), start.size()) == kSignature;
}

void check_closing(const fs::path& path, const Closing& closing) {
  if (!closing.found) {
    fail(path, starts_as_hdf5(path)
                   ? "is truncated or no checkpoint: expected a digest as its last line"
                   : "is not an HDF5 file, expected a checkpoint");
  }
  if (closing.stored != closing.computed) {
    fail(path, fmt::format("is damaged: its bytes have the SHA-256 {:.12}..., expected {:.12}...",
                           closing.computed, closing.stored));
  }
}

std::size_t bytes_of(const std::vector<NamedTensor>& tensors) {
  constexpr std::size_t kOfEach = 1024;  // its header and its place in a group, generously
  std::size_t bytes = 0;
  for (const NamedTensor& tensor : tensors) bytes += tensor.values.size() * sizeof(float) + kOfEach;
  return bytes;
}

// With room for the closing line.
std::vector<std::byte> file_image(const fs::path& path, const Checkpoint& checkpoint) {
  std::size_t bytes = bytes_of(checkpoint.parameters) + bytes_of(checkpoint.best);
  for (const auto& [name, tensors] : checkpoint.moments) bytes += bytes_of(tensors);
  constexpr std::size_t kBesideTensors = std::size_t{1} << 18;  // texts and the state
  File file = File::create_image(path.string(), bytes + kBesideTensors);
  file.write_attribute<std::uint64_t>("/", "format_version", kFormatVersion);
  describe_texts(
      [&](const char* key, const std::string& text) { file.write_text_attribute("/", key, text); },
      checkpoint);
  file.write_text_attribute("/", "checksum", checksum_of(checkpoint));
  StateWriter write_state(file);
  for_each_state_member(
      [&](const char* key, auto member) { write_state(key, checkpoint.state.*member); });
  write_tensors(file, "parameters", checkpoint.parameters);
  file.create_group("optimizer");
  for (const auto& [name, tensors] : checkpoint.moments) {
    write_tensors(file, "optimizer/" + name, tensors);
  }
  if (!checkpoint.best.empty()) write_tensors(file, "best", checkpoint.best);
  return file.image(kClosingSize);
}

Checkpoint read_content(const fs::path& path, const File& file) {
  if (!file.has_attribute("/", "format_version")) {
    fail(path, "is not a checkpoint: expected an attribute format_version");
  }
  const auto version = file.read_attribute<std::uint64_t>("/", "format_version");
  if (version != kFormatVersion) {
    fail(path,
         fmt::format("has format version {}, expected {}: another version of lockstep wrote it",
                     version, kFormatVersion));
  }
  Checkpoint checkpoint;
  describe_texts(
      [&](const char* key, std::string& text) { text = file.read_text_attribute("/", key); },
      checkpoint);
  StateReader read_state(file);
  for_each_state_member(
      [&](const char* key, auto member) { read_state(key, checkpoint.state.*member); });
  checkpoint.parameters = read_tensors(file, "parameters");
  for (const std::string& name : file.members("optimizer", Order::creation)) {
    checkpoint.moments.emplace_back(name, read_tensors(file, "optimizer/" + name));
  }
  if (file.is_group("best")) checkpoint.best = read_tensors(file, "best");
  const std::string expected = file.read_text_attribute("/", "checksum");
  const std::string found = checksum_of(checkpoint);
  if (found != expected) {
    fail(path, fmt::format("its content has the checksum {:.12}..., expected {:.12}...", found,
                           expected));
  }
  return checkpoint;
}

// True for names such as "12.weight"; then `layer` is 12.
bool is_parameter_name(std::string_view name, std::size_t& layer) {
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const auto digits = static_cast<std::size_t>(end - name.data());
  return error == std::errc() && digits + 1 < name.size() && name[digits] == '.';
}

std::vector<NamedTensor> read_named_datasets(const fs::path& path, const File& file) {
  const std::string group = file.is_group("parameters") ? "/parameters" : "";
  std::vector<std::tuple<std::size_t, bool, std::string>> names;  // layer, not its weight, name
  for (const std::string& name : file.members(group)) {
    std::size_t layer = 0;
    if (!is_parameter_name(name, layer) || !file.is_dataset(group + "/" + name)) continue;
    if (name.ends_with(".num_batches_tracked"))
      continue;  // PyTorch's count, which nothing asks for
    names.emplace_back(layer, !name.ends_with(".weight"), name);
  }
  if (names.empty()) {
    fail(path, fmt::format("{}/ holds no parameters, expected datasets such as 0.weight and 0.bias",
                           group));
  }
  std::sort(names.begin(), names.end());
  std::vector<NamedTensor> tensors;
  for (const auto& [layer, other, name] : names) {
    const Info info = file.info(group + "/" + name);
    if (info.kind != Info::Kind::floating) {
      fail(path, fmt::format("{}/{}: holds {}, expected float32 or float64", group, name,
                             info.type_name()));
    }
    NamedTensor tensor = read_tensor(file, group, name);
    const auto wrong = std::find_if(tensor.values.begin(), tensor.values.end(),
                                    [](float value) { return !std::isfinite(value); });
    if (wrong != tensor.values.end()) {
      fail(path, fmt::format("{}/{}: element {} is {}, expected a finite number", group, name,
                             wrong - tensor.values.begin(), *wrong));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

void write_checkpoint(const fs::path& path, const Checkpoint& checkpoint) {
  std::vector<std::byte> bytes = file_image(path, checkpoint);
  Sha256 hash;
  hash.update(bytes);
  const std::string closing = fmt::format("{}{}\n", kClosing, hash.hex_digest());
  const auto line = std::as_bytes(std::span(closing));
  bytes.insert(bytes.end(), line.begin(), line.end());
  datasets::write_file_atomically(path, bytes);
}

void verify_checkpoint_file(const fs::path& path) {
  check_closing(path, read_closing(path));
}

Checkpoint read_checkpoint(const fs::path& path) {
  verify_checkpoint_file(path);
  try {
    return read_content(path, File::open(path));
  } catch (const datasets::DataError& error) {
    throw CheckpointError(error.what());
  }
}

std::vector<NamedTensor> read_parameters(const fs::path& path) {
  if (read_closing(path).found) {
    Checkpoint checkpoint = read_checkpoint(path);
    return checkpoint.best.empty() ? std::move(checkpoint.parameters) : std::move(checkpoint.best);
  }
  try {
    const File file = File::open(path);
    if (file.has_attribute("/", "format_version") && file.has_attribute("/", "checksum")) {
      fail(path, "is a checkpoint that was truncated: expected a digest as its last line");
    }
    return read_named_datasets(path, file);
  } catch (const datasets::DataError& error) {
    throw CheckpointError(error.what());
  }
}

}  // namespace lockstep::trainer

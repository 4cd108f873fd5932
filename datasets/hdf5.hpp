// An HDF5 file, read from disk or built in memory, and everything in it by path.
//
// Objects are named by their path from the root ("parameters/0.weight"; a leading '/' is optional);
// an empty path or "/" is the root group. Shapes are in elements, slowest dimension first; an empty
// shape is a scalar.
//
// No file on disk is ever changed through this class: a file is built in memory and its image
// written by write_file_atomically() (atomic_file.hpp), because HDF5's own close reports neither a
// full disk nor a lost write. Two files built by the same calls have the same bytes: no times are
// stored.
//
// Errors: every call throws DataError naming file and object; HDF5 itself prints nothing.
// Threads: HDF5 may be built without locks; calls from several threads must not overlap, even on
// different files. Local: no call waits for another process.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lockstep::datasets::hdf5 {

// The types in which numbers are written and read.
template <typename T>
concept Number = std::same_as<T, std::uint8_t> || std::same_as<T, std::int8_t> ||
    std::same_as<T, std::uint16_t> || std::same_as<T, std::int16_t> ||
    std::same_as<T, std::uint32_t> || std::same_as<T, std::int32_t> ||
    std::same_as<T, std::uint64_t> || std::same_as<T, std::int64_t> || std::same_as<T, float> ||
    std::same_as<T, double>;

// What a dataset holds, as it is stored.
struct Info {
  enum class Kind { unsigned_integer, signed_integer, floating, text, other };
  Kind kind = Kind::other;         // enumerations (h5py's bool is one) count as their integers
  std::size_t bytes = 0;           // of one element
  std::vector<std::size_t> shape;  // empty: a scalar

  bool is_integer() const { return kind == Kind::unsigned_integer || kind == Kind::signed_integer; }
  bool is_number() const { return is_integer() || kind == Kind::floating; }
  std::string type_name() const;  // "uint8", "float32", "text", …
};

// "60000 x 28 x 28"; "scalar" for the empty shape.
std::string to_string(std::span<const std::size_t> shape);

enum class Order { name, creation };

// Owns an open HDF5 file. Move-only; a moved-from File is null and may only be destroyed or
// assigned.
class File {
 public:
  // Opens `path` for reading. Takes no file lock, so that any number of processes may read, also
  // from read-only and network file systems.
  static File open(const std::filesystem::path& path);

  // Opens the bytes of an HDF5 file for reading. `name` stands for the file in messages. The bytes
  // are copied and need not outlive the call.
  static File open_image(std::span<const std::byte> image, std::string name);

  // An empty file in memory, to be filled by the write calls. `name` stands for it in messages. Its
  // memory grows by so many bytes at a time, each time perhaps to another place.
  static File create_image(std::string name, std::size_t growth = std::size_t{1} << 20);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  explicit operator bool() const { return id_ >= 0; }
  const std::string& name() const { return name_; }

  // The bytes that the file would have on disk, with memory for `room` more.
  std::vector<std::byte> image(std::size_t room = 0) const;

  bool has(std::string_view path) const { return is_group(path) || is_dataset(path); }
  bool is_group(std::string_view path) const;
  bool is_dataset(std::string_view path) const;

  // Makes a group and the groups on the way to it; one that exists already is kept.
  void create_group(std::string_view path);

  // Names of the direct members of a group. Order::creation needs a group that recorded it, as
  // groups made by this class do.
  std::vector<std::string> members(std::string_view group, Order order = Order::name) const;

  Info info(std::string_view dataset) const;

  // Makes a dataset (and the groups on the way to it) of `shape`, whose product is values.size().
  template <Number T>
  void write(std::string_view dataset, std::span<const T> values,
             std::span<const std::size_t> shape);
  template <Number T>
  void write_scalar(std::string_view dataset, T value) {
    write<T>(dataset, std::span<const T>(&value, 1), {});
  }
  // Text is stored as UTF-8 of variable length, which h5py reads as str. It may hold no NUL.
  void write_text(std::string_view dataset, std::string_view text);

  // All elements of a dataset of numbers, converted to T where it is stored in another type:
  // integers out of T's range become its nearest value, fractions are cut. info() tells the stored
  // type.
  template <Number T>
  std::vector<T> read(std::string_view dataset) const;
  // The same into memory of the caller, whose size must be the number of elements.
  template <Number T>
  void read_into(std::string_view dataset, std::span<T> values) const;
  // A dataset of exactly one element.
  template <Number T>
  T read_scalar(std::string_view dataset) const {
    T value{};
    read_into<T>(dataset, std::span<T>(&value, 1));
    return value;
  }
  std::string read_text(std::string_view dataset) const;

  // Attributes of a group or dataset `object`: one number or one text each.
  bool has_attribute(std::string_view object, const std::string& attribute) const;
  template <Number T>
  void write_attribute(std::string_view object, const std::string& attribute, T value);
  void write_text_attribute(std::string_view object, const std::string& attribute,
                            std::string_view text);
  template <Number T>
  T read_attribute(std::string_view object, const std::string& attribute) const;
  std::string read_text_attribute(std::string_view object, const std::string& attribute) const;

 private:
  File(std::int64_t id, std::string name) : id_(id), name_(std::move(name)) {}

  std::int64_t id_ = -1;  // HDF5's hid_t; negative: null
  std::string name_;
};

}  // namespace lockstep::datasets::hdf5

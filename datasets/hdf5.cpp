// Values: datasets and attributes; hdf5_file.cpp has the files and groups.
#include "datasets/hdf5.hpp"

#include <fmt/ranges.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>

#include "datasets/detail/hdf5_calls.hpp"

namespace lockstep::datasets::hdf5 {
namespace {

DatasetHandle open_dataset(hid_t file, const Place& place) {
  const H5I_type_t type = type_of(file, place.object);
  if (type == H5I_GROUP) place.fail("is a group, expected a dataset");
  if (type != H5I_DATASET) place.fail("no such dataset");
  return DatasetHandle(
      place.check(H5Dopen2(file, place.object.c_str(), H5P_DEFAULT), "open the dataset"));
}

template <Number T>
hid_t native_type() {
  if constexpr (std::same_as<T, std::uint8_t>) return H5T_NATIVE_UINT8;
  if constexpr (std::same_as<T, std::int8_t>) return H5T_NATIVE_INT8;
  if constexpr (std::same_as<T, std::uint16_t>) return H5T_NATIVE_UINT16;
  if constexpr (std::same_as<T, std::int16_t>) return H5T_NATIVE_INT16;
  if constexpr (std::same_as<T, std::uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::same_as<T, std::int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::same_as<T, std::uint64_t>) return H5T_NATIVE_UINT64;
  if constexpr (std::same_as<T, std::int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::same_as<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::same_as<T, double>) return H5T_NATIVE_DOUBLE;
}

Info info_of(hid_t type, hid_t space, const Place& place) {
  Info info;
  TypeHandle base(place.check(H5Tcopy(type), "read the type"));
  if (H5Tget_class(base.get()) == H5T_ENUM) {
    base = TypeHandle(place.check(H5Tget_super(base.get()), "read the type"));
  }
  info.bytes = H5Tget_size(base.get());
  switch (H5Tget_class(base.get())) {
    case H5T_INTEGER:
      info.kind = H5Tget_sign(base.get()) == H5T_SGN_NONE ? Info::Kind::unsigned_integer
                                                          : Info::Kind::signed_integer;
      break;
    case H5T_FLOAT:
      info.kind = Info::Kind::floating;
      break;
    case H5T_STRING:
      info.kind = Info::Kind::text;
      break;
    default:
      info.kind = Info::Kind::other;
  }
  if (H5Sget_simple_extent_type(space) == H5S_NULL) {
    info.shape = {0};
    return info;
  }
  const int rank = place.check(H5Sget_simple_extent_ndims(space), "read the shape");
  std::vector<hsize_t> dimensions(static_cast<std::size_t>(rank));
  place.check(H5Sget_simple_extent_dims(space, dimensions.data(), nullptr), "read the shape");
  info.shape.assign(dimensions.begin(), dimensions.end());
  return info;
}

// The one text in a dataset or attribute of type `type`; `read(type, buffer)` is its HDF5 call.
template <typename Read>
std::string read_one_text(const TypeHandle& type, const SpaceHandle& space, const Place& place,
                          Read read) {
  if (H5Tget_class(type.get()) != H5T_STRING) place.fail("holds no text, expected one text");
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL) return {};
  if (const auto count = H5Sget_simple_extent_npoints(space.get()); count != 1) {
    place.fail(fmt::format("holds {} texts, expected one", count));
  }
  if (place.check(H5Tis_variable_str(type.get()), "read the type") > 0) {
    char* text = nullptr;  // HDF5 allocates it by malloc
    place.check(read(type.get(), &text), "read");
    const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
    return text == nullptr ? std::string() : std::string(text);
  }
  std::string text(H5Tget_size(type.get()), '\0');
  place.check(read(type.get(), text.data()), "read");
  if (const std::size_t end = text.find('\0'); end != std::string::npos) text.resize(end);
  if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

TypeHandle text_type(const Place& place) {
  TypeHandle type(place.check(H5Tcopy(H5T_C_S1), "make a text type"));
  place.check(H5Tset_size(type.get(), H5T_VARIABLE), "make a text type");
  place.check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "make a text type");
  return type;
}

// A copy that ends in NUL, as HDF5 wants it.
std::string checked_text(std::string_view text, const Place& place) {
  if (text.find('\0') != std::string_view::npos) place.fail("text with a NUL cannot be stored");
  return std::string(text);
}

DatasetHandle make_dataset(hid_t file, hid_t type, const SpaceHandle& space, const Place& place) {
  const PropertiesHandle properties(
      place.check(H5Pcreate(H5P_DATASET_CREATE), "set up the dataset"));
  place.check(H5Pset_obj_track_times(properties.get(), false), "set up the dataset");
  return DatasetHandle(place.check(H5Dcreate2(file, place.object.c_str(), type, space.get(),
                                              H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                                   "make the dataset"));
}

// An attribute in a message: "attribute scale" of the root, "/x: attribute unit".
Place attribute_place(const std::string& file, std::string_view object,
                      const std::string& attribute) {
  const std::string path = absolute(object);
  return {file, (path == "/" ? "" : path + ": ") + "attribute " + attribute};
}

AttributeHandle open_attribute(hid_t file, std::string_view object, const std::string& attribute,
                               const Place& place) {
  const std::string path = absolute(object);
  if (H5Aexists_by_name(file, path.c_str(), attribute.c_str(), H5P_DEFAULT) <= 0) {
    place.fail("no such attribute");
  }
  return AttributeHandle(place.check(
      H5Aopen_by_name(file, path.c_str(), attribute.c_str(), H5P_DEFAULT, H5P_DEFAULT), "open"));
}

void write_one_attribute(hid_t file, std::string_view object, const std::string& attribute,
                         hid_t type, const void* value, const Place& place) {
  const SpaceHandle space(place.check(H5Screate(H5S_SCALAR), "set up"));
  const AttributeHandle handle(
      place.check(H5Acreate_by_name(file, absolute(object).c_str(), attribute.c_str(), type,
                                    space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                  "make"));
  place.check(H5Awrite(handle.get(), type, value), "write");
}

// Samples are read in random order, each from a page of its own: with huge pages far fewer of the
// addresses are to be looked up. Of memory that was not touched yet; only advice.
void advise_huge_pages(void* memory, std::size_t bytes) {
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t first = (start + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (start + bytes) / kHugePage * kHugePage;
  if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}

}  // namespace

std::string Info::type_name() const {
  switch (kind) {
    case Kind::unsigned_integer:
      return fmt::format("uint{}", 8 * bytes);
    case Kind::signed_integer:
      return fmt::format("int{}", 8 * bytes);
    case Kind::floating:
      return fmt::format("float{}", 8 * bytes);
    case Kind::text:
      return "text";
    case Kind::other:
      break;
  }
  return "neither numbers nor text";
}

std::string to_string(std::span<const std::size_t> shape) {
  return shape.empty() ? "scalar" : fmt::format("{}", fmt::join(shape, " x "));
}

std::size_t elements(std::span<const std::size_t> shape, const Place& place) {
  std::size_t product = 1;
  for (const std::size_t dimension : shape) {
    if (__builtin_mul_overflow(product, dimension, &product)) {
      place.fail(
          fmt::format("the shape {} has more elements than can be counted", to_string(shape)));
    }
  }
  return product;
}

Info File::info(std::string_view dataset) const {
  silence_hdf5();
  const Place place{name_, absolute(dataset)};
  const DatasetHandle handle = open_dataset(id_, place);
  const TypeHandle type(place.check(H5Dget_type(handle.get()), "read the type"));
  const SpaceHandle space(place.check(H5Dget_space(handle.get()), "read the shape"));
  return info_of(type.get(), space.get(), place);
}

template <Number T>
void File::write(std::string_view dataset, std::span<const T> values,
                 std::span<const std::size_t> shape) {
  silence_hdf5();
  const Place place{name_, absolute(dataset)};
  if (elements(shape, place) != values.size()) {
    place.fail(fmt::format("{} values given for the shape {}", values.size(), to_string(shape)));
  }
  create_group(parent_of(place.object));
  const std::vector<hsize_t> dimensions(shape.begin(), shape.end());
  const SpaceHandle space(place.check(
      shape.empty() ? H5Screate(H5S_SCALAR)
                    : H5Screate_simple(static_cast<int>(shape.size()), dimensions.data(), nullptr),
      "set up the shape"));
  const DatasetHandle handle = make_dataset(id_, native_type<T>(), space, place);
  if (values.empty()) return;
  place.check(
      H5Dwrite(handle.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
      "write");
}

void File::write_text(std::string_view dataset, std::string_view text) {
  silence_hdf5();
  const Place place{name_, absolute(dataset)};
  const std::string copy = checked_text(text, place);
  create_group(parent_of(place.object));
  const TypeHandle type = text_type(place);
  const SpaceHandle space(place.check(H5Screate(H5S_SCALAR), "set up the shape"));
  const DatasetHandle handle = make_dataset(id_, type.get(), space, place);
  const char* start = copy.c_str();
  place.check(H5Dwrite(handle.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &start), "write");
}

template <Number T>
std::vector<T> File::read(std::string_view dataset) const {
  const Place place{name_, absolute(dataset)};
  const Info found = info(dataset);
  const std::size_t count = elements(found.shape, place);
  std::vector<T> values;
  try {
    values.reserve(count);
    advise_huge_pages(values.data(), count * sizeof(T));
    values.resize(count);
  } catch (const std::exception&) {  // bad_alloc or length_error
    place.fail(fmt::format("its {} elements do not fit into memory", count));
  }
  read_into<T>(dataset, values);
  return values;
}

template <Number T>
void File::read_into(std::string_view dataset, std::span<T> values) const {
  silence_hdf5();
  const Place place{name_, absolute(dataset)};
  const Info found = info(dataset);
  if (!found.is_number()) {
    place.fail(fmt::format("holds {}, expected numbers", found.type_name()));
  }
  if (elements(found.shape, place) != values.size()) {
    place.fail(fmt::format("has the shape {}, expected {} element{}", to_string(found.shape),
                           values.size(), values.size() == 1 ? "" : "s"));
  }
  if (values.empty()) return;
  const DatasetHandle handle = open_dataset(id_, place);
  place.check(H5Dread(handle.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
              "read (truncated or damaged)");
}

std::string File::read_text(std::string_view dataset) const {
  silence_hdf5();
  const Place place{name_, absolute(dataset)};
  const DatasetHandle handle = open_dataset(id_, place);
  const TypeHandle type(place.check(H5Dget_type(handle.get()), "read the type"));
  const SpaceHandle space(place.check(H5Dget_space(handle.get()), "read the shape"));
  return read_one_text(type, space, place, [&](hid_t memory_type, void* buffer) {
    return H5Dread(handle.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer);
  });
}

bool File::has_attribute(std::string_view object, const std::string& attribute) const {
  silence_hdf5();
  return has(object) &&
         H5Aexists_by_name(id_, absolute(object).c_str(), attribute.c_str(), H5P_DEFAULT) > 0;
}

template <Number T>
void File::write_attribute(std::string_view object, const std::string& attribute, T value) {
  silence_hdf5();
  const Place place = attribute_place(name_, object, attribute);
  write_one_attribute(id_, object, attribute, native_type<T>(), &value, place);
}

void File::write_text_attribute(std::string_view object, const std::string& attribute,
                                std::string_view text) {
  silence_hdf5();
  const Place place = attribute_place(name_, object, attribute);
  const std::string copy = checked_text(text, place);
  const char* start = copy.c_str();
  write_one_attribute(id_, object, attribute, text_type(place).get(), &start, place);
}

template <Number T>
T File::read_attribute(std::string_view object, const std::string& attribute) const {
  silence_hdf5();
  const Place place = attribute_place(name_, object, attribute);
  const AttributeHandle handle = open_attribute(id_, object, attribute, place);
  const TypeHandle type(place.check(H5Aget_type(handle.get()), "read the type"));
  const SpaceHandle space(place.check(H5Aget_space(handle.get()), "read the shape"));
  const Info found = info_of(type.get(), space.get(), place);
  if (!found.is_number() || elements(found.shape, place) != 1) {
    place.fail(
        fmt::format("is {} ({}), expected one number", found.type_name(), to_string(found.shape)));
  }
  T value{};
  place.check(H5Aread(handle.get(), native_type<T>(), &value), "read");
  return value;
}

std::string File::read_text_attribute(std::string_view object, const std::string& attribute) const {
  silence_hdf5();
  const Place place = attribute_place(name_, object, attribute);
  const AttributeHandle handle = open_attribute(id_, object, attribute, place);
  const TypeHandle type(place.check(H5Aget_type(handle.get()), "read the type"));
  const SpaceHandle space(place.check(H5Aget_space(handle.get()), "read the shape"));
  return read_one_text(type, space, place, [&](hid_t memory_type, void* buffer) {
    return H5Aread(handle.get(), memory_type, buffer);
  });
}

#define LOCKSTEP_INSTANTIATE(T)                                                    \
  template void File::write<T>(std::string_view, std::span<const T>,               \
                               std::span<const std::size_t>);                      \
  template std::vector<T> File::read<T>(std::string_view) const;                   \
  template void File::read_into<T>(std::string_view, std::span<T>) const;          \
  template void File::write_attribute<T>(std::string_view, const std::string&, T); \
  template T File::read_attribute<T>(std::string_view, const std::string&) const;
LOCKSTEP_INSTANTIATE(std::uint8_t)
LOCKSTEP_INSTANTIATE(std::int8_t)
LOCKSTEP_INSTANTIATE(std::uint16_t)
LOCKSTEP_INSTANTIATE(std::int16_t)
LOCKSTEP_INSTANTIATE(std::uint32_t)
LOCKSTEP_INSTANTIATE(std::int32_t)
LOCKSTEP_INSTANTIATE(std::uint64_t)
LOCKSTEP_INSTANTIATE(std::int64_t)
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::datasets::hdf5

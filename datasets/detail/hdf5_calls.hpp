// The part of HDF5's C interface that hdf5.cpp and its neighbours share: handles that close
// themselves, and calls that throw DataError naming file and object. Internal to this folder: the
// only header that includes HDF5's.
//
// Only calls that HDF5 1.10.8 and 1.14.5 share are used, the versioned ones by number (H5Dopen2).
#pragma once

#include <fmt/format.h>
#include <hdf5.h>

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"

namespace lockstep::datasets::hdf5 {

static_assert(std::is_same_v<hid_t, std::int64_t>, "File keeps a hid_t as std::int64_t");

// Owns what one HDF5 id stands for. Move-only; moved-from is null.
template <herr_t (*Close)(hid_t)>
class Handle {
 public:
  explicit Handle(hid_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) Close(id_);
  }
  hid_t get() const { return id_; }

 private:
  hid_t id_;
};
using AttributeHandle = Handle<H5Aclose>;
using DatasetHandle = Handle<H5Dclose>;
using GroupHandle = Handle<H5Gclose>;
using ObjectHandle = Handle<H5Oclose>;
using PropertiesHandle = Handle<H5Pclose>;
using SpaceHandle = Handle<H5Sclose>;
using TypeHandle = Handle<H5Tclose>;

// HDF5 keeps the switch for its own error printing per thread.
inline void silence_hdf5() {
  thread_local const herr_t status = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  static_cast<void>(status);
}

// What HDF5 has to say about its last failed call, where the failure began.
inline std::string last_hdf5_error() {
  std::string text = "HDF5 gives no reason";
  const auto first = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &text);
  return text;
}

// What an error message names: a file and an object in it.
struct Place {
  const std::string& file;
  std::string object;

  [[noreturn]] void fail(std::string_view what) const { throw DataError(file, object, what); }

  // Passes on the result of an HDF5 call unless it says that the call failed.
  template <typename Result>
  Result check(Result result, const char* doing) const {
    if (result < 0) fail(fmt::format("cannot {}: {}", doing, last_hdf5_error()));
    return result;
  }
};

// "x" and "/x/" name the same object; the form with one leading slash is used throughout.
inline std::string absolute(std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  return std::string("/").append(path);
}

inline std::string parent_of(const std::string& absolute_path) {
  const std::size_t slash = absolute_path.rfind('/');
  return slash == 0 ? "/" : absolute_path.substr(0, slash);
}

// Whether a group or a dataset is at `absolute_path`; H5I_BADID if nothing is.
H5I_type_t type_of(hid_t file, const std::string& absolute_path);

// Product of `shape`.
std::size_t elements(std::span<const std::size_t> shape, const Place& place);

// How new groups record their members: by name and in the order of creation, without times.
void set_group_properties(hid_t properties, const Place& place);

}  // namespace lockstep::datasets::hdf5

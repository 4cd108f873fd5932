// Opening files, and the groups in them; hdf5.cpp has the values.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "datasets/detail/hdf5_calls.hpp"

namespace lockstep::datasets::hdf5 {
namespace {

// HDF5 takes one file of a name at a time, and looks for the name on disk even when it is to stay
// in memory; so the name is new each time and lies where no file can be.
std::string name_in_memory() {
  static std::atomic<unsigned> count{0};
  return fmt::format("/dev/null/lockstep-{}", count++);
}

PropertiesHandle memory_driver(std::size_t increment, const Place& place) {
  PropertiesHandle access(place.check(H5Pcreate(H5P_FILE_ACCESS), "set up a file in memory"));
  place.check(H5Pset_fapl_core(access.get(), increment, /*backing_store=*/false),
              "set up a file in memory");
  return access;
}

// HDF5 calls most of this "unable to open file".
void check_is_hdf5(const std::filesystem::path& path) {
  const auto fail = [&](const std::string& text) { throw DataError(path, "", text); };
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    fail(error == ENOENT
             ? "no such file"
             : fmt::format("cannot be opened: {}", std::generic_category().message(error)));
  }
  struct stat status {};
  const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  // The signature stands at byte 0, 512, 1024, 2048, …
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  bool found = false;
  for (off_t offset = 0; regular && !found && offset < status.st_size;
       offset = offset == 0 ? 512 : 2 * offset) {
    std::array<char, kSignature.size()> bytes{};
    found = ::pread(fd, bytes.data(), bytes.size(), offset) == ssize_t{bytes.size()} &&
            std::string_view(bytes.data(), bytes.size()) == kSignature;
  }
  ::close(fd);
  if (!regular) fail("is not a regular file, expected an HDF5 file");
  if (!found) fail(fmt::format("is not an HDF5 file ({} bytes)", status.st_size));
}

}  // namespace

H5I_type_t type_of(hid_t file, const std::string& absolute_path) {
  if (absolute_path == "/") return H5I_GROUP;
  // HDF5 wants each link on the way to exist before it asks for the next.
  for (std::size_t end = 0; end != std::string::npos;) {
    end = absolute_path.find('/', end + 1);
    const std::string prefix = absolute_path.substr(0, end);
    if (H5Lexists(file, prefix.c_str(), H5P_DEFAULT) <= 0 ||
        H5Oexists_by_name(file, prefix.c_str(), H5P_DEFAULT) <= 0) {  // a link to nothing
      return H5I_BADID;
    }
  }
  const ObjectHandle object(H5Oopen(file, absolute_path.c_str(), H5P_DEFAULT));
  return object.get() < 0 ? H5I_BADID : H5Iget_type(object.get());
}

void set_group_properties(hid_t properties, const Place& place) {
  place.check(H5Pset_link_creation_order(properties, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
              "set up a group");
  place.check(H5Pset_obj_track_times(properties, false), "set up a group");
}

File File::open(const std::filesystem::path& path) {
  silence_hdf5();
  check_is_hdf5(path);
  const std::string name = path.string();
  const Place place{name, ""};
  const PropertiesHandle access(place.check(H5Pcreate(H5P_FILE_ACCESS), "set up reading"));
  // Without a lock: files are replaced whole, by rename, and never changed under a reader's hands;
  // and many file systems of clusters know no locks.
  place.check(H5Pset_file_locking(access.get(), /*use_file_locking=*/false,
                                  /*ignore_when_disabled=*/true),
              "set up reading");
  const hid_t id = H5Fopen(name.c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0) {
    place.fail(fmt::format("is truncated or damaged, HDF5 says: {}", last_hdf5_error()));
  }
  return File(id, name);
}

File File::open_image(std::span<const std::byte> image, std::string name) {
  silence_hdf5();
  const Place place{name, ""};
  const PropertiesHandle access = memory_driver(1 << 16, place);
  // HDF5 takes the bytes as writable for the sake of its other mode of use; here it copies them.
  place.check(
      H5Pset_file_image(access.get(), const_cast<void*>(static_cast<const void*>(image.data())),
                        image.size()),
      "set up a file in memory");
  const hid_t id = H5Fopen(name_in_memory().c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0) {
    place.fail(fmt::format("is not an HDF5 file, or truncated or damaged; HDF5 says: {}",
                           last_hdf5_error()));
  }
  return File(id, std::move(name));
}

File File::create_image(std::string name, std::size_t growth) {
  silence_hdf5();
  const Place place{name, ""};
  const PropertiesHandle creation(
      place.check(H5Pcreate(H5P_FILE_CREATE), "set up a file in memory"));
  set_group_properties(creation.get(), place);
  const PropertiesHandle access = memory_driver(growth, place);
  const hid_t id =
      place.check(H5Fcreate(name_in_memory().c_str(), H5F_ACC_TRUNC, creation.get(), access.get()),
                  "make a file in memory");
  return File(id, std::move(name));
}

File::File(File&& other) noexcept
    : id_(std::exchange(other.id_, -1)), name_(std::move(other.name_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(name_, other.name_);
  return *this;
}

File::~File() {
  if (id_ >= 0) H5Fclose(id_);
}

std::vector<std::byte> File::image(std::size_t room) const {
  silence_hdf5();
  const Place place{name_, ""};
  place.check(H5Fflush(id_, H5F_SCOPE_LOCAL), "complete the file in memory");
  const ssize_t size = place.check(H5Fget_file_image(id_, nullptr, 0), "measure the file");
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<std::size_t>(size) + room);
  bytes.resize(static_cast<std::size_t>(size));
  place.check(H5Fget_file_image(id_, bytes.data(), bytes.size()), "copy the file");
  return bytes;
}

bool File::is_group(std::string_view path) const {
  silence_hdf5();
  return type_of(id_, absolute(path)) == H5I_GROUP;
}

bool File::is_dataset(std::string_view path) const {
  silence_hdf5();
  return type_of(id_, absolute(path)) == H5I_DATASET;
}

void File::create_group(std::string_view path) {
  silence_hdf5();
  const Place place{name_, absolute(path)};
  switch (type_of(id_, place.object)) {
    case H5I_GROUP:
      return;
    case H5I_BADID:
      break;
    default:
      place.fail("is a dataset, expected a group");
  }
  create_group(parent_of(place.object));
  const PropertiesHandle creation(place.check(H5Pcreate(H5P_GROUP_CREATE), "set up a group"));
  set_group_properties(creation.get(), place);
  const GroupHandle group(
      place.check(H5Gcreate2(id_, place.object.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                  "make the group"));
}

std::vector<std::string> File::members(std::string_view group, Order order) const {
  silence_hdf5();
  const Place place{name_, absolute(group)};
  if (type_of(id_, place.object) != H5I_GROUP) place.fail("no such group");
  const GroupHandle handle(
      place.check(H5Gopen2(id_, place.object.c_str(), H5P_DEFAULT), "open the group"));
  if (order == Order::creation) {
    const PropertiesHandle creation(
        place.check(H5Gget_create_plist(handle.get()), "read the group"));
    unsigned recorded = 0;
    place.check(H5Pget_link_creation_order(creation.get(), &recorded), "read the group");
    if ((recorded & H5P_CRT_ORDER_TRACKED) == 0) {
      place.fail("the order of its members was not recorded");
    }
  }
  const H5_index_t index = order == Order::creation ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  H5G_info_t info;
  place.check(H5Gget_info(handle.get(), &info), "read the group");
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto get = [&](char* text, std::size_t size) {
      return place.check(
          H5Lget_name_by_idx(handle.get(), ".", index, H5_ITER_INC, i, text, size, H5P_DEFAULT),
          "read the group");
    };
    std::string name(static_cast<std::size_t>(get(nullptr, 0)), '\0');
    get(name.data(), name.size() + 1);
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace lockstep::datasets::hdf5

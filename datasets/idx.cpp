#include "datasets/idx.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"

namespace lockstep::datasets {
namespace {

namespace fs = std::filesystem;

constexpr std::uint8_t kUint8 = 0x08;

std::string type_name(std::uint8_t type) {
  switch (type) {
    case kUint8:
      return "uint8";
    case 0x09:
      return "int8";
    case 0x0B:
      return "int16";
    case 0x0C:
      return "int32";
    case 0x0D:
      return "float32";
    case 0x0E:
      return "float64";
    default:
      return fmt::format("an unknown type (0x{:02x})", type);
  }
}

// The bytes of a plain or gzip file in order. Owns the open file; neither copied nor moved.
class Source {
 public:
  explicit Source(const fs::path& path) : path_(path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    const int error = errno;
    if (fd < 0) {
      fail(error == ENOENT
               ? "no such file"
               : fmt::format("cannot be opened: {}", std::generic_category().message(error)));
    }
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (regular) file_.reset(::gzdopen(fd, "rb"));  // from here on gzclose() closes fd
    if (!file_) {
      ::close(fd);
      fail("is not a regular file, expected an IDX file");
    }
    stored_bytes_ = static_cast<std::uint64_t>(status.st_size);
    ::gzbuffer(file_.get(), 1 << 18);
  }

  // Fills `out`; throws if the file ends before. `what` names the part that is read.
  void read(std::span<std::uint8_t> out, const char* what) {
    std::size_t done = 0;
    while (done < out.size()) {
      const std::size_t got = read_some(out.subspan(done));
      if (got == 0) {
        fail(fmt::format("ends within the {}, {} of {} bytes are there", what, done, out.size()));
      }
      done += got;
    }
  }

  // Throws unless the file, and its compressed stream with checksum, ends here.
  void expect_end(std::size_t values) {
    std::array<std::uint8_t, 1> extra{};
    if (read_some(extra) != 0) {
      fail(fmt::format("goes on after the {} values that its header says", values));
    }
  }

  // Throws if the file cannot hold `values`, before memory is taken for them.
  void expect_room(std::uint64_t values) {
    constexpr std::uint64_t kBestCompression = 1032;  // of deflate, https://zlib.net/zlib_tech.html
    const bool compressed = ::gzdirect(file_.get()) == 0;
    if (values / (compressed ? kBestCompression : 1) > stored_bytes_) {
      fail(fmt::format("its header says {} values, more than a {}file of {} bytes can hold", values,
                       compressed ? "compressed " : "", stored_bytes_));
    }
  }

  [[noreturn]] void fail(const std::string& text) const { throw DataError(path_, "", text); }

 private:
  struct Close {
    void operator()(gzFile file) const { ::gzclose(file); }
  };

  // As many bytes as are there, 0 at the end of the file.
  std::size_t read_some(std::span<std::uint8_t> out) {
    constexpr std::size_t kMost = 1 << 30;  // gzread() counts in int
    const int got =
        ::gzread(file_.get(), out.data(), static_cast<unsigned>(std::min(out.size(), kMost)));
    // A compressed stream that was cut gives what is there, and Z_BUF_ERROR.
    int status = Z_OK;
    const char* message = ::gzerror(file_.get(), &status);
    if (got < 0 || (status != Z_OK && status != Z_STREAM_END)) {
      const int error = errno;
      fail(fmt::format("is truncated or damaged: {}",
                       status == Z_ERRNO ? std::generic_category().message(error) : message));
    }
    return static_cast<std::size_t>(got);
  }

  fs::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::uint64_t stored_bytes_ = 0;
};

struct Array {
  std::vector<std::size_t> shape;
  std::vector<std::uint8_t> values;
};

// The uint8 array in an IDX file of `least` to `most` dimensions.
Array read_array(const fs::path& path, std::size_t least, std::size_t most,
                 const std::string& expected) {
  Source source(path);
  std::array<std::uint8_t, 4> magic{};
  source.read(magic, "header");
  if (magic[0] != 0 || magic[1] != 0) {
    source.fail(fmt::format("starts with {:02x} {:02x}, expected 00 00 of an IDX file", magic[0],
                            magic[1]));
  }
  if (magic[2] != kUint8) {
    source.fail(fmt::format("holds {}, expected uint8 (0x08)", type_name(magic[2])));
  }
  const std::size_t rank = magic[3];
  if (rank < least || rank > most) {
    source.fail(
        fmt::format("has {} dimension{}, expected {}", rank, rank == 1 ? "" : "s", expected));
  }

  Array array;
  std::uint64_t count = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    std::array<std::uint8_t, 4> big_endian{};
    source.read(big_endian, "header");
    std::uint32_t dimension = 0;
    for (const std::uint8_t byte : big_endian) dimension = dimension << 8 | byte;
    array.shape.push_back(dimension);
    if (__builtin_mul_overflow(count, std::uint64_t{dimension}, &count)) {
      source.fail("its header says more values than can be counted");
    }
  }
  if (count == 0) {
    source.fail(
        fmt::format("is empty ({}), expected at least one sample", hdf5::to_string(array.shape)));
  }
  source.expect_room(count);
  array.values.resize(count);
  source.read(array.values, "values");
  source.expect_end(count);
  return array;
}

}  // namespace

Contents read_idx(const fs::path& images, const fs::path& labels) {
  constexpr std::size_t kHighestRank = 32;  // of HDF5
  Array x =
      read_array(images, 2, kHighestRank, "images of 2 or more (are images and labels exchanged?)");
  const Array y = read_array(labels, 1, 1, "labels of 1 (are images and labels exchanged?)");
  if (x.shape.front() != y.shape.front()) {
    throw DataError(labels, "",
                    fmt::format("has {} labels, expected {} as in {}", y.shape.front(),
                                x.shape.front(), images.string()));
  }
  Contents contents;
  contents.x_shape = std::move(x.shape);
  contents.x = std::move(x.values);
  contents.labels.assign(y.values.begin(), y.values.end());
  contents.classes = std::size_t{*std::max_element(y.values.begin(), y.values.end())} + 1;
  contents.scale = 1.0 / 255.0;
  contents.source =
      fmt::format("IDX files {} and {}", images.filename().string(), labels.filename().string());
  return contents;
}

}  // namespace lockstep::datasets

// Aligned storage, and views of matrices in it.
//
// A view copies nothing and owns nothing; an AlignedBuffer owns. Rows of a matrix start on 64-byte
// boundaries, `stride` elements apart, so that no kernel's arithmetic can depend on an address.
// Not synchronised: many readers or one writer at a time. Local.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace lockstep::nn {

inline constexpr std::size_t kAlignment = 64;  // bytes: a cache line, and the widest register

// Kernels load and store whole groups of this many elements; every padding is a multiple of it.
inline constexpr std::size_t kLanes = 16;

constexpr std::size_t round_up(std::size_t n, std::size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Elements from one row to the next in a matrix of `cols` columns: a whole number of groups, and an
// odd one, since rows a power of two apart would crowd into a few sets of the first-level cache.
constexpr std::size_t padded_stride(std::size_t cols) {
  const std::size_t groups = round_up(cols, kLanes) / kLanes;
  return (groups | 1) * kLanes;
}

// How large memory is had. huge: in huge pages where the system has them, since a panel of a wide
// matrix has each of its rows on a page of its own. small: pages that are never touched take no
// memory.
enum class Pages { huge, small };

// `bytes` of zeros, aligned to kAlignment. Null for 0 bytes. Throws std::bad_alloc.
void* allocate_aligned(std::size_t bytes, Pages pages = Pages::huge);
void free_aligned(void* memory, std::size_t bytes) noexcept;  // as many as were allocated

// `size` elements, zero at first, aligned to kAlignment. kLanes elements beyond the last may be
// read, for nothing: a row in the middle of a buffer is read in whole groups too. Move-only;
// moved-from is empty.
template <class T>
class AlignedBuffer {
  static_assert(std::is_arithmetic_v<T>);  // zero bytes are zeros

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size, Pages pages = Pages::huge)
      : data_(static_cast<T*>(allocate_aligned(bytes_for(size), pages))), size_(size) {}
  ~AlignedBuffer() { free_aligned(data_, bytes_for(size_)); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  static std::size_t bytes_for(std::size_t size) {
    return size == 0 ? 0 : (size + kLanes) * sizeof(T);
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// rows × cols elements; element (i, j) is data[i * stride + j], and lanes cols..stride-1 of a row
// exist but mean nothing. T may be const.
template <class T>
struct MatrixView {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;

  T* row(std::size_t i) const { return data + i * stride; }
  MatrixView top(std::size_t count) const { return {data, count, cols, stride}; }
  bool empty() const { return data == nullptr; }

  operator MatrixView<const T>() const requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

// A matrix that owns its elements.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols)
      : buffer_(rows * padded_stride(cols)), rows_(rows), cols_(cols) {}

  MatrixView<T> view() { return {buffer_.data(), rows_, cols_, padded_stride(cols_)}; }
  MatrixView<const T> view() const { return {buffer_.data(), rows_, cols_, padded_stride(cols_)}; }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }

 private:
  AlignedBuffer<T> buffer_;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
};

}  // namespace lockstep::nn

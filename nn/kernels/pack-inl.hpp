// Factors of products brought into the order in which a tile reads them. Included once per
// instruction set.
#if defined(LOCKSTEP_NN_PACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_NN_PACK_INL
#undef LOCKSTEP_NN_PACK_INL
#else
#define LOCKSTEP_NN_PACK_INL
#endif

#include <hwy/highway.h>

#include "nn/kernels/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lockstep::nn {
namespace HWY_NAMESPACE {

// to = from, for the `cols` columns of a panel, zero beyond them.
template <class T>
HWY_INLINE void copy_panel_row(const T* from, std::size_t cols, T* to) {
  if (cols == kPanel<T>) {
    LOCKSTEP_UNROLL for (std::size_t v = 0; v < kTileVectors; ++v) {
      hn::StoreU(hn::LoadU(Tag<T>(), from + v * kRegister<T>), Tag<T>(), to + v * kRegister<T>);
    }
  } else {
    std::copy_n(from, cols, to);
    std::fill(to + cols, to + kPanel<T>, T{0});
  }
}

// panel[p * kPanel + j] = b[p, j] for `panels` neighbouring panels of `cols` columns in all; one
// panel of `panel_size` elements after the other. All panels of a row are read before the next row:
// rows may be pages apart, and what is read at once should lie together.
template <class T>
HWY_INLINE void pack_rows(const T* b, std::size_t stride, std::size_t depth, std::size_t cols,
                          std::size_t panel_size, T* packed) {
  for (std::size_t p = 0; p < depth; ++p) {
    for (std::size_t j = 0, panel = 0; j < cols; j += kPanel<T>, ++panel) {
      copy_panel_row(b + p * stride + j, std::min(kPanel<T>, cols - j),
                     packed + panel * panel_size + p * kPanel<T>);
    }
  }
}

// Rows that transpose_block() takes.
template <class T>
inline constexpr std::size_t kTransposed = std::is_same_v<T, float>&& hn::MaxLanes(Tag<T>()) >= 8
                                               ? 8
                                               : 4;

// Four columns of kTransposed rows become four rows, for float as one or two 4 x 4 blocks in
// registers; other types go element by element.
template <class T>
HWY_INLINE void transpose_block(const T* b, std::size_t stride, T* out, std::size_t out_stride) {
  if constexpr (std::is_same_v<T, float>) {
    const hn::FixedTag<float, 4> quarter;
    const auto load = [&](std::size_t row) {
      if constexpr (kTransposed<T> == 8) {
        const hn::FixedTag<T, kTransposed<T>> d;
        return hn::Combine(d, hn::LoadU(quarter, b + (row + 4) * stride),
                           hn::LoadU(quarter, b + row * stride));
      } else {
        return hn::LoadU(quarter, b + row * stride);
      }
    };
    const hn::FixedTag<float, kTransposed<T>> d;
    const hn::Repartition<double, decltype(d)> pairs;
    const auto r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, out);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, out + out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, out + 2 * out_stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, out + 3 * out_stride);
  } else {
    for (std::size_t i = 0; i < 4; ++i) {
      for (std::size_t j = 0; j < kTransposed<T>; ++j) out[i * out_stride + j] = b[j * stride + i];
    }
  }
}

// panel[p * kPanel + j] = b[j, p]: a panel from a matrix stored transposed.
template <class T>
HWY_INLINE void pack_transposed(const T* b, std::size_t stride, std::size_t depth, std::size_t cols,
                                T* panel) {
  // Zeros beyond the columns, by whole registers: of the first of them the columns take their part.
  for (std::size_t j = cols / kRegister<T> * kRegister<T>; j < kPanel<T>; j += kRegister<T>) {
    for (std::size_t p = 0; p < depth; ++p) {
      hn::StoreU(hn::Zero(Tag<T>()), Tag<T>(), panel + p * kPanel<T> + j);
    }
  }
  const std::size_t whole_cols = cols / kTransposed<T> * kTransposed<T>;
  const std::size_t whole_depth = depth / 4 * 4;
  // A cache line of each row is used up before the next rows: rows may be a power of two apart, and
  // then few of their lines fit into the cache together.
  for (std::size_t line = 0; line < whole_depth; line += kLanes) {
    const std::size_t line_end = std::min(line + kLanes, whole_depth);
    for (std::size_t j = 0; j < whole_cols; j += kTransposed<T>) {
      for (std::size_t p = line; p < line_end; p += 4) {
        transpose_block(b + j * stride + p, stride, panel + p * kPanel<T> + j, kPanel<T>);
      }
    }
  }
  if (whole_depth == depth && whole_cols == cols) return;
  for (std::size_t p = 0; p < depth; ++p) {
    const std::size_t from = p < whole_depth ? whole_cols : 0;
    for (std::size_t j = from; j < cols; ++j) panel[p * kPanel<T> + j] = b[j * stride + p];
  }
}

template <class T>
void pack_panels(MatrixView<const T> matrix, std::size_t begin, std::size_t end, T* packed) {
  pack_rows(matrix.row(begin), matrix.stride, end - begin, matrix.cols, matrix.rows * kPanel<T>,
            packed + begin * kPanel<T>);
}

// Several rows at a time, so that what a strip gets is whole cache lines: strips are pages apart,
// and lines that are written in pieces may leave the cache in between. A strip that is not whole
// has anything beyond its columns.
template <class T>
void pack_strips(MatrixView<const T> matrix, std::size_t begin, std::size_t end, T* packed) {
  constexpr std::size_t kRowsAtOnce = 8;
  const std::size_t strip_size = matrix.rows * kTileRows;
  for (std::size_t row = begin; row < end; row += kRowsAtOnce) {
    const std::size_t row_end = std::min(row + kRowsAtOnce, end);
    T* strip = packed;
    for (std::size_t j = 0; j < matrix.cols; j += kTileRows, strip += strip_size) {
      for (std::size_t i = row; i < row_end; ++i) {
        const T* from = matrix.row(i) + j;
        T* to = strip + i * kTileRows;
        if (j + kTileRows <= matrix.cols) {
          LOCKSTEP_UNROLL for (std::size_t r = 0; r < kTileRows; ++r) to[r] = from[r];
        } else {
          std::copy_n(from, matrix.cols - j, to);
        }
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::nn
HWY_AFTER_NAMESPACE();

#endif

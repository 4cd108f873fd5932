// Importer for IDX, the format of MNIST and Fashion-MNIST.
//
// A file is: two zero bytes, a type (0x08: uint8), the number of dimensions, each dimension as a
// big-endian 32-bit integer, then the values, slowest dimension first; plain or compressed by gzip.
// Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
#pragma once

#include <filesystem>

#include "datasets/writer.hpp"

namespace lockstep::datasets {

// Reads uint8 images (N x rows x columns; any rank from 2) and their N uint8 labels. The result is
// scaled to [0, 1] (scale 1/255), classes = highest label + 1, and source names both files. Throws
// DataError naming the file if a file is missing, damaged, of another type or rank, longer or
// shorter than its header says, or if the numbers of images and labels differ or are 0.
// Thread-safe. Local.
Contents read_idx(const std::filesystem::path& images, const std::filesystem::path& labels);

}  // namespace lockstep::datasets

// What a dataset file holds, for people.
#pragma once

#include <filesystem>
#include <string>

#include "datasets/dataset.hpp"

namespace lockstep::datasets {

// Several aligned lines: shapes, types, range and mean of the real inputs, samples per class or
// range and mean of the targets, scale, source and digest. Targets may be absent. Reads the whole
// file; throws DataError as Dataset::read(). Local.
std::string describe(const std::filesystem::path& path, const Names& names = {});

}  // namespace lockstep::datasets

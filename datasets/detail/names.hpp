// Which datasets of a file are inputs and targets. Internal to this folder.
#pragma once

#include "datasets/dataset.hpp"
#include "datasets/hdf5.hpp"

namespace lockstep::datasets {

// Absolute paths ("/x", "/y") of the inputs and targets in `file`: those of `names`, or, where a
// name is empty, the first recognised one that is there (dataset.hpp lists them). `y` is empty if
// there are no targets and none are required. Throws DataError that lists what the file holds.
Names find_names(const hdf5::File& file, const Names& names, bool targets_required);

}  // namespace lockstep::datasets

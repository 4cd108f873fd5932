// A checkpoint: everything that a run needs to go on as if it had never stopped.
//
// An HDF5 file, readable with h5py:
//   /parameters/<name>           float32; "0.weight" is outputs x inputs; statistics are among them
//   /optimizer/<moment>/<name>   float32, in the shapes of the parameters that are trained
//   /best/<name>                 float32, absent without early stopping
//   /state/<key>                 the members of TrainingState, one dataset each
// and on the root the attributes format_version (1), program_version, build, instruction_set,
// data_digest, config (TOML) and checksum. Groups record the order of creation, which is the
// layout's. How many ranks or threads wrote it is no part of it.
//
// `checksum` is the SHA-256, in 64 hexadecimal digits, of this sequence, little-endian throughout:
//   text "lockstep checkpoint", format_version;
//   texts program_version, build, instruction_set, data_digest, config;
//   the state in the order of TrainingState: integers and `finished` as 8 bytes, float64 values as
//   their 8 bytes, lists as their length and elements;
//   the tensors of /parameters; the number of moments, and of each its name and tensors; the
//   tensors of /best.
// A text is its length in bytes (8 bytes) and its bytes. Tensors are their number (8 bytes), and of
// each its name as a text, its number of dimensions and its dimensions (8 bytes each), and its
// float32 values.
//
// After the last byte of HDF5 stands one line, "lockstep sha256 <64 digits>\n", with the SHA-256 of
// all bytes before it. It is checked before HDF5 reads any: damaged files can make HDF5 crash.
//
// Values only; owns everything. Local: rank 0 writes, and every rank may read. Reads and writes of
// several threads must not overlap (hdf5.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "trainer/training_state.hpp"

namespace lockstep::trainer {

// A checkpoint is unreadable, damaged or not what it should be (exit code 3). One line that names
// the file, what was found and what was expected.
class CheckpointError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct NamedTensor {
  std::string name;                // "0.weight"
  std::vector<std::size_t> shape;  // slowest dimension first
  std::vector<float> values;       // as many as the product of `shape`
};

struct Checkpoint {
  std::vector<NamedTensor> parameters;  // in the layout's order, as all lists of tensors here
  std::vector<std::pair<std::string, std::vector<NamedTensor>>> moments;  // (name, tensors)
  std::vector<NamedTensor> best;  // parameters of the best validation loss, or empty
  TrainingState state;
  std::string config;  // the resolved configuration as TOML
  std::string program_version;
  std::string build;
  std::string instruction_set;
  std::string data_digest;
};

// Makes `path` a checkpoint. At any moment, also after a crash, the old file or the new one is
// there (atomic_file.hpp). Throws std::system_error if it cannot be written.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

// Throws CheckpointError unless all of the file is there and as it was written.
Checkpoint read_checkpoint(const std::filesystem::path& path);

// Throws CheckpointError unless the last line of `path` is the digest of the bytes before it.
// Cheaper than to read the checkpoint.
void verify_checkpoint_file(const std::filesystem::path& path);

// Parameters to start from: the best or else the last ones of a checkpoint, or the datasets named
// "<layer>.<name>" ("0.weight", "0.bias") of any HDF5 file, in /parameters or on the root, of
// float32 or float64, which is rounded. Those are ordered by layer, weight first; counts named
// num_batches_tracked are left out.
std::vector<NamedTensor> read_parameters(const std::filesystem::path& path);

}  // namespace lockstep::trainer

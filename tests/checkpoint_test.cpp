#include "trainer/checkpoint.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <system_error>

#include "datasets/atomic_file.hpp"
#include "datasets/hdf5.hpp"
#include "datasets/sha256.hpp"
#include "trainer/checkpoint_diff.hpp"
#include "trainer/checkpoint_files.hpp"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using datasets::hdf5::File;

const float infinity = std::numeric_limits<float>::infinity();

NamedTensor tensor(const std::string& name, std::vector<std::size_t> shape, unsigned seed) {
  const std::size_t count =
      std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = std::generate_canonical<float, 24>(random) - 0.5F;
  return {name, std::move(shape), std::move(values)};
}

// Eleven layers: in layout order, "10.weight" comes last; by name it would come third.
std::vector<NamedTensor> tensors(unsigned seed) {
  std::vector<NamedTensor> all;
  for (const unsigned layer : {0U, 2U, 10U}) {
    all.push_back(tensor(std::to_string(layer) + ".weight", {3, 2 + layer}, seed + layer));
    all.push_back(tensor(std::to_string(layer) + ".bias", {3}, seed + layer + 1));
  }
  return all;
}

Checkpoint some_checkpoint(std::uint64_t step = 17) {
  Checkpoint c;
  c.parameters = tensors(1);
  c.moments = {{"second", tensors(100)}, {"first", tensors(200)}};
  c.best = tensors(300);
  c.state.epoch = 3;
  c.state.step = step;
  c.state.step_in_epoch = 5;
  c.state.epoch_loss_by_leaf = {0.1, 1e-300, -0.0, 3.0};
  c.state.epoch_correct_by_leaf = {1, 2, 3, 4};
  c.state.best_validation_loss = 0.1 + 0.2;
  c.state.best_epoch = 2;
  c.state.epochs_without_improvement = 1;
  c.state.seconds = 12.5;
  c.config = "[data]\ntrain = \"h\xc3\xa4user.h5\"\n[model]\nlayers = [{ dense = 3 }]\n";
  c.program_version = "0.1.0";
  c.build = "g++ 12, Release";
  c.instruction_set = "AVX2";
  c.data_digest = std::string(64, 'a');
  return c;
}

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "lockstep-checkpoint-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    file_ = root_ / "a.h5";
  }
  void TearDown() override { fs::remove_all(root_); }

  // The message of a failed read, after the file's name; a test failure if it is not one line.
  static std::string error_of(const fs::path& path) {
    try {
      read_checkpoint(path);
    } catch (const CheckpointError& error) {
      const std::string what = error.what();
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
      EXPECT_EQ(what.find(path.string() + ": "), 0U) << what;
      return what.substr(std::min(what.size(), path.string().size() + 2));
    }
    return "accepted";
  }

  static std::string bytes_of(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }

  static void write_bytes(const fs::path& path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // `content` closed by its digest, as a checkpoint is: what stands in it is then up to HDF5.
  static void write_closed(const fs::path& path, std::string_view content) {
    datasets::Sha256 hash;
    hash.update(std::as_bytes(std::span(content)));
    write_bytes(path, std::string(content) + "lockstep sha256 " + hash.hex_digest() + "\n");
  }

  static std::string image_of(const File& file) {
    const std::vector<std::byte> image = file.image();
    return {reinterpret_cast<const char*>(image.data()), image.size()};
  }

  static std::size_t files_in(const fs::path& path) {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }

  fs::path root_, file_;
};

void expect_same(const Checkpoint& a, const Checkpoint& b) {
  EXPECT_EQ(first_difference(a, b), std::nullopt);
  EXPECT_TRUE(compare(a, b).notes.empty());
  EXPECT_EQ(std::bit_cast<std::uint64_t>(a.state.seconds),
            std::bit_cast<std::uint64_t>(b.state.seconds));
  EXPECT_EQ(a.config, b.config);
}

TEST_F(CheckpointTest, ReadsBackWhatWasWritten) {
  const Checkpoint written = some_checkpoint();
  write_checkpoint(file_, written);
  const Checkpoint read = read_checkpoint(file_);
  expect_same(read, written);
  ASSERT_EQ(read.parameters.size(), 6U);
  EXPECT_EQ(read.parameters[4].name, "10.weight");
  EXPECT_EQ(read.parameters[4].shape, (std::vector<std::size_t>{3, 12}));
  EXPECT_EQ(read.moments[0].first, "second");
  EXPECT_EQ(files_in(root_), 1U);  // no temporary is left
}

TEST_F(CheckpointTest, KeepsEveryBit) {
  Checkpoint written = some_checkpoint();
  std::mt19937_64 random(3);
  NamedTensor& odd = written.parameters[0];
  odd.shape = {5000};
  odd.values.resize(5000);
  for (float& value : odd.values) {
    value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));  // NaNs with payloads too
  }
  written.state.epoch_loss_by_leaf.resize(500);
  for (double& value : written.state.epoch_loss_by_leaf) {
    value = std::bit_cast<double>(random());
  }
  written.state.best_validation_loss = std::numeric_limits<double>::infinity();
  written.state.step = ~std::uint64_t{0};
  written.state.finished = true;
  write_checkpoint(file_, written);
  expect_same(read_checkpoint(file_), written);
}

TEST_F(CheckpointTest, PartsMayBeEmpty) {
  write_checkpoint(file_, Checkpoint{});
  expect_same(read_checkpoint(file_), Checkpoint{});
  Checkpoint written = some_checkpoint();
  written.best.clear();
  written.moments = {{"velocity", {}}};
  written.state.epoch_loss_by_leaf.clear();
  written.parameters.push_back({"11.weight", {0, 3}, {}});
  write_checkpoint(file_, written);
  const Checkpoint read = read_checkpoint(file_);
  expect_same(read, written);
  EXPECT_EQ(read.moments.size(), 1U);
  EXPECT_EQ(read.parameters.back().shape, (std::vector<std::size_t>{0, 3}));
}

TEST_F(CheckpointTest, ConfigurationsMayBeLong) {
  Checkpoint written = some_checkpoint();
  written.config = "# " + std::string(300000, 'x') + "\n";  // more than a small HDF5 attribute
  write_checkpoint(file_, written);
  EXPECT_EQ(read_checkpoint(file_).config, written.config);
}

TEST_F(CheckpointTest, SameContentMakesSameBytes) {
  write_checkpoint(file_, some_checkpoint());
  write_checkpoint(root_ / "b.h5", some_checkpoint());
  EXPECT_EQ(bytes_of(file_), bytes_of(root_ / "b.h5"));
}

TEST_F(CheckpointTest, IsAPlainHdf5File) {
  write_checkpoint(file_, some_checkpoint());
  const File file = File::open(file_);
  EXPECT_EQ(file.read_attribute<std::uint64_t>("/", "format_version"), 1U);
  EXPECT_EQ(file.read_text_attribute("/", "checksum").size(), 64U);
  EXPECT_EQ(file.info("parameters/0.weight").shape, (std::vector<std::size_t>{3, 2}));
  EXPECT_EQ(file.info("optimizer/first/10.bias").type_name(), "float32");
  EXPECT_EQ(file.read_scalar<std::uint64_t>("state/step"), 17U);
  EXPECT_EQ(file.read_scalar<double>("state/best_validation_loss"), 0.1 + 0.2);
}

// At every length a file may have been cut to.
TEST_F(CheckpointTest, TruncatedFilesAreErrors) {
  write_checkpoint(file_, some_checkpoint());
  const std::string whole = bytes_of(file_);
  const std::size_t stride = whole.size() / 60;
  for (std::size_t size = 0; size < whole.size(); size += size + 100 < whole.size() ? stride : 1) {
    write_bytes(file_, std::string_view(whole).substr(0, size));
    const std::string message = error_of(file_);
    EXPECT_TRUE(message.find("is not an HDF5 file") == 0 || message.find("is truncated") == 0)
        << size << ": " << message;
  }
  write_bytes(file_, whole + "x");
  EXPECT_NE(error_of(file_), "accepted");
  // The digest's line alone was lost, or put behind less.
  write_closed(file_, std::string_view(whole).substr(0, whole.size() / 2));
  EXPECT_NE(error_of(file_).find("truncated"), std::string::npos) << error_of(file_);
  write_closed(file_, "");
  EXPECT_NE(error_of(file_).find("is not an HDF5 file"), std::string::npos) << error_of(file_);
}

TEST_F(CheckpointTest, FlippedBytesAreErrors) {
  write_checkpoint(file_, some_checkpoint());
  const std::string whole = bytes_of(file_);
  std::mt19937 random(5);
  for (std::size_t place = 0; place < whole.size(); place += 1 + random() % 37) {
    std::string bytes = whole;
    bytes[place] = static_cast<char>(bytes[place] ^ (1 << random() % 8));
    write_bytes(file_, bytes);
    const std::string message = error_of(file_);
    EXPECT_NE(message, "accepted") << place;
    if (place < whole.size() - 81) {
      EXPECT_EQ(message.find("is damaged: its bytes have the SHA-256 "), 0U) << message;
    }
  }
}

// The checksum of the content guards what the digest of the bytes does not: a file that another
// program changed and closed again. Changed values are found; bytes without meaning may differ.
TEST_F(CheckpointTest, ChangedContentIsNeverAccepted) {
  const Checkpoint written = some_checkpoint();
  write_checkpoint(file_, written);
  std::string content = bytes_of(file_);
  content.resize(content.size() - 81);
  const auto find = [&](const void* value, std::size_t size) {
    const std::size_t place = content.find(std::string(static_cast<const char*>(value), size));
    EXPECT_NE(place, std::string::npos);
    return place;
  };
  const std::size_t places[] = {find(written.parameters[3].values.data(), 12),
                                find(written.moments[1].second[0].values.data(), 8),
                                find(written.best[5].values.data(), 12),
                                find(&written.state.best_validation_loss, 8),
                                find(&written.state.seconds, 8),
                                find(written.state.epoch_loss_by_leaf.data(), 32),
                                find(written.config.data(), 20),
                                find(written.instruction_set.data(), 4)};
  for (const std::size_t place : places) {
    std::string changed = content;
    changed[place] = static_cast<char>(changed[place] ^ 1);
    write_closed(file_, changed);
    EXPECT_EQ(error_of(file_).find("its content has the checksum "), 0U) << error_of(file_);
  }
}

TEST_F(CheckpointTest, OtherFilesAreErrors) {
  EXPECT_EQ(error_of(root_ / "absent.h5"), "no such file");
  EXPECT_EQ(error_of(root_), "is not a regular file, expected a checkpoint");
  EXPECT_EQ(error_of("/dev/null"), "is not a regular file, expected a checkpoint");
  write_bytes(file_, "");
  EXPECT_EQ(error_of(file_), "is not an HDF5 file, expected a checkpoint");
  write_bytes(file_, std::string(1000, 'x'));
  EXPECT_EQ(error_of(file_), "is not an HDF5 file, expected a checkpoint");
  write_closed(file_, std::string(1000, 'x'));
  EXPECT_EQ(error_of(file_), "is not an HDF5 file (1081 bytes)");
  File dataset = File::create_image("dataset");
  dataset.write_scalar<float>("x", 1);
  write_bytes(file_, image_of(dataset));
  EXPECT_EQ(error_of(file_), "is truncated or no checkpoint: expected a digest as its last line");
  write_closed(file_, image_of(dataset));
  EXPECT_EQ(error_of(file_), "is not a checkpoint: expected an attribute format_version");
  dataset.write_attribute<std::uint64_t>("/", "format_version", 2);
  write_closed(file_, image_of(dataset));
  EXPECT_EQ(error_of(file_),
            "has format version 2, expected 1: another version of lockstep wrote it");
}

// Without each of its parts in turn.
TEST_F(CheckpointTest, MissingPartsAreNamed) {
  const std::vector<std::string> texts{"program_version", "build",  "instruction_set",
                                       "data_digest",     "config", "checksum"};
  const std::vector<std::string> scalars{"epoch",
                                         "step",
                                         "step_in_epoch",
                                         "best_epoch",
                                         "epochs_without_improvement",
                                         "best_validation_loss",
                                         "seconds",
                                         "train_loss",
                                         "gradient_norm"};
  const std::vector<std::string> lists{"epoch_loss_by_leaf", "epoch_correct_by_leaf"};
  std::vector<std::string> parts = texts;
  for (const auto& key : scalars) parts.push_back("state/" + key);
  for (const auto& key : lists) parts.push_back("state/" + key);
  parts.insert(parts.end(), {"state/finished", "parameters", "optimizer"});
  for (const std::string& missing : parts) {
    File file = File::create_image("x");
    file.write_attribute<std::uint64_t>("/", "format_version", 1);
    for (const auto& key : texts) {
      if (key != missing) file.write_text_attribute("/", key, "text");
    }
    for (const auto& key : scalars) {
      if ("state/" + key != missing) file.write_scalar<double>("state/" + key, 0);
    }
    const std::vector<double> none;
    const std::vector<std::size_t> shape{0};
    for (const auto& key : lists) {
      if ("state/" + key != missing) file.write<double>("state/" + key, none, shape);
    }
    if (missing != "state/finished") file.write_scalar<std::uint8_t>("state/finished", 0);
    for (const char* group : {"parameters", "optimizer"}) {
      if (group != missing) file.create_group(group);
    }
    write_closed(file_, image_of(file));
    const std::string message = error_of(file_);
    EXPECT_NE(message.find(missing), std::string::npos) << message;
    EXPECT_NE(message.find("no such"), std::string::npos) << message;
  }
}

// A full disk, a limit on files, a directory that went away: the last checkpoint is as it was, and
// no temporary is left.
TEST_F(CheckpointTest, FailedWritesLeaveTheLastOneAlone) {
  const Checkpoint first = some_checkpoint();
  write_checkpoint(file_, first);
  const std::string before = bytes_of(file_);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    Checkpoint second = first;
    second.state.step = 18;
    try {
      write_checkpoint(file_, second);
    } catch (const std::system_error& error) {
      _exit(std::string(error.what()).find("a.h5") != std::string::npos ? 7 : 8);
    }
    _exit(9);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(bytes_of(file_), before);
  EXPECT_EQ(files_in(root_), 1U);
  expect_same(read_checkpoint(file_), first);

  EXPECT_THROW(write_checkpoint(root_ / "absent" / "b.h5", first), std::system_error);
  Checkpoint wrong = first;
  wrong.parameters[0].values.pop_back();
  EXPECT_THROW(write_checkpoint(file_, wrong), std::runtime_error);
  wrong = first;
  wrong.parameters.push_back(wrong.parameters[0]);
  EXPECT_THROW(write_checkpoint(file_, wrong), std::runtime_error);
  EXPECT_EQ(bytes_of(file_), before);
}

// Killed at any moment while it replaces a checkpoint again and again.
TEST_F(CheckpointTest, KilledWritesLeaveAValidOne) {
  write_checkpoint(file_, some_checkpoint(0));
  std::mt19937 random(11);
  for (int i = 0; i < 12; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (std::uint64_t step = 1;; ++step) write_checkpoint(file_, some_checkpoint(step));
    }
    usleep(static_cast<useconds_t>(random() % 30000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const Checkpoint read = read_checkpoint(file_);
    expect_same(read, some_checkpoint(read.state.step));
  }
}

TEST_F(CheckpointTest, ParametersToStartFrom) {
  Checkpoint written = some_checkpoint();
  const auto same = [](const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
    Checkpoint left, right;
    left.parameters = a;
    right.parameters = b;
    return !first_difference(left, right);
  };
  write_checkpoint(file_, written);
  EXPECT_TRUE(same(read_parameters(file_), written.best));
  written.best.clear();
  write_checkpoint(file_, written);
  EXPECT_TRUE(same(read_parameters(file_), written.parameters));

  for (const std::string group : {"", "parameters/"}) {
    File file = File::create_image("x");
    for (auto t = written.parameters.rbegin(); t != written.parameters.rend(); ++t) {
      if (t->name == "2.weight") {
        const std::vector<double> wide(t->values.begin(), t->values.end());
        file.write<double>(group + t->name, wide, t->shape);
      } else {
        file.write<float>(group + t->name, t->values, t->shape);
      }
    }
    file.write_text(group + "about", "others are passed over");
    file.write_text(group + "3", "this too");
    file.write_scalar<std::int64_t>(group + "2.num_batches_tracked", 7);
    file.create_group(group + "4.group");
    write_bytes(file_, image_of(file));
    EXPECT_TRUE(same(read_parameters(file_), written.parameters)) << group;
  }
}

TEST_F(CheckpointTest, WrongParametersToStartFrom) {
  const auto message = [&](const fs::path& path) -> std::string {
    try {
      read_parameters(path);
    } catch (const CheckpointError& error) {
      EXPECT_EQ(std::string(error.what()).find(path.string() + ": "), 0U);
      return std::string(error.what()).substr(path.string().size() + 2);
    }
    return "accepted";
  };
  EXPECT_EQ(message(root_ / "absent.h5"), "no such file");
  write_bytes(file_, "text");
  EXPECT_EQ(message(file_), "is not an HDF5 file (4 bytes)");
  File file = File::create_image("x");
  file.write_scalar<float>("weight", 1);
  write_bytes(file_, image_of(file));
  EXPECT_EQ(message(file_), "/ holds no parameters, expected datasets such as 0.weight and 0.bias");
  file.write_scalar<std::int32_t>("0.weight", 1);
  write_bytes(file_, image_of(file));
  EXPECT_EQ(message(file_), "/0.weight: holds int32, expected float32 or float64");
  File other = File::create_image("x");
  const std::vector<float> values{1, infinity};
  const std::vector<std::size_t> shape{2};
  other.write<float>("parameters/0.bias", values, shape);
  write_bytes(file_, image_of(other));
  EXPECT_EQ(message(file_), "/parameters/0.bias: element 1 is inf, expected a finite number");

  write_checkpoint(file_, some_checkpoint());
  const std::string whole = bytes_of(file_);
  write_bytes(file_, std::string_view(whole).substr(0, whole.size() - 81));
  EXPECT_EQ(message(file_),
            "is a checkpoint that was truncated: expected a digest as its last line");
  write_bytes(file_, "x" + whole);
  EXPECT_EQ(message(file_).find("is damaged"), 0U);
}

class CheckpointFilesTest : public CheckpointTest {
 protected:
  void SetUp() override {
    CheckpointTest::SetUp();
    fs::create_directory(root_ / "checkpoints");
  }

  void write(std::uint64_t step) {
    write_checkpoint(checkpoint_path(root_, step), some_checkpoint(step));
  }
  void damage(std::uint64_t step) {
    const fs::path path = checkpoint_path(root_, step);
    fs::resize_file(path, fs::file_size(path) / 2);
  }
  // The steps there are, least first.
  std::vector<std::uint64_t> steps() const {
    std::vector<std::uint64_t> found;
    for (std::uint64_t step = 0; step < 100; ++step) {
      if (fs::exists(checkpoint_path(root_, step))) found.push_back(step);
    }
    return found;
  }
};

TEST_F(CheckpointFilesTest, NamesSortBySteps) {
  EXPECT_EQ(checkpoint_path("run", 17), "run/checkpoints/step-00000017.h5");
  EXPECT_EQ(checkpoint_path("run", 123456789012), "run/checkpoints/step-123456789012.h5");
}

TEST_F(CheckpointFilesTest, TheNewestValidOneWins) {
  EXPECT_FALSE(newest_valid_checkpoint(root_));
  EXPECT_FALSE(newest_valid_checkpoint(root_ / "absent"));
  for (const std::uint64_t step : {1U, 5U, 9U, 123U}) write(step);
  write_bytes(root_ / "checkpoints" / "step-999.h5", "not one of our names");
  write_bytes(root_ / "checkpoints" / "step-00000999.h5.tmp-host-1-0", "half-written");
  write_bytes(root_ / "checkpoints" / "notes.txt", "");
  auto found = newest_valid_checkpoint(root_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, checkpoint_path(root_, 123));
  EXPECT_EQ(found->checkpoint.state.step, 123U);
  EXPECT_TRUE(found->skipped.empty());

  damage(123);
  write_bytes(checkpoint_path(root_, 9), "");
  found = newest_valid_checkpoint(root_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, checkpoint_path(root_, 5));
  ASSERT_EQ(found->skipped.size(), 2U);
  EXPECT_EQ(found->skipped[0], checkpoint_path(root_, 123).string() +
                                   ": is truncated or no checkpoint: expected a digest as its "
                                   "last line");
  EXPECT_EQ(found->skipped[1].find(checkpoint_path(root_, 9).string()), 0U);

  damage(5);
  damage(1);
  std::vector<std::string> skipped;
  EXPECT_FALSE(newest_valid_checkpoint(root_, &skipped));
  EXPECT_EQ(skipped.size(), 4U);
}

TEST_F(CheckpointFilesTest, PruningKeepsTheNewest) {
  for (std::uint64_t step = 1; step <= 6; ++step) write(step);
  prune_checkpoints(root_, 10);
  EXPECT_EQ(steps().size(), 6U);
  prune_checkpoints(root_, 3);
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{4, 5, 6}));
  damage(6);
  damage(5);
  prune_checkpoints(root_, 2);  // both are damaged: the newest valid one stays
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{4, 5, 6}));
  write(7);
  prune_checkpoints(root_, 1);
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{7}));
  prune_checkpoints(root_ / "absent", 1);
}

TEST_F(CheckpointFilesTest, PruningRemovesTemporaries) {
  write(1);
  const auto path = root_ / "checkpoints";
  write_bytes(path / "step-00000002.h5.tmp-host-12-0", "x");
  write_bytes(root_ / "metrics.jsonl.tmp-host-12-1", "x");
  write_bytes(root_ / "metrics.jsonl", "x");
  write_bytes(path / "mine.tmp-1", "x");
  prune_checkpoints(root_, 1);
  EXPECT_EQ(files_in(path), 2U);
  EXPECT_TRUE(fs::exists(path / "mine.tmp-1"));
  EXPECT_TRUE(fs::exists(root_ / "metrics.jsonl"));
  EXPECT_FALSE(fs::exists(root_ / "metrics.jsonl.tmp-host-12-1"));
}

TEST(CheckpointDiff, NamesTheFirstElement) {
  const Checkpoint a = some_checkpoint();
  Checkpoint b = a;
  EXPECT_FALSE(first_difference(a, b));
  b.state.seconds = 99;  // a run may take another time
  EXPECT_FALSE(first_difference(a, b));

  b.parameters[2].values = a.parameters[2].values;
  b.parameters[2].values[5] = 0.125F;
  b.parameters[2].values[7] += 0.5F;
  b.best[0].values[0] = 1;
  b.state.step = 18;
  const CheckpointDifference difference = compare(a, b);
  ASSERT_TRUE(difference.first);
  // 2.weight is 3 x 4: element 5 is [1, 1].
  EXPECT_EQ(difference.first->find("parameters/2.weight[1, 1]: "), 0U) << *difference.first;
  EXPECT_NE(difference.first->find(" and 0.125 (0x3e000000)"), std::string::npos)
      << *difference.first;
  ASSERT_EQ(difference.details.size(), 3U);
  EXPECT_EQ(difference.details[0].find("parameters/2.weight: 2 of 12 elements differ, by 0."), 0U)
      << difference.details[0];
  EXPECT_EQ(difference.details[1].find("best/0.weight: 1 of 6"), 0U);
  EXPECT_EQ(difference.details[2], "state/step: 17 and 18");
  EXPECT_EQ(first_difference(a, b)->find(*difference.first + "\nparameters/2.weight: 2 of"), 0U);
}

TEST(CheckpointDiff, ComparesBits) {
  Checkpoint a = some_checkpoint(), b = a;
  float& left = a.parameters[0].values[0];
  float& right = b.parameters[0].values[0];
  left = right = std::bit_cast<float>(0x7fc00001U);
  EXPECT_FALSE(first_difference(a, b));  // the same NaN
  right = std::bit_cast<float>(0x7fc00002U);
  EXPECT_EQ(compare(a, b).first,
            "parameters/0.weight[0, 0]: nan (0x7fc00001) and nan (0x7fc00002)");
  EXPECT_EQ(compare(a, b).details[0],
            "parameters/0.weight: 1 of 6 elements differ, by inf at most");
  left = 0.0F;
  right = -0.0F;
  EXPECT_EQ(compare(a, b).first, "parameters/0.weight[0, 0]: 0 (0x00000000) and -0 (0x80000000)");
  left = right;
  b.state.epoch_loss_by_leaf[2] = 0.0;
  EXPECT_EQ(compare(a, b).first,
            "state/epoch_loss_by_leaf[2]: -0 (0x8000000000000000) and 0 (0x0000000000000000)");
}

TEST(CheckpointDiff, SeesOtherShapesAndNames) {
  const Checkpoint a = some_checkpoint();
  const auto first = [&](auto change) {
    Checkpoint b = a;
    change(b);
    return compare(a, b).first.value_or("same");
  };
  EXPECT_EQ(first([](Checkpoint& b) {
              b.parameters[0].shape = {2, 3};
            }),
            "parameters/0.weight: of shape 3 x 2 and 2 x 3");
  EXPECT_EQ(first([](Checkpoint& b) { b.parameters[0].name = "1.weight"; }),
            "parameters/0.weight and parameters/1.weight");
  EXPECT_EQ(first([](Checkpoint& b) { b.parameters.pop_back(); }),
            "parameters/10.bias: only in the first");
  EXPECT_EQ(first([](Checkpoint& b) { b.moments.pop_back(); }),
            "optimizer: moment first and (none)");
  EXPECT_EQ(first([](Checkpoint& b) { b.moments[0].first = "velocity"; }),
            "optimizer: moment second and velocity");
  EXPECT_EQ(first([](Checkpoint& b) {
              b.moments[1].second[1].values[2] = 9;
            }).find("optimizer/first/0.bias[2]: "),
            0U);
  EXPECT_EQ(first([](Checkpoint& b) { b.best.clear(); }), "best/0.weight: only in the first");
  EXPECT_EQ(first([](Checkpoint& b) { b.state.finished = true; }),
            "state/finished: false and true");
  EXPECT_EQ(first([](Checkpoint& b) { b.state.epoch_loss_by_leaf.pop_back(); }),
            "state/epoch_loss_by_leaf: 4 and 3 elements");
}

TEST(CheckpointDiff, NotesWhatMayExplainIt) {
  const Checkpoint a = some_checkpoint();
  Checkpoint b = a;
  b.instruction_set = "NEON";
  b.config += "[training]\nseed = 2\nleaves = 8\n";
  CheckpointDifference difference = compare(a, b);
  EXPECT_FALSE(difference.first);
  EXPECT_EQ(difference.notes, (std::vector<std::string>{"config: training.seed differs",
                                                        "instruction_set: AVX2 and NEON"}));
  b.config = "[other]";
  EXPECT_EQ(compare(a, b).notes[0], "config: the texts differ");
}

}  // namespace
}  // namespace lockstep::trainer

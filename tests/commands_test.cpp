// The commands beside train, through the program.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "datasets/atomic_file.hpp"
#include "datasets/dataset.hpp"
#include "datasets/hdf5.hpp"
#include "run_program.hpp"

namespace lockstep {
namespace {

class CommandsTest : public test::ProgramTest {
 protected:
  void prepare(const std::string& layers) {
    datasets::write_dataset(path("data.h5"), images(600));
    write("run.toml", "[data]\ntrain = \"" + path("data.h5") + "\"\ntest = \"" + path("data.h5") +
                          "\"\n[model]\nlayers = " + layers +
                          "\n[optimizer]\nname = \"adam\"\n[training]\nepochs = 2\n");
  }

  // Trains and returns the path of the last checkpoint.
  std::string train() {
    const auto ending = test::lockstep("train " + path("run.toml") + " --out " + path("run"));
    EXPECT_EQ(ending.exit_code, 0) << ending.output;
    return path("run/checkpoints/step-00000010.h5");
  }
};

constexpr const char* kLayers =
    "[{ dense = 16, activation = \"sigmoid\" }, { dense = 16, activation = \"sigmoid\" }, "
    "{ dense = 10 }]";

TEST_F(CommandsTest, InspectCountsTheParametersOfTheNotesNetwork) {
  prepare(kLayers);
  const std::string checkpoint = train();
  for (const std::string& file : {path("run.toml"), checkpoint}) {
    const auto ending = test::lockstep("inspect " + file);
    EXPECT_EQ(ending.exit_code, 0) << ending.output;
    EXPECT_NE(ending.output.find("parameters  13,002"), std::string::npos) << ending.output;
    EXPECT_NE(ending.output.find("0.weight"), std::string::npos) << ending.output;
  }
}

TEST_F(CommandsTest, AScheduleIsSaidAndAnotherLengthOnResumeIsWarnedOf) {
  prepare(kLayers);
  const std::string command = "train " + path("run.toml") + " --out " + path("run") +
                              " --set optimizer.schedule=linear --set optimizer.warmup_steps=3" +
                              " --set optimizer.end_factor=0.5";
  const auto first = test::lockstep(command);
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_NE(first.output.find("train   the learning rate rises in the first 3 updates, then falls "
                              "along a line to 0.005 after update 10\n"),
            std::string::npos)
      << first.output;
  EXPECT_EQ(first.output.find("warning"), std::string::npos) << first.output;
  const auto longer = test::lockstep(command + " --resume --set training.epochs=3");
  ASSERT_EQ(longer.exit_code, 0) << longer.output;
  EXPECT_NE(longer.output.find("warning: the run's length changed: from here on the learning rate "
                               "falls as in a run of 15 updates"),
            std::string::npos)
      << longer.output;
  const auto same = test::lockstep(command + " --resume --set training.epochs=3");
  EXPECT_EQ(same.output.find("warning"), std::string::npos) << same.output;
}

TEST_F(CommandsTest, PredictionsAreThoseThatEvaluateCounts) {
  prepare(kLayers);
  const std::string checkpoint = train();
  for (const int ranks : {0, 3}) {
    const auto predicted = test::lockstep("predict " + checkpoint + " " + path("data.h5") + " -o " +
                                              path("out" + std::to_string(ranks) + ".h5"),
                                          ranks);
    ASSERT_EQ(predicted.exit_code, 0) << predicted.output;
  }
  EXPECT_EQ(read("out0.h5"), read("out3.h5"));

  const auto out = datasets::hdf5::File::open(path("out0.h5"));
  const auto classes = out.read<std::int32_t>("class");
  const auto outputs = out.read<float>("outputs");
  ASSERT_EQ(classes.size(), 600u);
  ASSERT_EQ(outputs.size(), 6000u);
  const auto data = datasets::Dataset::read(path("data.h5"));
  double correct = 0;
  for (std::size_t i = 0; i < 600; ++i) {
    const std::span<const float> row(&outputs[i * 10], 10);
    EXPECT_EQ(std::ranges::max_element(row) - row.begin(), classes[i]);
    correct += classes[i] == data.label(i) ? 1 : 0;
  }
  const auto summary = nlohmann::json::parse(read("run/summary.json"));
  EXPECT_EQ(summary["test_accuracy"].get<double>(), correct / 600);
  for (const int ranks : {0, 2}) {
    const auto evaluated = test::lockstep("evaluate " + checkpoint + " " + path("data.h5"), ranks);
    EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
    char accuracy[32];
    std::snprintf(accuracy, sizeof accuracy, "accuracy  %.2f %%", 100 * correct / 600);
    EXPECT_NE(evaluated.output.find(accuracy), std::string::npos) << evaluated.output;
  }
}

TEST_F(CommandsTest, ImportedIdxIsADatasetThatInfoDescribes) {
  // Three images of 2 x 2 pixels, and their labels.
  const std::string images(
      "\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x02"
      "\x00\x33\x66\x99\x01\x02\x03\x04\xff\xff\xff\xff",
      28);
  const std::string labels("\0\0\x08\x01\0\0\0\x03\x02\x00\x01", 11);
  write("images", images);
  write("labels", labels);
  const auto imported = test::lockstep("dataset import idx " + path("images") + " " +
                                       path("labels") + " -o " + path("small.h5"));
  ASSERT_EQ(imported.exit_code, 0) << imported.output;
  const auto data = datasets::Dataset::read(path("small.h5"));
  std::vector<float> pixels(4);
  data.copy_sample(0, pixels.data());
  EXPECT_EQ(pixels, (std::vector<float>{0.0f, 0.2f, 0.4f, 0.6f}));
  EXPECT_EQ(data.label(0), 2);
  const auto info = test::lockstep("dataset info " + path("small.h5"));
  EXPECT_EQ(info.exit_code, 0) << info.output;
  EXPECT_NE(info.output.find("3 classes"), std::string::npos) << info.output;

  write("labels", labels.substr(0, 10));
  const auto truncated = test::lockstep("dataset import idx " + path("images") + " " +
                                        path("labels") + " -o " + path("other.h5"));
  EXPECT_EQ(truncated.exit_code, 3) << truncated.output;
  EXPECT_FALSE(std::filesystem::exists(path("other.h5")));
}

TEST_F(CommandsTest, AnEmptyDatasetIsAnError) {
  prepare(kLayers);
  auto file = datasets::hdf5::File::create_image("empty");
  const std::vector<std::size_t> x_shape = {0, 784};
  const std::vector<std::size_t> y_shape = {0};
  file.write<float>("x", {}, x_shape);
  file.write<std::int32_t>("y", {}, y_shape);
  datasets::write_file_atomically(path("empty.h5"), file.image());
  const auto ending = test::lockstep("train " + path("run.toml") + " --out " + path("run") +
                                         " --set data.train=" + path("empty.h5"),
                                     2);
  EXPECT_EQ(ending.exit_code, 3) << ending.output;
  EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
  EXPECT_FALSE(std::filesystem::exists(path("run")));
}

TEST_F(CommandsTest, TheDoctorMeasuresAndWritesJson) {
  for (const int ranks : {0, 2}) {
    const auto ending = test::lockstep("doctor --json " + path("found.json"), ranks);
    ASSERT_EQ(ending.exit_code, 0) << ending.output;
    EXPECT_NE(ending.output.find("advice"), std::string::npos) << ending.output;
    EXPECT_EQ(ending.output.find("\x1b["), std::string::npos) << "no bar without a terminal";
    const auto found = nlohmann::json::parse(read("found.json"));
    ASSERT_EQ(found["ranks"].size(), std::max<std::size_t>(1, static_cast<std::size_t>(ranks)));
    for (const auto& rank : found["ranks"]) {
      EXPECT_GE(rank["threads"].get<int>(), 1);
      EXPECT_GE(rank["processors"].size(), 1u);
      EXPECT_GT(rank["gemm_flops"].get<double>(), 0.0);
      EXPECT_GT(rank["memory_bytes_per_second"].get<double>(), 0.0);
    }
    ASSERT_EQ(found["pairs"].size(), ranks == 2 ? 1u : 0u);
    for (const auto& pair : found["pairs"]) {
      EXPECT_TRUE(pair["same_host"].get<bool>());
      EXPECT_GT(pair["latency_seconds"].get<double>(), 0.0);
      EXPECT_GT(pair["bytes_per_second"].get<double>(), 0.0);
    }
    ASSERT_EQ(found["alone"].size(), 1u);
    EXPECT_GT(found["alone"][0]["gemm_flops"].get<double>(), 0.0);
    EXPECT_GT(found["alone"][0]["memory_bytes_per_second"].get<double>(), 0.0);
  }
}

// mpirun -np 1 binds a rank to one core; eight threads have too little room there.
TEST_F(CommandsTest, TrainingWarnsOnceOfASqueezedThreadPool) {
  prepare(kLayers);
  const std::string train = "train " + path("run.toml") + " --set training.threads=8 --out ";
  const auto ending = test::run(std::string(MPIEXEC) + " --bind-to core -np 1 " + LOCKSTEP_PROGRAM +
                                " " + train + path("run"));
  ASSERT_EQ(ending.exit_code, 0) << ending.output;
  const std::size_t at = ending.output.find("warning: a thread pool of 8 is squeezed onto");
  ASSERT_NE(at, std::string::npos) << ending.output;
  EXPECT_EQ(ending.output.find("warning:", at + 1), std::string::npos) << ending.output;
  EXPECT_NE(ending.output.find("lockstep doctor"), std::string::npos) << ending.output;
}

TEST_F(CommandsTest, HelpIsGivenForEveryCommand) {
  for (const char* command : {"", "train", "evaluate", "predict", "doctor", "inspect", "diff",
                              "dataset", "dataset import idx", "dataset info"}) {
    const auto ending = test::lockstep(std::string(command) + " --help");
    EXPECT_EQ(ending.exit_code, 0) << command;
    EXPECT_NE(ending.output.find("Usage: lockstep"), std::string::npos) << ending.output;
  }
}

}  // namespace
}  // namespace lockstep

// Every kind of bad input: one clear line from one rank, the right exit code, soon, and nothing
// left half-written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "datasets/writer.hpp"
#include "run_program.hpp"

namespace lockstep {
namespace {

class BadInputTest : public test::ProgramTest {
 protected:
  BadInputTest() {
    datasets::write_dataset(path("train.h5"), images(64));
    configure("train.h5");
  }

  void configure(
      const std::string& train, const std::string& more = "",
      const std::string& layers = "[{ dense = 8, activation = \"relu\" }, { dense = 10 }]") {
    write("run.toml",
          "[data]\ntrain = \"" + path(train) + "\"\n[model]\nlayers = " + layers + "\n" + more);
  }

  // Trains on two ranks and expects it to fail with `code` and one line that holds all of `parts`.
  void expect_failure(int code, const std::vector<std::string>& parts,
                      const std::string& arguments = "", int ranks = 2) {
    const auto ending = test::lockstep(
        "train " + path("run.toml") + " --out " + path("out") + " " + arguments, ranks);
    EXPECT_EQ(ending.exit_code, code) << ending.output;
    EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
    EXPECT_LT(ending.seconds, 5.0) << ending.output;
    for (const std::string& part : parts) {
      EXPECT_NE(ending.output.find(part), std::string::npos) << "no '" << part << "' in\n"
                                                             << ending.output;
    }
    if (may_leave_out_) return;
    EXPECT_FALSE(std::filesystem::exists(path("out"))) << "a run directory was left behind";
  }

  bool may_leave_out_ = false;
};

TEST_F(BadInputTest, MissingFile) {
  configure("absent.h5");
  expect_failure(3, {"absent.h5"});
}

TEST_F(BadInputTest, NotHdf5) {
  write("text.h5", "this is not HDF5\n");
  configure("text.h5");
  expect_failure(3, {"text.h5", "HDF5"});
}

TEST_F(BadInputTest, TruncatedDataset) {
  const std::string whole = read("train.h5");
  write("half.h5", whole.substr(0, whole.size() / 2));
  configure("half.h5");
  expect_failure(3, {"half.h5"});
}

TEST_F(BadInputTest, WrongShape) {
  auto small = images(64);
  small.x_shape = {64, 14, 14};
  std::get<std::vector<std::uint8_t>>(small.x).resize(64 * 196);
  datasets::write_dataset(path("small.h5"), small);
  expect_failure(2, {"small.h5", "196", "784"}, "--set data.test=" + path("small.h5"));
}

TEST_F(BadInputTest, ValidationFileThatDoesNotFit) {
  auto small = images(64);
  small.x_shape = {64, 14, 14};
  std::get<std::vector<std::uint8_t>>(small.x).resize(64 * 196);
  datasets::write_dataset(path("small.h5"), small);
  expect_failure(2, {"data.validation", "small.h5", "196", "784"},
                 "--set data.validation=" + path("small.h5"));
  expect_failure(3, {"absent.h5"}, "--set data.validation=" + path("absent.h5"));
  expect_failure(
      2, {"data.validation", "data.validation_fraction = 0.5"},
      "--set data.validation=" + path("train.h5") + " --set data.validation_fraction=0.5");
}

TEST_F(BadInputTest, TargetAccuracyWithoutAccuracy) {
  expect_failure(2, {"early_stopping.target_accuracy", "without a validation set"},
                 "--set early_stopping.target_accuracy=0.9");
  datasets::Contents real;
  real.x_shape = {20, 3};
  real.x = std::vector<float>(60, 0.5f);
  real.targets.assign(20, 1.0f);
  real.target_width = 1;
  datasets::write_dataset(path("real.h5"), real);
  configure("real.h5", "loss = \"mean_squared_error\"\n", "[{ dense = 1 }]");
  expect_failure(2, {"early_stopping.target_accuracy", "0.9", "real.h5", "no accuracy"},
                 "--set early_stopping.target_accuracy=0.9 --set data.validation_fraction=0.5");
}

TEST_F(BadInputTest, RanksWithOtherValidationFiles) {
  datasets::write_dataset(path("0.h5"), images(64));
  datasets::write_dataset(path("1.h5"), images(65));
  // One path, another file for each rank, as on nodes with copies of their own.
  write("rank.sh", "mkdir -p " + path("$OMPI_COMM_WORLD_RANK") + " && cd " +
                       path("$OMPI_COMM_WORLD_RANK") + " && cp " +
                       path("$OMPI_COMM_WORLD_RANK.h5") + " validation.h5 && exec " +
                       LOCKSTEP_PROGRAM + " train " + path("run.toml") + " --out " + path("out") +
                       " --set data.validation=validation.h5\n");
  const auto ending = test::run(std::string(MPIEXEC) + " --oversubscribe --bind-to none -np 2 sh " +
                                path("rank.sh"));
  EXPECT_EQ(ending.exit_code, 2) << ending.output;
  EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
  EXPECT_NE(ending.output.find("the validation data's content is"), std::string::npos)
      << ending.output;
}

TEST_F(BadInputTest, MoreClassesThanOutputs) {
  configure("train.h5", "", "[{ dense = 7 }]");
  expect_failure(2, {"10 classes", "7 outputs"});
}

TEST_F(BadInputTest, LabelsOutOfRange) {
  auto wrong = images(64);
  wrong.labels[17] = 12;
  datasets::write_dataset(path("wrong.h5"), wrong);
  configure("wrong.h5");
  expect_failure(3, {"wrong.h5", "17", "12", "10"});
}

TEST_F(BadInputTest, NotANumber) {
  datasets::Contents contents;
  contents.x_shape = {20, 3};
  std::vector<float> x(60, 0.5f);
  x[25] = std::numeric_limits<float>::quiet_NaN();
  contents.x = x;
  contents.labels.assign(20, 1);
  contents.classes = 2;
  datasets::write_dataset(path("nan.h5"), contents);
  configure("nan.h5");
  expect_failure(3, {"nan.h5", "8"});  // the row
}

TEST_F(BadInputTest, MoreRanksThanLeaves) {
  expect_failure(2, {"3 ranks", "training.leaves = 2", "training.leaves = 4"},
                 "--set training.leaves=2", 3);
}

TEST_F(BadInputTest, MistypedKeyNamesTheNearest) {
  configure("train.h5", "[training]\nbatchsize = 5\n");
  expect_failure(2, {"batchsize", "batch_size"});
  configure("train.h5");
  expect_failure(2, {"optimizer.learning_rte", "learning_rate"},
                 "--set optimizer.learning_rte=0.1");
}

TEST_F(BadInputTest, ValueOutOfRange) {
  expect_failure(2, {"learning_rate"}, "--set optimizer.learning_rate=-1");
  expect_failure(2, {"leaves"}, "--set training.leaves=6");
}

TEST_F(BadInputTest, UnknownOption) {
  const auto ending = test::lockstep("train " + path("run.toml") + " --colour blue", 2);
  EXPECT_EQ(ending.exit_code, 2) << ending.output;
  EXPECT_NE(ending.output.find("--colour"), std::string::npos) << ending.output;
  EXPECT_EQ(ending.output.find("--colour"), ending.output.rfind("--colour")) << "said twice";
}

TEST_F(BadInputTest, UnknownCommandNamesTheNearest) {
  const auto ending = test::lockstep("trian " + path("run.toml"), 2);
  EXPECT_EQ(ending.exit_code, 2) << ending.output;
  EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
  EXPECT_NE(ending.output.find("did you mean train?"), std::string::npos) << ending.output;
}

TEST_F(BadInputTest, RanksThatDoNotAgree) {
  // OpenMPI tells each process its rank; here each makes another seed of it.
  write("rank.sh", std::string("exec ") + LOCKSTEP_PROGRAM + " train " + path("run.toml") +
                       " --out " + path("out") + " --set training.seed=$OMPI_COMM_WORLD_RANK\n");
  const auto ending = test::run(std::string(MPIEXEC) + " --oversubscribe --bind-to none -np 3 sh " +
                                path("rank.sh"));
  EXPECT_EQ(ending.exit_code, 2) << ending.output;
  EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
  EXPECT_NE(ending.output.find("'seed = 0' and 'seed = 1'"), std::string::npos) << ending.output;
}

TEST_F(BadInputTest, MissingConfiguration) {
  std::filesystem::remove(path("run.toml"));
  expect_failure(2, {"run.toml"});
}

TEST_F(BadInputTest, UnknownInstructionSet) {
  setenv("LOCKSTEP_INSTRUCTION_SET", "MMX", 1);
  expect_failure(2, {"LOCKSTEP_INSTRUCTION_SET", "MMX", "there is "});
  unsetenv("LOCKSTEP_INSTRUCTION_SET");
}

TEST_F(BadInputTest, DivergenceIsToldAndSavesNothing) {
  may_leave_out_ = true;
  expect_failure(5, {"diverged", "learning_rate"},
                 "--set optimizer.learning_rate=1e38 --set checkpoint.every_epochs=0");
  EXPECT_TRUE(std::filesystem::is_empty(path("out/checkpoints")));
}

TEST_F(BadInputTest, DivergenceInTheLastUpdateIsNoSuccess) {
  may_leave_out_ = true;
  expect_failure(5, {"diverged"},
                 "--set optimizer.learning_rate=3e38 --set training.steps=1 --set data.test=" +
                     path("train.h5"));
  EXPECT_FALSE(std::filesystem::exists(path("out/summary.json")));
}

TEST_F(BadInputTest, LearningRateThatFloatCannotHold) {
  expect_failure(2, {"learning_rate"}, "--set optimizer.learning_rate=1e60");
}

TEST_F(BadInputTest, SoftmaxBeforeTheEnd) {
  configure("train.h5", "", "[{ dense = 10, activation = \"softmax\" }, { dropout = 0.1 }]");
  expect_failure(2, {"softmax", "last layer"});
}

TEST_F(BadInputTest, AModelBeyondAnyMemory) {
  configure("train.h5", "", "[{ dense = 2147483647 }, { dense = 2147483647 }, { dense = 10 }]");
  expect_failure(2, {"model.layers", "1.weight"});
}

TEST_F(BadInputTest, AnEpochUnderWayCannotChange) {
  may_leave_out_ = true;
  ASSERT_EQ(test::lockstep("train " + path("run.toml") + " --out " + path("out") +
                           " --set training.batch_size=10 --set training.steps=3")
                .exit_code,
            0);
  expect_failure(3, {"middle of an epoch", "training.batch_size"},
                 "--resume --set training.batch_size=7");
}

TEST_F(BadInputTest, RunDirectoryOfAnotherRun) {
  may_leave_out_ = true;
  const std::string arguments =
      "train " + path("run.toml") + " --out " + path("taken") + " --set training.epochs=1";
  ASSERT_EQ(test::lockstep(arguments).exit_code, 0);
  const std::string before = read("taken/summary.json");
  const auto again = test::lockstep(arguments, 2);
  EXPECT_EQ(again.exit_code, 2) << again.output;
  EXPECT_EQ(again.messages.size(), 1u) << again.output;
  EXPECT_NE(again.output.find("--resume"), std::string::npos) << again.output;
  EXPECT_EQ(read("taken/summary.json"), before);
}

TEST_F(BadInputTest, RunDirectoryThatAnotherRunHolds) {
  const auto held = test::run("flock " + path("held.lock") + " true");
  ASSERT_EQ(held.exit_code, 0) << "flock (util-linux) is needed: " << held.output;
  std::filesystem::create_directories(path("out"));
  const auto ending = test::run("flock " + path("out/.lock") + " " + LOCKSTEP_PROGRAM + " train " +
                                path("run.toml") + " --out " + path("out"));
  EXPECT_EQ(ending.exit_code, 2) << ending.output;
  EXPECT_EQ(ending.messages.size(), 1u) << ending.output;
  EXPECT_NE(ending.output.find("held by another run"), std::string::npos) << ending.output;
}

TEST_F(BadInputTest, CheckpointThatDoesNotFit) {
  may_leave_out_ = true;
  ASSERT_EQ(test::lockstep("train " + path("run.toml") + " --out " + path("out") +
                           " --set training.epochs=1")
                .exit_code,
            0);
  configure("train.h5", "", "[{ dense = 9, activation = \"relu\" }, { dense = 10 }]");
  expect_failure(3, {"0.weight", "8x784", "9x784"}, "--resume");
}

TEST_F(BadInputTest, TruncatedCheckpointIsPassedOver) {
  const std::string arguments =
      "train " + path("run.toml") + " --out " + path("out") + " --set training.epochs=";
  ASSERT_EQ(test::lockstep(arguments + "3").exit_code, 0);
  const std::string newest = "out/checkpoints/step-00000003.h5";
  const std::string whole = read(newest);
  write(newest, whole.substr(0, whole.size() - 1000));
  const auto ending = test::lockstep(arguments + "4 --resume", 2);
  EXPECT_EQ(ending.exit_code, 0) << ending.output;
  EXPECT_NE(read("out/log.txt").find("step-00000003.h5"), std::string::npos) << ending.output;
  EXPECT_NE(ending.output.find("step-00000002.h5"), std::string::npos) << ending.output;

  // With all of them gone there is nothing to go on from.
  for (const auto& entry : std::filesystem::directory_iterator(path("out/checkpoints"))) {
    std::ofstream(entry.path(), std::ios::trunc) << "gone";
  }
  const auto none = test::lockstep(arguments + "5 --resume", 2);
  EXPECT_EQ(none.exit_code, 3) << none.output;
  EXPECT_EQ(none.messages.size(), 1u) << none.output;
}

}  // namespace
}  // namespace lockstep

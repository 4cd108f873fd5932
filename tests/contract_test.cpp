// The lockstep contract, through the program: the same bits for any number of ranks and threads,
// with every instruction set, and however the run was cut.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "contract.hpp"

namespace lockstep {
namespace {

using test::ContractTest;
using test::InstructionSetTest;
using test::kMinibatch;

TEST_F(ContractTest, MinibatchIsTheSameForAllRanksAndThreads) {
  prepare(kMinibatch);
  expect_same_for_all_ranks_and_threads();
  EXPECT_GT(summary("1x1")["test_accuracy"], 0.5) << "it did not learn, so the bits prove little";
}

TEST_F(ContractTest, StochasticDescentIsTheSameForAllRanksAndThreads) {
  prepare("[optimizer]\nname = \"momentum\"\n[training]\ndescent = \"stochastic\"\nsteps = 40\n");
  expect_same_for_all_ranks_and_threads();
}

// Wide enough that one sample goes without the zeros behind relu, forward and in plain SGD: so it
// is for each of two ranks, and not for one rank with both samples.
const std::string kWideRelu =
    "[{ dense = 150, activation = \"relu\" }, { dense = 150, activation = \"relu\", bias = false "
    "}, "
    "{ dense = 10 }]";

TEST_F(ContractTest, TwoSamplesAtATimeAreTheSameForAllRanksAndThreads) {
  prepare("[optimizer]\nname = \"sgd\"\n[training]\nbatch_size = 2\nsteps = 40\n", kWideRelu);
  expect_same_for_all_ranks_and_threads();
}

TEST_F(ContractTest, WholeBatchIsTheSameForAllRanksAndThreads) {
  prepare("[training]\ndescent = \"batch\"\nepochs = 3\nleaves = 16\n");
  expect_same_for_all_ranks_and_threads();
}

// Rounded messages change the gradient by less than a hundredth, in the first step as in the last.
TEST_F(ContractTest, RoundedMessagesStayCloseToTheTruth) {
  prepare(
      "[optimizer]\nlearning_rate = 0.01\n[training]\nbatch_size = 100\nepochs = 3\n",
      "[{ dense = 97, activation = \"tanh\" }, { dense = 97, activation = \"tanh\" }, { dense = 10 "
      "}]");
  const std::string apart = "--set comm.shared_memory=false ";
  ASSERT_EQ(train("exact", 2, 1, apart).exit_code, 0);
  const auto ending = train("rounded", 2, 1, apart + "--set comm.wire=bfloat16");
  ASSERT_EQ(ending.exit_code, 0) << ending.output;
  EXPECT_NE(result("rounded"), result("exact"));
  const auto exact = metrics("exact");
  const auto rounded = metrics("rounded");
  ASSERT_EQ(rounded.size(), 3U);
  for (std::size_t epoch = 0; epoch < exact.size(); ++epoch) {
    const double norm = exact[epoch]["gradient_norm"];
    EXPECT_NEAR(rounded[epoch]["gradient_norm"].get<double>(), norm, 0.01 * norm) << epoch;
  }
}

// Also where gradients are told of in pieces, and go in many buckets.
TEST_F(ContractTest, HowRanksExchangeChangesNothing) {
  prepare(
      "[optimizer]\nname = \"adam\"\n[training]\nbatch_size = 500\nsteps = 6\n",
      "[{ dense = 1600, activation = \"relu\" }, { dense = 900, activation = \"relu\" }, { dense "
      "= 10 }]");
  ASSERT_EQ(train("alone", 1, 1).exit_code, 0);
  const std::string small = "--set comm.bucket_mib=0.25 --set comm.first_bucket_mib=0.01 ";
  for (const int ranks : {2, 3}) {
    for (const std::string& how :
         {std::string(), small, small + "--set comm.shared_memory=false",
          small + "--set comm.overlap=false", std::string("--set comm.shared_memory=false")}) {
      const auto ending = train("with_others", ranks, 1, how);
      ASSERT_EQ(ending.exit_code, 0) << ending.output;
      EXPECT_EQ(result("with_others"), result("alone")) << ranks << " ranks " << how;
      EXPECT_EQ(metrics("with_others"), metrics("alone")) << ranks << " ranks " << how;
      std::filesystem::remove_all(path("with_others"));
    }
  }
}

// The last batch of an epoch is three samples: five ranks of eight have none, and each leaf of it,
// by itself, is its own mean.
std::string normalised(const std::string& scope) {
  const std::string norm = "batch_norm = true, scope = \"" + scope + "\"";
  return "[{ dense = 49, bias = false }, { " + norm +
         " }, { activation = \"relu\" }, { dense = 32, bias = false }, { " + norm +
         ", affine = false, momentum = 0.3 }, { activation = \"tanh\" }, { dense = 10 }]";
}

TEST_F(ContractTest, BatchNormIsTheSameForAllRanksAndThreads) {
  prepare(kMinibatch, normalised("batch"));
  expect_same_for_all_ranks_and_threads();
  EXPECT_GT(summary("1x1")["test_accuracy"], 0.5) << "it did not learn, so the bits prove little";
}

TEST_F(ContractTest, BatchNormOfLeavesIsTheSameForAllRanksAndThreads) {
  prepare(kMinibatch, normalised("leaf"));
  expect_same_for_all_ranks_and_threads();
  EXPECT_GT(summary("1x1")["test_accuracy"], 0.5) << "it did not learn, so the bits prove little";
}

// Its sums go between the buckets of gradients that are under way.
TEST_F(ContractTest, HowRanksExchangeChangesNothingForBatchNorm) {
  const std::string small = "--set comm.bucket_mib=0.01 --set comm.first_bucket_mib=0.01 ";
  for (const std::string scope : {"batch", "leaf"}) {
    prepare(kMinibatch, normalised(scope));
    ASSERT_EQ(train("alone-" + scope, 1, 1).exit_code, 0);
    for (const int ranks : {2, 3, 8}) {
      for (const std::string& how :
           {small, small + "--set comm.shared_memory=false", small + "--set comm.overlap=false"}) {
        const auto ending = train("with_others", ranks, 1, how);
        ASSERT_EQ(ending.exit_code, 0) << ending.output;
        EXPECT_EQ(result("with_others"), result("alone-" + scope)) << ranks << " ranks " << how;
        EXPECT_EQ(metrics("with_others"), metrics("alone-" + scope)) << ranks << " ranks " << how;
        std::filesystem::remove_all(path("with_others"));
      }
    }
  }
}

// Every activation, and widths that fill the kernels' tiles and that do not.
constexpr const char* kEveryActivation =
    "[{ dense = 100, activation = \"tanh\" }, { dropout = 0.3 }, { dense = 49, activation = "
    "\"sigmoid\" }, { dense = 33, activation = \"leaky_relu\" }, { dense = 64, activation = "
    "\"relu\" }, { dense = 10 }]";

TEST_F(InstructionSetTest, MinibatchIsTheSameForAllInstructionSets) {
  prepare(kMinibatch, kEveryActivation);
  expect_same_for_all_instruction_sets();
}

TEST_F(InstructionSetTest, BatchNormIsTheSameForAllInstructionSets) {
  for (const std::string scope : {"batch", "leaf"}) {
    prepare(kMinibatch, normalised(scope));
    expect_same_for_all_instruction_sets();
    for (const std::string& name : names_) std::filesystem::remove_all(path(name));
    std::filesystem::remove_all(path("chosen"));
  }
}

TEST_F(InstructionSetTest, StochasticDescentIsTheSameForAllInstructionSets) {
  prepare("[optimizer]\nname = \"sgd\"\n[training]\ndescent = \"stochastic\"\nsteps = 40\n",
          kWideRelu);
  expect_same_for_all_instruction_sets();
}

TEST_F(InstructionSetTest, Bfloat16IsTheSameForAllInstructionSets) {
  prepare(std::string(kMinibatch) + "precision = \"bfloat16\"\n", kEveryActivation);
  expect_same_for_all_instruction_sets();
}

TEST_F(ContractTest, Bfloat16IsTheSameForRanksAndThreadsAndHasBitsOfItsOwn) {
  prepare(kMinibatch);
  const std::string rounded = "--set training.precision=bfloat16";
  ASSERT_EQ(train("float32", 1, 1).exit_code, 0);
  const auto ending = train("1x1", 1, 1, rounded);
  ASSERT_EQ(ending.exit_code, 0) << ending.output;
  EXPECT_NE(ending.output.find("bfloat16"), std::string::npos) << ending.output;
  ASSERT_EQ(train("1x2", 1, 2, rounded).exit_code, 0);
  ASSERT_EQ(train("3x2", 3, 2, rounded).exit_code, 0);
  EXPECT_NE(summary("1x1")["parameters_sha256"], summary("float32")["parameters_sha256"]);
  EXPECT_EQ(result("1x2"), result("1x1"));
  EXPECT_EQ(result("3x2"), result("1x1"));
}

TEST_F(InstructionSetTest, RanksOfOneRunMayUseDifferentInstructionSets) {
  prepare(kMinibatch, kEveryActivation);
  std::string sets;
  for (const std::string& name : names_) sets += " " + name;
  write("mixed.sh",
        "sets=(" + sets +
            ")\n"
            "export LOCKSTEP_INSTRUCTION_SET=${sets[OMPI_COMM_WORLD_RANK % ${#sets[@]}]}\n"
            "exec \"$@\"\n");
  for (const std::string precision : {"float32", "bfloat16"}) {
    const std::string alone = "alone-" + precision, mixed = "mixed-" + precision;
    const std::string set = "--set training.precision=" + precision;
    ASSERT_EQ(train(alone, 1, 1, set).exit_code, 0);
    const auto ending =
        test::run(std::string(MPIEXEC) + " --oversubscribe --bind-to none -np 3 bash " +
                  path("mixed.sh") + " " + LOCKSTEP_PROGRAM + " train " + path("run.toml") +
                  " --out " + path(mixed) + " " + set);
    ASSERT_EQ(ending.exit_code, 0) << ending.output;
    EXPECT_EQ(result(mixed), result(alone));
    EXPECT_EQ(metrics(mixed), metrics(alone));
  }
}

TEST_F(ContractTest, AnInterruptedRunIsTheSameAsOneThatWasNot) {
  prepare(kMinibatch);
  ASSERT_EQ(train("whole", 1, 1).exit_code, 0);
  const auto first = train("cut", 2, 1, "--set training.steps=17");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_EQ(summary("cut")["steps"], 17);
  const auto second = train("cut", 3, 2, "--resume --set checkpoint.keep=9");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  EXPECT_EQ(result("cut"), result("whole"));
  EXPECT_EQ(metrics("cut"), metrics("whole"));

  const auto diff = test::lockstep("diff " + path("cut/checkpoints/step-00000040.h5") + " " +
                                   path("whole/checkpoints/step-00000040.h5"));
  EXPECT_EQ(diff.exit_code, 0) << diff.output;
  const auto other = test::lockstep("diff " + path("cut/checkpoints/step-00000017.h5") + " " +
                                    path("cut/checkpoints/step-00000040.h5"));
  EXPECT_EQ(other.exit_code, 1) << other.output;
}

TEST_F(ContractTest, AnInterruptedRunWithBatchNormIsTheSameAsOneThatWasNot) {
  for (const std::string scope : {"batch", "leaf"}) {
    prepare(kMinibatch, normalised(scope));
    const std::string whole = "whole-" + scope, cut = "cut-" + scope;
    ASSERT_EQ(train(whole, 1, 1).exit_code, 0);
    ASSERT_EQ(train(cut, 2, 1, "--set training.steps=17").exit_code, 0);
    ASSERT_EQ(train(cut, 3, 2, "--resume --set training.steps=25").exit_code, 0);
    const auto last = train(cut, 1, 1, "--resume");
    ASSERT_EQ(last.exit_code, 0) << last.output;
    EXPECT_EQ(result(cut), result(whole));
    EXPECT_EQ(metrics(cut), metrics(whole));
    const auto diff = test::lockstep("diff " + path(cut + "/checkpoints/step-00000040.h5") + " " +
                                     path(whole + "/checkpoints/step-00000040.h5"));
    EXPECT_EQ(diff.exit_code, 0) << diff.output;
    // Statistics are part of what is saved, and the test used them.
    const auto inspected = test::lockstep("inspect " + path(cut + "/checkpoints/step-00000040.h5"));
    EXPECT_NE(inspected.output.find("1.running_var"), std::string::npos) << inspected.output;
    const auto evaluated = test::lockstep(
        "evaluate " + path(cut + "/checkpoints/step-00000040.h5") + " " + path("test.h5"), 2);
    EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
  }
}

TEST_F(ContractTest, ACheckpointCanBeSavedAfterAnyStepAndGoneBackTo) {
  prepare(kMinibatch);
  const std::string often =
      "--set checkpoint.every_steps=11 --set checkpoint.every_epochs=0 "
      "--set checkpoint.keep=2 ";
  ASSERT_EQ(train("whole", 2, 1, often).exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(path("whole/checkpoints/step-00000033.h5")));
  // Eleven steps are an epoch, so these lie between two epochs, and this one in the middle.
  ASSERT_EQ(train("other", 1, 1, often + "--set checkpoint.every_steps=7").exit_code, 0);
  const auto back =
      train("other", 4, 1, often + "--resume " + path("other/checkpoints/step-00000035.h5"));
  ASSERT_EQ(back.exit_code, 0) << back.output;
  EXPECT_EQ(result("other"), result("whole"));
  EXPECT_EQ(metrics("other"), metrics("whole"));
  EXPECT_TRUE(std::filesystem::exists(path("other/checkpoints/step-00000040.h5")));
  EXPECT_TRUE(std::filesystem::exists(path("other/checkpoints/step-00000040.h5.superseded")));
}

TEST_F(ContractTest, ResumingAFinishedRunLeavesItAsItIs) {
  prepare(kMinibatch);
  ASSERT_EQ(train("run", 1, 1).exit_code, 0);
  const std::string summary_before = read("run/summary.json");
  const std::string metrics_before = read("run/metrics.jsonl");
  const auto again = train("run", 2, 1, "--resume");
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_EQ(read("run/summary.json"), summary_before);
  EXPECT_EQ(read("run/metrics.jsonl"), metrics_before);
}

TEST_F(ContractTest, EarlyStoppingAndValidationAreTheSameForAllRanks) {
  prepare(
      "[optimizer]\nname = \"rmsprop\"\nlearning_rate = 0.005\n"
      "[training]\nbatch_size = 64\nepochs = 30\n[early_stopping]\npatience = 2\n");
  const std::string split = "--set data.validation_fraction=0.2";
  ASSERT_EQ(train("1", 1, 2, split).exit_code, 0);
  ASSERT_LT(summary("1")["epochs"], 30) << "nothing was stopped";
  ASSERT_EQ(train("3", 3, 1, split).exit_code, 0);
  EXPECT_EQ(result("3"), result("1"));
  const auto resumed = train("cut", 2, 1, split + " --set training.steps=25");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  ASSERT_EQ(train("cut", 5, 1, split + " --resume").exit_code, 0);
  EXPECT_EQ(result("cut"), result("1"));
}

TEST_F(ContractTest, AReachedTargetEndsTheRunTheSameForAllRanks) {
  prepare(
      "[optimizer]\nname = \"adam\"\nlearning_rate = 1e-4\n"
      "[training]\nbatch_size = 64\nepochs = 30\n"
      "[early_stopping]\ntarget_accuracy = 0.8\n");
  const std::string file = "--set data.validation=" + path("test.h5");
  const auto ending = train("1", 1, 2, file);
  ASSERT_EQ(ending.exit_code, 0) << ending.output;
  const auto lines = metrics("1");
  ASSERT_GE(lines.size(), 3u) << "reached at once: the test proves little";
  ASSERT_LT(lines.size(), 30u) << "nothing was stopped";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["validation_accuracy"] >= 0.8, i + 1 == lines.size()) << i;
  }
  EXPECT_NE(ending.output.find("stopped early: epoch " + std::to_string(lines.size()) +
                               " reached early_stopping.target_accuracy = 0.8"),
            std::string::npos)
      << ending.output;
  // The file is that of data.test, so the parameters that reached the target are those tested.
  EXPECT_EQ(summary("1")["test_accuracy"], lines.back()["validation_accuracy"]);
  EXPECT_EQ(summary("1")["test_loss"], lines.back()["validation_loss"]);
  EXPECT_NE(read("1/config.toml").find("validation = \"" + path("test.h5") + "\""),
            std::string::npos);

  ASSERT_EQ(train("3", 3, 1, file).exit_code, 0);
  EXPECT_EQ(result("3"), result("1"));
  EXPECT_EQ(metrics("3"), lines);
  ASSERT_EQ(train("cut", 2, 1, file + " --set training.steps=20").exit_code, 0);
  ASSERT_EQ(train("cut", 5, 1, file + " --resume").exit_code, 0);
  EXPECT_EQ(result("cut"), result("1"));

  const std::string before = read("1/metrics.jsonl");
  const auto again = train("1", 2, 1, file + " --resume --set training.epochs=40");
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_NE(again.output.find("early_stopping.target_accuracy is reached"), std::string::npos)
      << again.output;
  EXPECT_EQ(again.output.find("warning"), std::string::npos) << again.output;
  EXPECT_EQ(read("1/metrics.jsonl"), before);
}

TEST_F(ContractTest, ASignalStopsAllRanksAfterACheckpoint) {
  prepare(kMinibatch);
  ASSERT_EQ(train("whole", 1, 1, "--set training.steps=2000").exit_code, 0);
  const std::string command = std::string(MPIEXEC) + " --oversubscribe --bind-to none -np 2 " +
                              LOCKSTEP_PROGRAM + " train " + path("run.toml") + " --out " +
                              path("cut") + " --set training.steps=2000";
  // mpirun passes SIGUSR1 on to the ranks; it is sent once there are metrics to be seen.
  const auto stopped =
      test::run("bash -c '" + command + " & until [ -s " + path("cut/metrics.jsonl") +
                " ]; do sleep 0.02; done; kill -USR1 $!; wait $!; code=$?; "
                "if [ $code -gt 128 ]; then wait $!; code=$?; fi; exit $code'");
  ASSERT_EQ(stopped.exit_code, 75) << stopped.output;
  EXPECT_NE(stopped.output.find("stopped by SIGUSR1"), std::string::npos) << stopped.output;
  const auto resumed = train("cut", 3, 1, "--resume --set training.steps=2000");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_EQ(result("cut"), result("whole"));
}

}  // namespace
}  // namespace lockstep

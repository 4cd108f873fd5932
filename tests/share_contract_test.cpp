// The lockstep contract where ranks of one node share out gradients by weights: the same bits as by
// samples, and as one rank alone.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "contract.hpp"

namespace lockstep {
namespace {

using test::ContractTest;

// Rows of weights that begin where registers do and where they do not; one layer that is too small
// to be shared between two that are not, and one behind them.
constexpr const char* kWide =
    "[{ dense = 331, activation = \"relu\" }, { dense = 272, activation = \"tanh\" }, { dense = "
    "40, "
    "activation = \"sigmoid\" }, { dense = 1700, bias = false }, { dense = 10 }]";

class ShareContractTest : public ContractTest {
 protected:
  // Ranks that share weights, in a few buckets and in many, against a rank alone.
  void expect_same_as_alone(const std::string& more = "") {
    ASSERT_EQ(train("alone", 1, 1, more).exit_code, 0);
    const std::string by_samples = " --set comm.share_weights=false";
    for (const int ranks : {2, 3, 8}) {
      for (const std::string& how :
           {std::string(" --set training.threads=2"), std::string(" --set comm.bucket_mib=0.005"),
            std::string(" --set comm.overlap=false --set comm.bucket_mib=32"), by_samples}) {
        const auto ending = train("with_others", ranks, 1, more + how);
        ASSERT_EQ(ending.exit_code, 0) << ending.output;
        EXPECT_EQ(ending.output.find("shared out by weights") != std::string::npos,
                  how != by_samples)
            << ending.output;
        EXPECT_EQ(result("with_others"), result("alone")) << ranks << " ranks" << how;
        EXPECT_EQ(metrics("with_others"), metrics("alone")) << ranks << " ranks" << how;
        std::filesystem::remove_all(path("with_others"));
      }
    }
  }
};

// The last batch of an epoch is three samples, which most ranks have none of.
TEST_F(ShareContractTest, ParametersThatMoveWhereTheirGradientIsSummed) {
  prepare(
      "[optimizer]\nname = \"adam\"\n[regularization]\nl2 = 1e-4\n[training]\nbatch_size = "
      "100\nsteps = 13\n",
      kWide);
  expect_same_as_alone();
}

TEST_F(ShareContractTest, ParametersThatMoveWhenTheWholeGradientIsKnown) {
  prepare("[optimizer]\nname = \"momentum\"\n[training]\nbatch_size = 100\nsteps = 5\n", kWide);
  expect_same_as_alone("--set optimizer.clip_norm=0.5");
  std::filesystem::remove_all(path("alone"));
  expect_same_as_alone("--set optimizer.name=lamb --set optimizer.learning_rate=0.01");
}

TEST_F(ShareContractTest, OneSampleAtATime) {
  prepare("[optimizer]\nname = \"sgd\"\n[training]\ndescent = \"stochastic\"\nsteps = 7\n", kWide);
  expect_same_as_alone();
}

// Layers between that have sums over the batch or random numbers of their own, and penalties on
// all.
TEST_F(ShareContractTest, WithOtherLayersBetween) {
  prepare(
      "[optimizer]\nname = \"adam\"\n[regularization]\nl1 = 1e-5\nl2 = 1e-4\nbiases = true\n"
      "[training]\nbatch_size = 100\nsteps = 12\n",
      "[{ dense = 331, bias = false }, { batch_norm = true }, { activation = \"relu\" }, { dropout "
      "= "
      "0.2 }, { dense = 272, activation = \"tanh\" }, { dense = 10 }]");
  expect_same_as_alone();
}

// The last batch has samples for three ranks, and leaves too short for pairs.
TEST_F(ShareContractTest, Bfloat16) {
  prepare(
      "[optimizer]\nname = \"momentum\"\n[training]\nbatch_size = 100\nsteps = 12\n"
      "precision = \"bfloat16\"\n",
      kWide);
  expect_same_as_alone();
}

// Moments lie with whoever moves what they belong to, which depends on the way.
TEST_F(ShareContractTest, ARunGoesOnAnotherWay) {
  prepare("[optimizer]\nname = \"adam\"\n[training]\nbatch_size = 100\nsteps = 12\n", kWide);
  ASSERT_EQ(train("whole", 1, 1).exit_code, 0);
  ASSERT_EQ(train("cut", 3, 1, "--set training.steps=4").exit_code, 0);
  const auto second =
      train("cut", 2, 1, "--resume --set training.steps=8 --set comm.share_weights=false");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  const auto last = train("cut", 2, 2, "--resume");
  ASSERT_EQ(last.exit_code, 0) << last.output;
  EXPECT_EQ(result("cut"), result("whole"));
  EXPECT_EQ(metrics("cut"), metrics("whole"));
}

// A stopped run tells the norm of its last gradient, which no rank had a need of before.
TEST_F(ShareContractTest, AStoppedRunTellsTheNormOfItsLastGradient) {
  prepare("[optimizer]\nname = \"adam\"\n[training]\nbatch_size = 100\nsteps = 3000\n", kWide);
  const std::string command = std::string(MPIEXEC) + " --oversubscribe --bind-to none -np 2 " +
                              LOCKSTEP_PROGRAM + " train " + path("run.toml") + " --out " +
                              path("cut");
  const auto stopped =
      test::run("bash -c '" + command + " & until [ -s " + path("cut/metrics.jsonl") +
                " ]; do sleep 0.02; done; kill -USR1 $!; wait $!; code=$?; "
                "if [ $code -gt 128 ]; then wait $!; code=$?; fi; exit $code'");
  ASSERT_EQ(stopped.exit_code, 75) << stopped.output;
  const auto cut = metrics("cut");
  const std::string steps = std::to_string(cut.back()["step"].get<int>());
  ASSERT_EQ(train("whole", 1, 1, "--set training.steps=" + steps).exit_code, 0);
  EXPECT_EQ(metrics("cut").back(), metrics("whole").back());
}

}  // namespace
}  // namespace lockstep

// The lockstep contract where no parameter moves before norms over whole tensors are known, or over
// the whole gradient: clipping and LAMB, each rank with the sums of its share.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "contract.hpp"

namespace lockstep {
namespace {

using test::ContractTest;
using test::InstructionSetTest;

// What all of the gradient decides, each rank with a share of it, in several buckets and in one.
TEST_F(ContractTest, ClippingIsTheSameForAllRanks) {
  prepare(
      "[optimizer]\nname = \"momentum\"\nclip_norm = 0.5\n[training]\nbatch_size = 100\nsteps = "
      "25\n");
  ASSERT_EQ(train("alone", 1, 1).exit_code, 0);
  ASSERT_EQ(train("free", 1, 1, "--set optimizer.clip_norm=0").exit_code, 0);
  EXPECT_NE(result("free"), result("alone"));
  for (const int ranks : {2, 3, 5}) {
    for (const std::string how : {"", "--set comm.bucket_mib=0.02 --set comm.first_bucket_mib=0.02",
                                  "--set comm.shared_memory=false"}) {
      const auto ending = train("with_others", ranks, 1, how);
      ASSERT_EQ(ending.exit_code, 0) << ending.output;
      EXPECT_EQ(result("with_others"), result("alone")) << ranks << " ranks " << how;
      EXPECT_EQ(metrics("with_others"), metrics("alone")) << ranks << " ranks " << how;
      std::filesystem::remove_all(path("with_others"));
    }
  }
}

// Widths that do not fill their last group of 16: what stands between tensors counts for nothing,
// also where layers share memory for their sums, and after a stop.
TEST_F(ContractTest, WhatStandsBetweenTensorsCountsForNothing) {
  prepare(
      "[optimizer]\nname = \"momentum\"\nclip_norm = 0.5\n[training]\nbatch_size = 100\n",
      "[{ dense = 32, activation = \"relu\" }, { batch_norm = true }, { dense = 20, activation = "
      "\"relu\" }, { batch_norm = true }, { dense = 10 }]");
  const std::string steps = "--set training.steps=12 ";
  ASSERT_EQ(train("alone", 1, 1, steps).exit_code, 0);
  for (const int ranks : {2, 3, 8}) {
    for (const std::string how : {"", "--set comm.shared_memory=false"}) {
      const auto ending = train("with_others", ranks, 1, steps + how);
      ASSERT_EQ(ending.exit_code, 0) << ending.output;
      EXPECT_EQ(result("with_others"), result("alone")) << ranks << " ranks " << how;
      EXPECT_EQ(metrics("with_others"), metrics("alone")) << ranks << " ranks " << how;
      std::filesystem::remove_all(path("with_others"));
    }
  }
  ASSERT_EQ(train("cut", 2, 1, "--set training.steps=6").exit_code, 0);
  ASSERT_EQ(train("cut", 3, 1, steps + "--resume").exit_code, 0);
  EXPECT_EQ(result("cut"), result("alone"));
}

// Tensors begin and end in the middle of chunks.
constexpr const char* kLamb =
    "[optimizer]\nname = \"lamb\"\nweight_decay = 0.01\n[regularization]\nl2 = 1e-4\n"
    "[training]\nbatch_size = 100\nsteps = 40\nseed = 7\n";
constexpr const char* kUneven =
    "[{ dense = 65, activation = \"relu\" }, { batch_norm = true }, { dropout = 0.2 }, { dense = "
    "33, "
    "activation = \"tanh\" }, { dense = 10 }]";
const std::string kClipped = " --set optimizer.clip_norm=0.5";

TEST_F(ContractTest, LambIsTheSameForAllRanksAndThreads) {
  prepare(kLamb, kUneven);
  expect_same_for_all_ranks_and_threads();
  EXPECT_GT(summary("1x1")["test_accuracy"], 0.5) << "it did not learn, so the bits prove little";
}

TEST_F(ContractTest, ClippedLambIsTheSameForAllRanksAndThreads) {
  prepare(kLamb, kUneven);
  ASSERT_EQ(train("free", 1, 1).exit_code, 0);
  expect_same_for_all_ranks_and_threads(kClipped);
  EXPECT_NE(result("free"), result("1x1")) << "nothing was clipped";
}

TEST_F(ContractTest, LambOfOneSampleIsTheSameForAllRanksAndThreads) {
  prepare("[optimizer]\nname = \"lamb\"\n[training]\ndescent = \"stochastic\"\nsteps = 40\n");
  expect_same_for_all_ranks_and_threads();
}

// In several buckets and in one, of which every rank moves all or its share.
TEST_F(ContractTest, HowRanksExchangeChangesNothingForLamb) {
  prepare(kLamb,
          "[{ dense = 300, activation = \"relu\" }, { dense = 500, activation = \"relu\" }, { "
          "dense = 10 }]");
  const std::string small = " --set comm.bucket_mib=0.1 --set comm.first_bucket_mib=0.01";
  for (const std::string& clip : {std::string(), kClipped}) {
    const std::string alone = "alone" + std::to_string(clip.size());
    ASSERT_EQ(train(alone, 1, 1, clip).exit_code, 0);
    for (const int ranks : {2, 3, 4}) {
      for (const std::string& how :
           {small, small + " --set comm.shared_memory=false", small + " --set comm.overlap=false",
            std::string(" --set comm.shared_memory=false")}) {
        const auto ending = train("with_others", ranks, 1, clip + how);
        ASSERT_EQ(ending.exit_code, 0) << ending.output;
        EXPECT_EQ(result("with_others"), result(alone)) << ranks << " ranks " << how << clip;
        EXPECT_EQ(metrics("with_others"), metrics(alone)) << ranks << " ranks " << how << clip;
        std::filesystem::remove_all(path("with_others"));
      }
    }
  }
}

TEST_F(ContractTest, AnInterruptedRunOfLambIsTheSameAsOneThatWasNot) {
  prepare(kLamb, kUneven);
  for (const std::string& clip : {std::string(), kClipped}) {
    const std::string whole = "whole" + std::to_string(clip.size());
    const std::string cut = "cut" + std::to_string(clip.size());
    ASSERT_EQ(train(whole, 1, 1, clip).exit_code, 0);
    ASSERT_EQ(train(cut, 2, 1, clip + " --set training.steps=17").exit_code, 0);
    ASSERT_EQ(train(cut, 5, 2, clip + " --resume --set training.steps=25").exit_code, 0);
    const auto last = train(cut, 1, 2, clip + " --resume");
    ASSERT_EQ(last.exit_code, 0) << last.output;
    EXPECT_EQ(result(cut), result(whole));
    EXPECT_EQ(metrics(cut), metrics(whole));
    const std::string checkpoint = path(cut + "/checkpoints/step-00000040.h5");
    const auto diff =
        test::lockstep("diff " + checkpoint + " " + path(whole + "/checkpoints/step-00000040.h5"));
    EXPECT_EQ(diff.exit_code, 0) << diff.output;
    const auto inspected = test::lockstep("inspect " + checkpoint);
    EXPECT_NE(inspected.output.find("lamb (mean, mean_square)"), std::string::npos)
        << inspected.output;
  }
}

TEST_F(InstructionSetTest, LambIsTheSameForAllInstructionSets) {
  prepare(std::string(kLamb), kUneven);
  expect_same_for_all_instruction_sets();
}

}  // namespace
}  // namespace lockstep

// Runs of one configuration in many ways, through the program, and what must be the same of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "nn/kernels/kernels.hpp"
#include "run_program.hpp"

namespace lockstep::test {

inline constexpr const char* kMinibatch =
    "[optimizer]\nname = \"adam\"\n[regularization]\nl2 = 1e-4\n"
    "[training]\nbatch_size = 100\nsteps = 40\nseed = 7\n";

inline constexpr const char* kLayers =
    "[{ dense = 64, activation = \"relu\" }, { dropout = 0.2 }, { dense = 10 }]";

class ContractTest : public ProgramTest {
 protected:
  // 1,003 samples in batches of 100: leaves of 12 and 13 samples, and a last batch of 3, which
  // leaves five of the eight leaves empty. Forty steps are more than three epochs.
  void prepare(const std::string& training, const std::string& layers = kLayers) {
    datasets::write_dataset(path("train.h5"), images(1003));
    datasets::write_dataset(path("test.h5"), images(777));
    write("run.toml", "[data]\ntrain = \"" + path("train.h5") + "\"\ntest = \"" + path("test.h5") +
                          "\"\n"
                          "[model]\nlayers = " +
                          layers + "\n" + training);
  }

  Ending train(const std::string& out, int ranks, int threads, const std::string& more = "") {
    return lockstep("train " + path("run.toml") + " --out " + path(out) +
                        " --set training.threads=" + std::to_string(threads) + " " + more,
                    ranks);
  }

  nlohmann::json summary(const std::string& out) const {
    return nlohmann::json::parse(read(out + "/summary.json"));
  }

  // Everything in a summary that does not tell of how it was computed.
  nlohmann::json result(const std::string& out) const {
    nlohmann::json all = summary(out);
    for (const char* key : {"ranks", "threads", "seconds", "samples_per_second", "input_seconds",
                            "wait_seconds", "rank_memory_bytes"}) {
      all.erase(key);
    }
    return all;
  }

  // The lines of metrics.jsonl without the times.
  std::vector<nlohmann::json> metrics(const std::string& out) const {
    std::vector<nlohmann::json> lines;
    std::istringstream text(read(out + "/metrics.jsonl"));
    for (std::string line; std::getline(text, line);) {
      lines.push_back(nlohmann::json::parse(line));
      for (const char* key : {"seconds", "samples_per_second", "input_seconds", "wait_seconds"})
        lines.back().erase(key);
    }
    return lines;
  }

  void expect_same_for_all_ranks_and_threads(const std::string& more = "") {
    nlohmann::json first;
    for (const int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
      for (const int threads : {1, 2}) {
        const std::string out = std::to_string(ranks) + "x" + std::to_string(threads);
        const auto ending = train(out, ranks, threads, more);
        ASSERT_EQ(ending.exit_code, 0) << ending.output;
        EXPECT_EQ(summary(out)["ranks"], ranks);
        EXPECT_EQ(summary(out)["threads"], threads);
        if (first.is_null()) first = result(out);
        EXPECT_EQ(result(out), first) << out;
        EXPECT_EQ(metrics(out), metrics("1x1")) << out;
      }
    }
  }
};

// While it lives, the programs that are started keep to this instruction set.
class HeldInstructionSet {
 public:
  explicit HeldInstructionSet(const std::string& name) { setenv(kVariable, name.c_str(), 1); }
  ~HeldInstructionSet() { unsetenv(kVariable); }
  HeldInstructionSet(const HeldInstructionSet&) = delete;
  HeldInstructionSet& operator=(const HeldInstructionSet&) = delete;

 private:
  static constexpr const char* kVariable = "LOCKSTEP_INSTRUCTION_SET";
};

class InstructionSetTest : public ContractTest {
 protected:
  InstructionSetTest() {
    if (names_.size() == 1) {
      std::printf("%s is the only instruction set here: no other was compared with it\n",
                  names_[0].c_str());
    }
  }

  nlohmann::json result_without_instruction_set(const std::string& out) const {
    nlohmann::json rest = result(out);
    rest.erase("instruction_set");
    return rest;
  }

  // The same training with each of the processor's instruction sets, and with the one that the
  // program chooses itself.
  void expect_same_for_all_instruction_sets() {
    ASSERT_EQ(train("chosen", 1, 1).exit_code, 0);
    EXPECT_EQ(summary("chosen")["instruction_set"], names_.front()) << "not the best";
    for (const std::string& name : names_) {
      const HeldInstructionSet held(name);
      const auto ending = train(name, 2, 1);
      ASSERT_EQ(ending.exit_code, 0) << ending.output;
      EXPECT_EQ(summary(name)["instruction_set"], name);
      EXPECT_NE(read(name + "/log.txt").find(name + " kernels"), std::string::npos);
      EXPECT_EQ(result_without_instruction_set(name), result_without_instruction_set("chosen"));
      EXPECT_EQ(metrics(name), metrics("chosen")) << name;
    }
  }

  // Best first; never empty where lockstep runs at all.
  const std::vector<std::string> names_ = nn::available_instruction_sets();
};

}  // namespace lockstep::test

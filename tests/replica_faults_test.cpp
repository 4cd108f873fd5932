// Runs in which a weight changes by itself (replica_faults.cpp): each ends at the next step, with
// the message that names it.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "run_program.hpp"

namespace lockstep::trainer {
namespace {

test::Ending run(const std::string& place, const std::string& way, int ranks) {
  return test::run(MPIEXEC " --oversubscribe --bind-to none -np " + std::to_string(ranks) +
                   " " REPLICA_FAULTS " " + place + " " + way);
}

using Case = std::tuple<const char*, const char*, int>;
class ReplicaFaults : public testing::TestWithParam<Case> {};

TEST_P(ReplicaFaults, AWeightThatChangesOnceIsReportedAtTheNextStep) {
  const auto& [place, way, ranks] = GetParam();
  const test::Ending ending = run(place, way, ranks);
  EXPECT_EQ(ending.exit_code, 4) << ending.output;
  const std::string expected = "error: parameters of rank " + std::to_string(ranks - 1) +
                               " changed by themselves before step 14, among elements ";
  EXPECT_NE(ending.output.find(expected), std::string::npos) << ending.output;
  EXPECT_NE(ending.output.find(" of bucket "), std::string::npos) << ending.output;
  const std::size_t saved = ending.output.find("saved");
  EXPECT_NE(saved, std::string::npos) << "after the epoch before\n" << ending.output;
  EXPECT_EQ(saved, ending.output.rfind("saved")) << "and never again\n" << ending.output;
}

INSTANTIATE_TEST_SUITE_P(
    Places, ReplicaFaults,
    testing::Combine(testing::Values("own", "other", "small", "shared_own", "shared_other"),
                     testing::Values("memory", "messages"), testing::Values(2, 3)));

TEST(ReplicaFaults, AnUndisturbedRunIsNotAccused) {
  for (const char* const way : {"memory", "messages"}) {
    const test::Ending ending = run("none", way, 3);
    EXPECT_EQ(ending.exit_code, 0) << ending.output;
    EXPECT_NE(ending.output.find("saved"), std::string::npos) << ending.output;
  }
}

}  // namespace
}  // namespace lockstep::trainer

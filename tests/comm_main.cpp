#include "comm_main.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <exception>

namespace lockstep::comm::test {
namespace {

Session* current = nullptr;

// Only rank 0 prints the course of the tests; the others their failures, with their number.
class RankFailures : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %zu: %s:%d: %s\n", world().rank(),
                 result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                 result.message());
  }
};

}  // namespace

Session& session() {
  return *current;
}
Communicator& world() {
  return current->world();
}

namespace {

// The exit code of this rank; does not return if a test failed. A rank that leaves a test early no
// longer answers the others, so the first failure must be the end on all ranks.
int run_tests(Session& started) {
  current = &started;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world().rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankFailures);
  }
  GTEST_FLAG_SET(fail_fast, true);
  if (RUN_ALL_TESTS() != 0) started.abort(1);
  started.finalize();
  return 0;
}

}  // namespace
}  // namespace lockstep::comm::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  lockstep::comm::Session session(argc, argv);
  session.world().set_timeout(20.0);  // well below the limit of the whole test
  try {
    return lockstep::comm::test::run_tests(session);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %zu: %s\n", session.world().rank(), error.what());
    session.abort(1);
  }
}

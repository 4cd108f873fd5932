#include "comm/together.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "comm_main.hpp"

namespace lockstep::comm {
namespace {

using test::world;

// An exit code that names the rank on which it was made.
int exit_code_of(const std::exception_ptr&) {
  return 40 + static_cast<int>(world().rank());
}

// What leaves `together` on this rank when the ranks with a bit in `failing` fail.
struct Left {
  std::string original;  // what() of an own error
  std::size_t origin = 999;
  int exit_code = 0;
};

Left leave(std::size_t failing) {
  Left left;
  try {
    together(world(), exit_code_of, [&] {
      if ((failing >> world().rank()) % 2 != 0) {
        throw std::runtime_error("rank " + std::to_string(world().rank()));
      }
    });
  } catch (const RemoteError& error) {
    left.origin = error.origin;
    left.exit_code = error.exit_code;
  } catch (const std::exception& error) {
    left.original = error.what();
  }
  return left;
}

TEST(Together, EverySetOfFailingRanksIsReportedByItsLowest) {
  for (int round = 0; round < 20; ++round) {
    for (std::size_t failing = 0; failing < std::size_t{1} << world().size(); ++failing) {
      const Left left = leave(failing);
      if (failing == 0) {
        EXPECT_EQ(left.original, "");
        EXPECT_EQ(left.origin, 999U);
        continue;
      }
      std::size_t lowest = 0;
      while ((failing >> lowest) % 2 == 0) ++lowest;
      if (world().rank() == lowest) {
        EXPECT_EQ(left.original, "rank " + std::to_string(lowest));
      } else {
        EXPECT_EQ(left.original, "");
        EXPECT_EQ(left.origin, lowest);
        EXPECT_EQ(left.exit_code, 40 + static_cast<int>(lowest));
      }
    }
  }
  EXPECT_TRUE(test::session().in_step()) << "nobody was left waiting";
}

TEST(Together, WorkMayBeCollectiveWhileNoneFails) {
  bool any = false;
  together(world(), exit_code_of, [&] { any = world().any(world().rank() == 0); });
  EXPECT_TRUE(any);
}

TEST(Together, Nests) {
  const std::size_t last = world().size() - 1;
  std::size_t origin = last;
  try {
    together(world(), exit_code_of, [&] {
      together(world(), exit_code_of, [&] {
        if (world().rank() == last) throw std::runtime_error("inner");
      });
    });
    ADD_FAILURE() << "the error was lost";
  } catch (const RemoteError& error) {
    origin = error.origin;
    EXPECT_NE(world().rank(), last);
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(world().rank(), last);
    EXPECT_STREQ(error.what(), "inner");
  }
  EXPECT_EQ(origin, last);
  world().barrier();
}

}  // namespace
}  // namespace lockstep::comm

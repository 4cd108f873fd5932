#include "trainer/run_directory.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <system_error>

#include "trainer/config.hpp"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

class RunDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "lockstep-run-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }

  static std::string error_of(const fs::path& path, RunStart start) {
    try {
      RunDirectory::create(path, start);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }

  static std::string text_of(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  fs::path root_;
};

TEST_F(RunDirectoryTest, MakesItsDirectories) {
  const fs::path path = root_ / "runs" / "deep" / "one";
  const RunDirectory run = RunDirectory::create(path, RunStart::fresh);
  EXPECT_TRUE(fs::is_directory(path / "checkpoints"));
  EXPECT_EQ(run.path(), path);
  EXPECT_FALSE(holds_run(path));  // nothing is in it yet
  run.write_text_atomically("config.toml", "[data]\n");
  EXPECT_TRUE(holds_run(path));
  EXPECT_EQ(text_of(run.config_file()), "[data]\n");
}

TEST_F(RunDirectoryTest, OneRunHoldsIt) {
  {
    RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
    const std::string message = error_of(root_, RunStart::fresh);
    EXPECT_EQ(message.find("run directory " + root_.string() + " is held by another run (host "),
              0U)
        << message;
    EXPECT_NE(message.find("pid " + std::to_string(getpid()) + ")"), std::string::npos) << message;
    const RunDirectory moved = std::move(run);
    EXPECT_NE(error_of(root_, RunStart::fresh), "accepted");
  }
  EXPECT_EQ(error_of(root_, RunStart::fresh), "accepted");
}

// However its process ends.
TEST_F(RunDirectoryTest, KilledRunsHoldNothing) {
  const pid_t child = fork();
  if (child == 0) {
    const RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(error_of(root_, RunStart::fresh), "accepted");
}

TEST_F(RunDirectoryTest, FreshRunsOverwriteNothing) {
  for (const char* file :
       {"config.toml", "metrics.jsonl", "summary.json", "checkpoints/step-00000001.h5"}) {
    const fs::path path = root_ / file;
    fs::create_directories(path.parent_path());
    write(path, "mine");
    const std::string message = error_of(root_, RunStart::fresh);
    EXPECT_EQ(message, "run directory " + root_.string() +
                           " already holds a run: continue it with --resume, or name another "
                           "directory with --out");
    EXPECT_EQ(text_of(path), "mine");
    EXPECT_EQ(error_of(root_, RunStart::resume), "accepted");
    fs::remove(path);
    EXPECT_EQ(error_of(root_, RunStart::fresh), "accepted");
  }
}

TEST_F(RunDirectoryTest, ResumeNeedsARun) {
  EXPECT_EQ(error_of(root_, RunStart::resume),
            "run directory " + root_.string() + " holds no run to resume");
  const fs::path absent = root_ / "absent";
  EXPECT_EQ(error_of(absent, RunStart::resume),
            "run directory " + absent.string() + " holds no run to resume (no such directory)");
  EXPECT_FALSE(fs::exists(absent));
}

TEST_F(RunDirectoryTest, PlacesThatCannotBeDirectories) {
  write(root_ / "file", "");
  EXPECT_NE(error_of(root_ / "file", RunStart::fresh).find("cannot be made"), std::string::npos);
  EXPECT_NE(error_of(root_ / "file" / "run", RunStart::fresh).find("cannot be made"),
            std::string::npos);
  EXPECT_NE(error_of("/proc/run", RunStart::fresh).find("cannot be made"), std::string::npos);
}

nlohmann::ordered_json metrics(std::uint64_t epoch) {
  return {{"epoch", epoch}, {"step", epoch * 10}, {"train_loss", 0.1}};
}

TEST_F(RunDirectoryTest, MetricsGrowByLines) {
  RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
  run.append_metrics(metrics(1));
  EXPECT_EQ(text_of(run.metrics_file()), "{\"epoch\":1,\"step\":10,\"train_loss\":0.1}\n");
  run.append_metrics(metrics(2));
  EXPECT_EQ(text_of(run.metrics_file()),
            "{\"epoch\":1,\"step\":10,\"train_loss\":0.1}\n"
            "{\"epoch\":2,\"step\":20,\"train_loss\":0.1}\n");
}

// Wherever a run was cut, also within a line, and whichever step it goes on from: the file reads as
// if it had never been stopped.
TEST_F(RunDirectoryTest, ResumedMetricsReadAsNeverStopped) {
  std::string whole;
  for (std::uint64_t epoch = 1; epoch <= 4; ++epoch) whole += metrics(epoch).dump() + "\n";
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    fs::remove(root_ / "metrics.jsonl");
    RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
    write(run.metrics_file(), whole.substr(0, cut));
    // The newest checkpoint that may stand: one of an epoch whose line was whole.
    const auto lines = static_cast<std::uint64_t>(
        std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut), '\n'));
    for (std::uint64_t from = lines + 1; from-- > 0;) {
      run.drop_metrics_after(from * 10);
      for (std::uint64_t epoch = from + 1; epoch <= 4; ++epoch) run.append_metrics(metrics(epoch));
      ASSERT_EQ(text_of(run.metrics_file()), whole) << "cut " << cut << ", from epoch " << from;
    }
  }
}

TEST_F(RunDirectoryTest, DroppingMetricsBearsRubbish) {
  RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
  run.drop_metrics_after(3);  // no file
  EXPECT_FALSE(fs::exists(run.metrics_file()));
  const std::string good = "{\"step\":3}\n";
  write(run.metrics_file(), std::string("\0\0\n", 3) +
                                "[]\n3\n{\"step\":\"3\"}\n{}\n\n{\"step\":3" + "\n" + good +
                                "{\"step\":4}\n{\"step\":2");
  run.drop_metrics_after(3);
  EXPECT_EQ(text_of(run.metrics_file()), good);
  const auto before = fs::last_write_time(run.metrics_file());
  run.drop_metrics_after(3);  // nothing to drop: not written
  EXPECT_EQ(fs::last_write_time(run.metrics_file()), before);
}

TEST_F(RunDirectoryTest, FailuresNameTheFile) {
  RunDirectory run = RunDirectory::create(root_, RunStart::fresh);
  fs::create_directory(run.metrics_file());
  try {
    run.append_metrics(metrics(1));
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_NE(std::string(error.what()).find("metrics.jsonl: cannot open"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(run.write_text_atomically("absent/summary.json", "{}"), std::system_error);
  if (fs::exists("/dev/full")) {
    fs::remove(run.metrics_file());
    fs::create_symlink("/dev/full", run.metrics_file());
    EXPECT_THROW(run.append_metrics(metrics(1)), std::system_error);
  }
}

TEST_F(RunDirectoryTest, DefaultPathsAreNumbered) {
  const fs::path here = fs::current_path();
  fs::current_path(root_);
  EXPECT_EQ(default_run_path("configs/fashion.toml"), "runs/fashion-001");
  fs::create_directories("runs/fashion-001");
  fs::create_directories("runs/fashion-003");
  EXPECT_EQ(default_run_path("fashion.toml"), "runs/fashion-002");
  write("runs/fashion-002", "");
  EXPECT_EQ(default_run_path("fashion.toml"), "runs/fashion-004");
  EXPECT_EQ(default_run_path("other.toml"), "runs/other-001");
  for (int i = 1; i < 1000; ++i) fs::create_directories(default_run_path("many.toml"));
  EXPECT_EQ(default_run_path("many.toml"), "runs/many-1000");
  fs::current_path(here);
}

}  // namespace
}  // namespace lockstep::trainer

// Runs the program as a person would, alone or under mpirun, and says how it ended.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "datasets/writer.hpp"

namespace lockstep::test {

struct Ending {
  int exit_code = -1;
  double seconds = 0;
  std::string output;                 // standard output and error of all ranks
  std::vector<std::string> messages;  // lines that begin with "lockstep:"
};

inline Ending run(const std::string& command) {
  Ending ending;
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(("timeout 100 " + command + " 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) return ending;
  std::array<char, 8192> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
    ending.output += line.data();
    if (std::string(line.data()).starts_with("lockstep:")) ending.messages.push_back(line.data());
  }
  const int status = pclose(pipe);
  ending.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (WIFEXITED(status)) ending.exit_code = WEXITSTATUS(status);
  return ending;
}

// `arguments` for the program on `ranks` ranks; 0: alone, without mpirun.
inline Ending lockstep(const std::string& arguments, int ranks = 0) {
  const std::string program = std::string(LOCKSTEP_PROGRAM) + " " + arguments;
  if (ranks == 0) return run(program);
  return run(std::string(MPIEXEC) + " --oversubscribe --bind-to none -np " + std::to_string(ranks) +
             " " + program);
}

// A test with an empty folder of its own, removed in the end unless it failed.
class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              (std::string("lockstep-") + test->test_suite_name() + "-" + test->name() + "-" +
               std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ProgramTest() override {
    if (!HasFailure()) std::filesystem::remove_all(folder_);
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }

  std::string read(const std::string& name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  // Samples of 28 x 28 bytes in ten classes, each class brighter in a band of its own.
  datasets::Contents images(std::size_t samples) const {
    datasets::Contents contents;
    contents.x_shape = {samples, 28, 28};
    std::vector<std::uint8_t> x(samples * 784);
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < samples; ++i) {
      const std::size_t label = i * 7 % 10;
      contents.labels.push_back(static_cast<std::int32_t>(label));
      for (std::size_t j = 0; j < 784; ++j) {
        state = state * 1664525u + 1013904223u;
        const std::uint32_t noise = state >> 25;  // below 128
        x[i * 784 + j] = static_cast<std::uint8_t>(noise + (j / 78 == label ? 100 : 0));
      }
    }
    contents.x = std::move(x);
    contents.classes = 10;
    contents.scale = 1.0 / 255;
    contents.source = "bands";
    return contents;
  }

  std::filesystem::path folder_;
};

}  // namespace lockstep::test

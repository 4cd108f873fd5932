// Small files for the tests of datasets: a folder of their own, and ways to fill it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "datasets/atomic_file.hpp"
#include "datasets/error.hpp"
#include "datasets/hdf5.hpp"

namespace lockstep::datasets {

// Each test has an empty folder, removed at its end.
class FolderTest : public ::testing::Test {
 protected:
  FolderTest() : folder_(std::filesystem::path(::testing::TempDir()) / folder_name()) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }

  // Names of the files in the folder, in order.
  std::vector<std::string> listing() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  static std::string folder_name() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    return std::string("lockstep-") + test->test_suite_name() + "-" + test->name() + "-" +
           std::to_string(::getpid());
  }

  std::filesystem::path folder_;
};

inline std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return {bytes.begin(), bytes.end()};
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline void save(const hdf5::File& file, const std::filesystem::path& path) {
  write_file_atomically(path, file.image());
}

// The text of the DataError that `call` throws, which is one line; "" if it throws none.
template <typename Call>
std::string data_error(Call call) {
  try {
    call();
  } catch (const DataError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  return {};
}

// Expects a DataError whose text has each of `parts`.
template <typename Call>
void expect_data_error(Call call, const std::vector<std::string>& parts) {
  const std::string text = data_error(call);
  EXPECT_NE(text, "") << "no DataError";
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "expected \"" << part << "\" in: " << text;
  }
}

}  // namespace lockstep::datasets

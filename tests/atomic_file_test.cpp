#include "datasets/atomic_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <system_error>
#include <thread>

#include "datasets_files.hpp"

namespace lockstep::datasets {
namespace {

class AtomicFile : public FolderTest {};

// While it lives, files of this process cannot grow past `bytes`, as on a full disk.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit small = old_;
    small.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

// The text of the std::system_error that writing `content` throws; "" if it throws none.
std::string error_of_writing(const std::filesystem::path& path, const std::string& content) {
  try {
    write_file_atomically(path, bytes_of(content));
  } catch (const std::system_error& error) {
    return error.what();
  }
  return {};
}

TEST_F(AtomicFile, WritesExactlyTheContent) {
  for (const std::size_t size : {0u, 1u, 4096u, 1000003u}) {
    const std::string content(size, 'q');
    write_file_atomically(path("a"), bytes_of(content));
    EXPECT_EQ(read_file(path("a")), content);
  }
  EXPECT_EQ(listing(), std::vector<std::string>{"a"});
}

TEST_F(AtomicFile, ReplacesByRenameSoThatAReaderKeepsTheOldFile) {
  write_file(path("a"), "old");
  std::ifstream reader(path("a"), std::ios::binary);
  write_file_atomically(path("a"), bytes_of("new and longer"));
  std::string seen;
  reader >> seen;
  EXPECT_EQ(seen, "old");
  EXPECT_EQ(read_file(path("a")), "new and longer");
}

TEST_F(AtomicFile, WritesInTheWorkingDirectoryToo) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(path(""));
  write_file_atomically("plain", bytes_of("text"));
  std::filesystem::current_path(before);
  EXPECT_EQ(read_file(path("plain")), "text");
}

TEST_F(AtomicFile, AFullDiskLeavesTheOldFileAndNoTemporary) {
  write_file(path("a"), "old");
  std::string error;
  {
    const SmallDisk disk(1000);  // the first write is short, the second fails
    error = error_of_writing(path("a"), std::string(5000, 'x'));
  }
  EXPECT_NE(error.find(path("a").string() + ": cannot write: File too large"), std::string::npos)
      << error;
  EXPECT_EQ(read_file(path("a")), "old");
  EXPECT_EQ(listing(), std::vector<std::string>{"a"});
}

TEST_F(AtomicFile, AFullDiskLeavesNothingWhereNothingWas) {
  {
    const SmallDisk disk(1000);
    EXPECT_NE(error_of_writing(path("a"), std::string(5000, 'x')), "");
  }
  EXPECT_TRUE(listing().empty());
}

TEST_F(AtomicFile, AFailedRenameRemovesTheTemporary) {
  std::filesystem::create_directory(path("a"));
  const std::string error = error_of_writing(path("a"), "x");
  EXPECT_NE(error.find("Is a directory"), std::string::npos) << error;
  EXPECT_EQ(listing(), std::vector<std::string>{"a"});
}

TEST_F(AtomicFile, NamesThePathAndTheReason) {
  write_file(path("file"), "");
  EXPECT_NE(error_of_writing(path("file/a"), "x").find("Not a directory"), std::string::npos);
  const std::string missing = error_of_writing(path("none/a"), "x");
  EXPECT_NE(missing.find("No such file or directory"), std::string::npos) << missing;
  EXPECT_NE(missing.find(path("none/a").string()), std::string::npos) << missing;
  EXPECT_NE(error_of_writing(path("folder/"), "x"), "");
}

TEST_F(AtomicFile, NeverReplacesADeviceOrPipe) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_NE(error_of_writing(path("pipe"), "x").find("not a regular file"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_fifo(path("pipe")));
  EXPECT_EQ(listing(), std::vector<std::string>{"pipe"});
}

TEST_F(AtomicFile, ManyWritersAndReadersSeeWholeFilesOnly) {
  write_file_atomically(path("a"), bytes_of(std::string(20000, '0')));
  std::atomic<bool> done{false};
  std::vector<std::thread> writers;
  for (char letter = 'a'; letter < 'd'; ++letter) {
    writers.emplace_back([this, letter] {
      for (int i = 0; i < 20; ++i) {
        write_file_atomically(path("a"), bytes_of(std::string(20000, letter)));
      }
    });
  }
  std::thread reader([&] {
    while (!done) {
      const std::string seen = read_file(path("a"));
      ASSERT_EQ(seen.size(), 20000u);
      ASSERT_EQ(seen, std::string(20000, seen.front()));
    }
  });
  for (std::thread& writer : writers) writer.join();
  done = true;
  reader.join();
  EXPECT_EQ(listing(), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace lockstep::datasets

// On trees of files that look like those of the kernel.
#include "trainer/cpu_quota.hpp"

#include <gtest/gtest.h>

#include <fstream>

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

class CpuQuotaTest : public ::testing::Test {
 protected:
  CpuQuotaTest() {
    root_ = fs::path(::testing::TempDir()) /
            (std::string("lockstep-cpu-quota-") +
             ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
  }
  ~CpuQuotaTest() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }

  void group1(const std::string& directory, const std::string& quota) const {
    write("sys/fs/cgroup/" + directory + "/cpu.cfs_quota_us", quota + "\n");
    write("sys/fs/cgroup/" + directory + "/cpu.cfs_period_us", "100000\n");
  }

  std::vector<double> found() const {
    std::vector<double> processors;
    for (const CpuQuota& quota : cpu_quotas(root_)) processors.push_back(quota.processors);
    return processors;
  }

  fs::path root_;
};

using Found = std::vector<double>;

TEST_F(CpuQuotaTest, NoControlGroups) {
  EXPECT_EQ(found(), Found{});
  write("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(found(), Found{});
}

TEST_F(CpuQuotaTest, Version2OfTheGroupAndOfThoseAbove) {
  write("proc/self/cgroup", "0::/job/step/rank0\n");
  write("sys/fs/cgroup/job/step/rank0/cpu.max", "150000 100000\n");
  write("sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/job/cpu.max", "100000 50000\n");
  write("sys/fs/cgroup/other/cpu.max", "1000 100000\n");
  EXPECT_EQ(found(), (Found{1.5, 2}));
}

TEST_F(CpuQuotaTest, Version2InAContainerThatSeesItsGroupAsTheTopmost) {
  write("sys/fs/cgroup/cpu.max", "250000 100000\n");
  for (const char* path : {"/", "/../../elsewhere", "/docker/0123456789abcdef"}) {
    write("proc/self/cgroup", std::string("0::") + path + "\n");
    EXPECT_EQ(found(), Found{2.5}) << path;
  }
}

TEST_F(CpuQuotaTest, Version1) {
  write("proc/self/cgroup",
        "5:cpuset:/a\n4:cpu,cpuacct:/job/rank\n3:memory:/b\n1:name=systemd:/c\n");
  group1("cpu,cpuacct/job/rank", "-1");
  group1("cpu,cpuacct/job", "300000");
  group1("cpu,cpuacct", "-1");
  group1("cpuset/a", "100000");
  EXPECT_EQ(found(), Found{3});
  fs::create_directory_symlink("cpu,cpuacct", root_ / "sys/fs/cgroup/cpu");
  EXPECT_EQ(found(), Found{3});
}

TEST_F(CpuQuotaTest, Version1InAContainer) {
  write("proc/self/cgroup", "4:cpu:/docker/0123456789abcdef\n");
  group1("cpu", "50000");
  EXPECT_EQ(found(), Found{0.5});
}

TEST_F(CpuQuotaTest, BothVersionsAtOnce) {
  write("proc/self/cgroup", "1:cpu:/one\n0::/two\n");
  group1("cpu/one", "400000");
  write("sys/fs/cgroup/unified/two/cpu.max", "600000 100000\n");
  EXPECT_EQ(found(), (Found{4, 6}));
}

TEST_F(CpuQuotaTest, WhatMakesNoSenseIsNoQuota) {
  write("proc/self/cgroup", "nonsense\n0::/job\n1:cpu\n");
  write("sys/fs/cgroup/job/cpu.max", "100000 100000\n");
  EXPECT_LE(found().size(), 1u);
  write("proc/self/cgroup", "0::/job\n");
  for (const char* text : {"", "0 100000\n", "100000 0\n", "-5 100000\n", "100000\n", "many\n"}) {
    write("sys/fs/cgroup/job/cpu.max", text);
    EXPECT_EQ(found(), Found{}) << text;
  }
}

TEST_F(CpuQuotaTest, AGroupIsTheSameForAllUnderItAndUnlikeOthers) {
  write("sys/fs/cgroup/job/cpu.max", "400000 100000\n");
  write("sys/fs/cgroup/job/0/cpu.max", "200000 100000\n");
  write("sys/fs/cgroup/job/1/cpu.max", "200000 100000\n");
  write("proc/self/cgroup", "0::/job/0\n");
  const auto first = cpu_quotas(root_);
  write("proc/self/cgroup", "0::/job/1\n");
  const auto second = cpu_quotas(root_);
  ASSERT_EQ(first.size(), 2u);
  ASSERT_EQ(second.size(), 2u);
  EXPECT_NE(first[0].group, second[0].group);
  EXPECT_EQ(first[1].group, second[1].group);
  EXPECT_NE(first[0].group, first[1].group);
}

}  // namespace
}  // namespace lockstep::trainer

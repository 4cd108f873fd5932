#include "datasets/describe.hpp"

#include <gtest/gtest.h>

#include "datasets/writer.hpp"
#include "datasets_files.hpp"

namespace lockstep::datasets {
namespace {

class Describe : public FolderTest {};

TEST_F(Describe, SaysWhatAClassificationFileHolds) {
  Contents contents;
  contents.x_shape = {1200, 2, 2};
  contents.x = std::vector<std::uint8_t>(4800, 0);
  std::get<0>(contents.x)[7] = 255;
  contents.labels.assign(1200, 1);
  contents.labels[0] = 0;
  contents.classes = 3;
  contents.scale = 1.0 / 255.0;
  contents.source = "made up";
  write_dataset(path("a.h5"), contents);
  const std::string digest = Dataset::read(path("a.h5")).digest();
  EXPECT_EQ(describe(path("a.h5")), "file      " + path("a.h5").string() +
                                        "\n"
                                        "inputs    /x, uint8, 1,200 samples of 2 x 2 = 4 features\n"
                                        "values    0 to 1, mean 0.000208333\n"
                                        "          (stored value * 0.00392157 + 0)\n"
                                        "targets   /y, uint8, 3 classes\n"
                                        "classes     0      1    0.1 %\n"
                                        "            1  1,199   99.9 %\n"
                                        "            2      0    0.0 %\n"
                                        "source    made up\n"
                                        "sha256    " +
                                        digest + "\n");
}

TEST_F(Describe, SaysWhatARegressionFileHolds) {
  Contents contents;
  contents.x_shape = {2, 1};
  contents.x = std::vector<float>{-1, 3};
  contents.targets = {1, 2, 3, 6};
  contents.target_width = 2;
  write_dataset(path("a.h5"), contents);
  const std::string text = describe(path("a.h5"));
  for (const char* part : {"float32, 2 samples of 1 feature\n", "-1 to 3, mean 1\n",
                           "/y, float32, 2 a sample\n", "1 to 6, mean 3\n", "not recorded\n"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST_F(Describe, KnowsFilesWithoutTargetsAndNamesItsErrors) {
  Contents contents;
  contents.x_shape = {2};
  contents.x = std::vector<float>{-1, 3};
  write_dataset(path("a.h5"), contents);
  EXPECT_NE(describe(path("a.h5")).find("targets   none\n"), std::string::npos);
  expect_data_error([this] { describe(path("none.h5")); }, {"none.h5", "no such file"});
}

}  // namespace
}  // namespace lockstep::datasets

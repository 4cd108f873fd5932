#include "datasets/writer.hpp"

#include <gtest/gtest.h>

#include <system_error>

#include "datasets/dataset.hpp"
#include "datasets_files.hpp"

namespace lockstep::datasets {
namespace {

class Writer : public FolderTest {};

Contents two_by_three() {
  Contents contents;
  contents.x_shape = {2, 3};
  contents.x = std::vector<std::uint8_t>{0, 1, 2, 253, 254, 255};
  contents.labels = {4, 0};
  contents.classes = 5;
  contents.scale = 0.5;
  contents.offset = -1.0;
  contents.source = "a test";
  return contents;
}

TEST_F(Writer, WritesLabelsThatReadBack) {
  write_dataset(path("a.h5"), two_by_three());
  const hdf5::File file = hdf5::File::open(path("a.h5"));
  EXPECT_EQ(file.info("x").type_name(), "uint8");
  EXPECT_EQ(file.info("y").type_name(), "uint8");
  EXPECT_EQ(file.read_attribute<std::int64_t>("/", "classes"), 5);

  const Dataset data = Dataset::read(path("a.h5"));
  EXPECT_EQ(data.samples(), 2u);
  EXPECT_EQ(data.classes(), 5u);
  EXPECT_EQ(data.label(0), 4);
  EXPECT_EQ(data.source(), "a test");
  std::vector<float> sample(3);
  data.copy_sample(1, sample.data());
  EXPECT_EQ(sample, (std::vector<float>{125.5f, 126.0f, 126.5f}));
}

TEST_F(Writer, WritesManyClassesAndFloats) {
  Contents contents = two_by_three();
  contents.x = std::vector<float>{0, 1, 2, 3, 4, 5};
  contents.labels = {256, 70000};
  contents.classes = 0;
  write_dataset(path("a.h5"), contents);
  const Dataset data = Dataset::read(path("a.h5"));
  EXPECT_EQ(data.x_type(), "float32");
  EXPECT_EQ(data.y_type(), "int32");
  EXPECT_EQ(data.classes(), 70001u);
}

TEST_F(Writer, WritesRealTargetsAndNone) {
  Contents contents = two_by_three();
  contents.labels.clear();
  contents.classes = 0;
  write_dataset(path("none.h5"), contents);
  EXPECT_FALSE(Dataset::read(path("none.h5"), {}, false).has_targets());

  contents.targets = {1, 2, 3, 4};
  contents.target_width = 2;
  write_dataset(path("two.h5"), contents);
  const Dataset data = Dataset::read(path("two.h5"));
  EXPECT_EQ(data.target_width(), 2u);
  std::vector<float> targets(2);
  data.copy_targets(1, targets.data());
  EXPECT_EQ(targets, (std::vector<float>{3, 4}));
}

TEST_F(Writer, TheSameContentsAreTheSameBytes) {
  write_dataset(path("a.h5"), two_by_three());
  write_dataset(path("b.h5"), two_by_three());
  EXPECT_EQ(read_file(path("a.h5")), read_file(path("b.h5")));
}

TEST_F(Writer, RefusesContentsThatDoNotFitTogether) {
  const auto expect_refused = [this](const auto& change, const std::string& part) {
    Contents contents = two_by_three();
    change(contents);
    expect_data_error([&] { write_dataset(path("a.h5"), contents); }, {"a.h5", part});
  };
  expect_refused([](Contents& c) { c.x_shape = {2, 4}; }, "/x");
  expect_refused([](Contents& c) { c.labels = {1}; }, "/y");
  expect_refused(
      [](Contents& c) {
        c.labels.clear();
        c.targets = {1, 2, 3};
        c.target_width = 2;
      },
      "/y");
  expect_refused([](Contents& c) { c.targets = {1, 2}; }, "both");
  EXPECT_TRUE(listing().empty());
}

TEST_F(Writer, WritesPredictionsOfAClassifier) {
  const std::vector<float> outputs{0.1f, 0.9f, 0.8f, 0.2f, 0.5f, 0.5f};
  const std::vector<std::int32_t> classes{1, 0, 0};
  write_predictions(path("p.h5"), {.samples = 3,
                                   .width = 2,
                                   .outputs = outputs,
                                   .classes = classes,
                                   .source = "net.h5 on data.h5"});
  const hdf5::File file = hdf5::File::open(path("p.h5"));
  EXPECT_EQ(file.members("/"), (std::vector<std::string>{"class", "outputs"}));
  EXPECT_EQ(file.info("outputs").shape, (std::vector<std::size_t>{3, 2}));
  EXPECT_EQ(file.read<float>("outputs"), outputs);
  EXPECT_EQ(file.info("class").type_name(), "int32");
  EXPECT_EQ(file.read<std::int32_t>("class"), classes);
  EXPECT_EQ(file.read_text_attribute("/", "source"), "net.h5 on data.h5");
}

TEST_F(Writer, WritesPredictionsOfARegression) {
  const std::vector<float> outputs{1, 2};
  write_predictions(path("p.h5"),
                    {.samples = 2, .width = 1, .outputs = outputs, .classes = {}, .source = ""});
  EXPECT_EQ(hdf5::File::open(path("p.h5")).members("/"), std::vector<std::string>{"outputs"});
  expect_data_error(
      [&] {
        write_predictions(
            path("q.h5"),
            {.samples = 2, .width = 2, .outputs = outputs, .classes = {}, .source = ""});
      },
      {"q.h5", "/outputs", "2 values given, expected 4"});
}

TEST_F(Writer, SaysWhereItCannotWrite) {
  EXPECT_THROW(write_dataset(path("none/a.h5"), two_by_three()), std::system_error);
}

}  // namespace
}  // namespace lockstep::datasets

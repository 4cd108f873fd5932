#include "datasets/dataset.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <type_traits>

#include "datasets_files.hpp"

namespace lockstep::datasets {
namespace {

using hdf5::File;
using Shape = std::vector<std::size_t>;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class DatasetFile : public FolderTest {
 protected:
  template <typename T>
  void add(const std::string& name, const std::vector<T>& values, const Shape& shape) {
    file_.write<T>(name, values, shape);
  }
  Dataset read(const Names& names = {}, bool targets_required = true) {
    save(file_, path("d.h5"));
    return Dataset::read(path("d.h5"), names, targets_required);
  }
  void expect_error(const std::vector<std::string>& parts, const Names& names = {}) {
    std::vector<std::string> all = parts;
    all.push_back(path("d.h5").string() + ": ");
    expect_data_error([&] { read(names); }, all);
  }
  // Two samples of two features under `name`.
  void add_inputs(const std::string& name = "x") {
    add<float>(name, {1.0f, 2.0f, 3.0f, 4.0f}, {2, 2});
  }

  File file_ = File::create_image("memory");
};

std::vector<float> sample(const Dataset& data, std::size_t row) {
  std::vector<float> out(data.features());
  data.copy_sample(row, out.data());
  return out;
}

TEST_F(DatasetFile, SamplesAreCopiedTogetherAsOneByOne) {
  add<std::uint8_t>("x", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255}, {4, 3});
  add<std::int64_t>("y", {3, 1, 0, 2}, {4});
  const Dataset data = read();
  const std::vector<std::uint32_t> rows = {3, 0, 3}, few = {2}, many = {1, 2, 0, 3, 1};
  for (const auto& upcoming : {std::vector<std::uint32_t>{}, few, many}) {
    std::vector<float> out(3 * 5, -1.0f);
    data.copy_samples(rows, out.data(), 5, upcoming);
    EXPECT_EQ(out, (std::vector<float>{9, 10, 255, -1, -1, 0, 1, 2, -1, -1, 9, 10, 255, -1, -1}));
  }
  std::vector<std::int32_t> labels(3);
  data.copy_labels(rows, labels.data());
  EXPECT_EQ(labels, (std::vector<std::int32_t>{2, 3, 2}));
}

// Of samples shorter than a line, as long, longer, and of several lines.
class DatasetLines : public DatasetFile, public ::testing::WithParamInterface<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Bytes, DatasetLines, ::testing::Values(1, 64, 65, 1000));

TEST_P(DatasetLines, AreThoseOfSamplesAndLabels) {
  const std::size_t bytes = GetParam();
  add<std::uint8_t>("x", std::vector<std::uint8_t>(3 * bytes, 7), {3, bytes});
  add<std::int64_t>("y", {0, 1, 1}, {3});
  const Dataset data = read();
  using Lines = std::vector<std::uintptr_t>;
  const auto list = [&](const std::vector<std::uint32_t>& rows) {
    std::vector<const void*> lines(2 * rows.size() * data.lines_of_sample());
    lines.resize(data.list_lines(rows, lines));
    EXPECT_LE(lines.size(), rows.size() * data.lines_of_sample());
    Lines addresses;
    for (const void* line : lines) addresses.push_back(reinterpret_cast<std::uintptr_t>(line));
    return addresses;
  };
  const std::uintptr_t first_byte = list({0})[0], first_label = list({0}).back();
  for (const std::uint32_t row : {0u, 1u, 2u}) {
    Lines lines = list({row});
    ASSERT_GE(lines.size(), 3u);
    EXPECT_EQ(lines.back(), first_label + row * sizeof(std::int32_t));
    lines.pop_back();
    EXPECT_EQ(lines[0], first_byte + row * bytes);
    EXPECT_EQ(lines[1], lines[0] + bytes - 1);
    // No line left out.
    std::ranges::sort(lines);
    EXPECT_EQ(lines.back() - lines.front(), bytes - 1);
    for (std::size_t i = 1; i < lines.size(); ++i) EXPECT_LE(lines[i] - lines[i - 1], 64u);
  }
  // The ends of all, then what is between, each in the order of the rows.
  const Lines two = list({2}), zero = list({0});
  Lines both(two.begin(), two.begin() + 2);
  both.insert(both.end(), zero.begin(), zero.begin() + 2);
  both.insert(both.end(), two.begin() + 2, two.end());
  both.insert(both.end(), zero.begin() + 2, zero.end());
  EXPECT_EQ(list({2, 0}), both);
}

TEST_F(DatasetFile, ListsNoLinesOfLabelsThatAreNotThere) {
  add<std::uint8_t>("x", {1, 2, 3, 4, 5, 6}, {3, 2});
  add<float>("y", {0.5f, 1.5f, 2.5f}, {3, 1});
  const Dataset data = read();
  std::vector<const void*> lines(2 * data.lines_of_sample());
  EXPECT_EQ(data.list_lines(std::vector<std::uint32_t>{1}, lines), 2u);
}

TEST_F(DatasetFile, HoldsShapesLabelsAndSource) {
  add<std::uint8_t>("x", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255}, {2, 3, 2});
  add<std::int64_t>("y", {3, 1}, {2});
  file_.write_text_attribute("/", "source", "here");
  const Dataset data = read();
  EXPECT_EQ(data.samples(), 2u);
  EXPECT_EQ(data.features(), 6u);
  EXPECT_EQ(data.sample_shape(), (Shape{3, 2}));
  EXPECT_TRUE(data.has_targets() && data.has_classes());
  EXPECT_EQ(data.classes(), 4u);  // highest label + 1
  EXPECT_EQ(data.target_width(), 4u);
  EXPECT_EQ(data.label(0), 3);
  EXPECT_EQ(data.label(1), 1);
  EXPECT_EQ(sample(data, 1), (std::vector<float>{6, 7, 8, 9, 10, 255}));
  EXPECT_EQ(data.path(), path("d.h5"));
  EXPECT_EQ(data.source(), "here");
  EXPECT_EQ(data.x_name(), "/x");
  EXPECT_EQ(data.y_name(), "/y");
  EXPECT_EQ(data.x_type(), "uint8");
  EXPECT_EQ(data.y_type(), "int64");
  EXPECT_EQ(data.scale(), 1.0);
  EXPECT_EQ(data.offset(), 0.0);
}

TEST_F(DatasetFile, ClassesAndScaleComeFromAttributes) {
  add<std::int16_t>("x", {-3, 7}, {2});
  add<std::uint8_t>("y", {0, 1}, {2});
  file_.write_attribute<float>("/", "classes", 10.0f);
  file_.write_attribute<double>("/", "scale", 0.1);
  file_.write_attribute<std::int32_t>("/", "offset", 2);
  const Dataset data = read();
  EXPECT_EQ(data.classes(), 10u);
  EXPECT_EQ(data.features(), 1u);
  EXPECT_TRUE(data.sample_shape().empty());
  EXPECT_EQ(sample(data, 0)[0], static_cast<float>(-3 * 0.1 + 2.0));
  EXPECT_EQ(sample(data, 1)[0], static_cast<float>(7 * 0.1 + 2.0));
}

TEST_F(DatasetFile, ASourceThatIsNoTextIsPassedOver) {
  add_inputs();
  add<std::uint8_t>("y", {0, 1}, {2});
  file_.write_attribute<std::int32_t>("/", "source", 2);
  EXPECT_EQ(read().source(), "");
}

// Every stored type gives the rounded double, with one rule for all: bit by bit.
TEST_F(DatasetFile, EveryTypeIsScaledAlike) {
  const auto expect_scaled = [this]<typename T>(T) {
    file_ = File::create_image("memory");
    std::vector<T> values(256);
    for (std::size_t i = 0; i < 256; ++i) values[i] = static_cast<T>(i);
    values[255] = std::numeric_limits<T>::max();
    if (std::is_floating_point_v<T>) values[255] = static_cast<T>(1e30);
    add<T>("x", values, {4, 64});
    add<float>("y", {1, 2, 3, 4}, {4});
    file_.write_attribute<double>("/", "scale", 1.0 / 255.0);
    file_.write_attribute<double>("/", "offset", -0.3);
    const Dataset data = read();
    for (std::size_t row = 0; row < 4; ++row) {
      const std::vector<float> out = sample(data, row);
      for (std::size_t i = 0; i < 64; ++i) {
        const double product = static_cast<double>(values[row * 64 + i]) * (1.0 / 255.0);
        EXPECT_EQ(out[i], static_cast<float>(product + -0.3));
      }
    }
  };
  expect_scaled(std::uint8_t{});
  expect_scaled(std::int8_t{});
  expect_scaled(std::uint16_t{});
  expect_scaled(std::int16_t{});
  expect_scaled(std::uint32_t{});
  expect_scaled(std::int32_t{});
  expect_scaled(std::uint64_t{});
  expect_scaled(std::int64_t{});
  expect_scaled(float{});
  expect_scaled(double{});
}

TEST_F(DatasetFile, RealTargetsHaveAWidth) {
  add_inputs();
  add<double>("y", {1, 2, 3, 4, 5, 6}, {2, 3});
  const Dataset data = read();
  EXPECT_FALSE(data.has_classes());
  EXPECT_TRUE(data.has_targets());
  EXPECT_EQ(data.classes(), 0u);
  EXPECT_EQ(data.target_width(), 3u);
  std::vector<float> out(3);
  data.copy_targets(1, out.data());
  EXPECT_EQ(out, (std::vector<float>{4, 5, 6}));
}

TEST_F(DatasetFile, OneDimensionOfFloatsIsOneTarget) {
  add_inputs();
  add<float>("y", {0.5f, 1.5f}, {2});
  EXPECT_EQ(read().target_width(), 1u);
}

TEST_F(DatasetFile, TwoDimensionsOfIntegersAreRealTargets) {
  add_inputs();
  add<std::uint8_t>("y", {0, 1, 1, 0}, {2, 2});
  const Dataset data = read();
  EXPECT_FALSE(data.has_classes());
  EXPECT_EQ(data.target_width(), 2u);
}

TEST_F(DatasetFile, RecognisesFourPairsOfNames) {
  for (const auto& [x, y] :
       {std::pair{"x", "y"}, {"data", "label"}, {"X", "y"}, {"features", "targets"}}) {
    file_ = File::create_image("memory");
    add_inputs(x);
    add<std::uint8_t>(y, {0, 1}, {2});
    const Dataset data = read();
    EXPECT_EQ(data.x_name(), std::string("/") + x);
    EXPECT_EQ(data.y_name(), std::string("/") + y);
  }
}

TEST_F(DatasetFile, TakesTheNamesThatItIsGiven) {
  add_inputs();
  add_inputs("train/images");
  add<std::uint8_t>("y", {0, 1}, {2});
  add<std::uint8_t>("train/labels", {0, 5}, {2});
  EXPECT_EQ(read({"train/images", "/train/labels"}).classes(), 6u);
  EXPECT_EQ(read({"train/images", ""}).classes(), 2u);
  EXPECT_EQ(read({"", "train/labels"}).classes(), 6u);
}

TEST_F(DatasetFile, TargetsMayBeAbsentWhereNoneAreRequired) {
  add_inputs("data");
  add<std::uint8_t>("y", {0, 1}, {2});  // belongs to another pair
  const Dataset data = read({}, false);
  EXPECT_FALSE(data.has_targets() || data.has_classes());
  EXPECT_EQ(data.target_width(), 0u);
  EXPECT_EQ(data.y_name(), "");
  EXPECT_FALSE(read({"data", "label"}, false).has_targets());
  EXPECT_TRUE(read({"data", "y"}, false).has_targets());
}

TEST_F(DatasetFile, TheDigestIsOfWhatTrainingSees) {
  const auto digest = [this](std::uint8_t last, std::uint8_t label, const Shape& shape,
                             double scale, const std::string& source) {
    file_ = File::create_image("memory");
    add<std::uint8_t>("x", {1, 2, 3, last}, shape);
    add<std::uint8_t>("y", {0, label}, {2});
    file_.write_attribute<double>("/", "scale", scale);
    file_.write_text_attribute("/", "source", source);
    return read().digest();
  };
  const std::string first = digest(4, 1, {2, 2}, 1.0, "a");
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(digest(4, 1, {2, 2}, 1.0, "b"), first);
  EXPECT_NE(digest(5, 1, {2, 2}, 1.0, "a"), first);
  EXPECT_NE(digest(4, 2, {2, 2}, 1.0, "a"), first);
  EXPECT_NE(digest(4, 1, {2, 2, 1}, 1.0, "a"), first);
  EXPECT_NE(digest(4, 1, {2, 2}, 0.5, "a"), first);
  file_ = File::create_image("memory");
  add<std::int8_t>("x", {1, 2, 3, 4}, {2, 2});
  add<std::uint8_t>("y", {0, 1}, {2});
  EXPECT_NE(read().digest(), first);
}

TEST_F(DatasetFile, ManyThreadsReadAtOnce) {
  constexpr std::size_t kRows = 500;
  std::vector<std::uint8_t> values(kRows * 7);
  std::iota(values.begin(), values.end(), std::uint8_t{0});
  add<std::uint8_t>("x", values, {kRows, 7});
  add<std::uint8_t>("y", std::vector<std::uint8_t>(kRows, 0), {kRows});
  const Dataset data = read();
  std::vector<std::thread> threads;
  std::vector<std::string> digests(4);
  for (std::size_t t = 0; t < digests.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t row = 0; row < kRows; ++row) {
        EXPECT_EQ(sample(data, row)[3], static_cast<float>(values[row * 7 + 3]));
      }
      digests[t] = data.digest();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& digest : digests) EXPECT_EQ(digest, data.digest());
}

TEST_F(DatasetFile, AMissingFileOrOneThatIsNotHdf5) {
  expect_data_error([this] { Dataset::read(path("none.h5")); },
                    {path("none.h5").string() + ": no such file"});
  write_file(path("a.csv"), "1,2,3\n");
  expect_data_error([this] { Dataset::read(path("a.csv")); }, {"is not an HDF5 file (6 bytes)"});
}

TEST_F(DatasetFile, ATruncatedFile) {
  add<float>("x", std::vector<float>(20000), {200, 100});
  add<std::uint8_t>("y", std::vector<std::uint8_t>(200), {200});
  const auto image = file_.image();
  for (const std::size_t size : {image.size() / 10, image.size() / 2, image.size() - 1}) {
    write_file_atomically(path("d.h5"), std::span(image).first(size));
    expect_data_error([this] { Dataset::read(path("d.h5")); }, {"d.h5: is truncated or damaged"});
  }
}

TEST_F(DatasetFile, AbsentInputsOrTargets) {
  add<std::uint8_t>("images", {1, 2, 3, 4}, {2, 2});
  file_.create_group("meta");
  expect_error({"no inputs under a recognised name", "x and y, data and label, X and y",
                "features and targets", "/images (2 x 2 uint8), /meta (group)"});
  expect_error({"/pictures: no such dataset", "/images (2 x 2 uint8)"}, {"pictures", ""});
  expect_error({"/labels: no such dataset", "/images"}, {"images", "labels"});
  expect_error({"no targets that go with /images", "data and label"}, {"images", ""});
  add_inputs("data");
  add<std::uint8_t>("y", {0, 1}, {2});
  expect_error({"no targets that go with /data"});
}

TEST_F(DatasetFile, AnEmptyFile) {
  expect_error({"the file holds nothing"});
}

TEST_F(DatasetFile, EmptyInputs) {
  add<float>("x", {}, {0, 5});
  add<std::uint8_t>("y", {}, {0});
  expect_error({"/x: is empty (0 x 5), expected at least one sample and one feature"});
  file_ = File::create_image("memory");
  add<float>("x", {}, {5, 0});
  add<std::uint8_t>("y", std::vector<std::uint8_t>(5), {5});
  expect_error({"/x: is empty (5 x 0)"});
}

TEST_F(DatasetFile, WrongRanks) {
  file_.write_scalar<float>("x", 1.0f);
  add<float>("y", std::vector<float>(8), {2, 2, 2});
  expect_error({"/x: is a scalar, expected samples x features"});
  add_inputs("data");
  expect_error({"/y: has the shape 2 x 2 x 2, expected samples or samples x targets"},
               {"data", "y"});
  file_.write_scalar<float>("label", 1.0f);
  expect_error({"/label: has the shape scalar"}, {"data", "label"});
  add<float>("none", {}, {2, 0});
  expect_error({"/none: is empty, expected at least one target"}, {"data", "none"});
}

TEST_F(DatasetFile, WrongTypes) {
  add_inputs();
  file_.write_text("y", "cat");
  expect_error({"/y: holds text, expected integers or floats"});
}

TEST_F(DatasetFile, DifferentNumbersOfSamples) {
  add_inputs();
  add<std::uint8_t>("y", {0, 1, 0}, {3});
  expect_error({"/y: has 3 samples, expected 2 as in /x"});
}

TEST_F(DatasetFile, LabelsOutOfRange) {
  add_inputs();
  add<std::int32_t>("y", {0, -1}, {2});
  expect_error({"/y: label -1 in row 1; expected 0 to 2147483646"});
  add<std::uint64_t>("large", {0, std::numeric_limits<std::uint64_t>::max()}, {2});
  expect_error({"/large: label 9223372036854775807 in row 1"}, {"x", "large"});
  add<std::uint8_t>("ten", {10, 3}, {2});
  file_.write_attribute<std::int64_t>("/", "classes", 10);
  expect_error({"/ten: label 10 in row 0; expected 0 to 9 (attribute classes is 10)"},
               {"x", "ten"});
}

TEST_F(DatasetFile, WrongAttributes) {
  const auto expect_refused = [this](const std::string& attribute, double value,
                                     const std::string& part) {
    file_ = File::create_image("memory");
    add_inputs();
    add<std::uint8_t>("y", {0, 1}, {2});
    file_.write_attribute<double>("/", attribute, value);
    expect_error({"attribute " + attribute, part});
  };
  expect_refused("classes", 0, "is 0, expected an integer from 1");
  expect_refused("classes", -3, "is -3");
  expect_refused("classes", 2.5, "is 2.5");
  expect_refused("scale", 0, "is 0");
  expect_refused("scale", kNaN, "expected a finite number");
  expect_refused("offset", kInfinity, "expected a finite number");
  file_ = File::create_image("memory");
  add_inputs();
  add<std::uint8_t>("y", {0, 1}, {2});
  file_.write_text_attribute("/", "classes", "cat, dog");
  expect_error({"attribute classes: is text (scalar), expected one number"});
}

TEST_F(DatasetFile, InputsThatAreNotFinite) {
  add<float>("x", {1, 2, 3, kNaN, 5, 6}, {2, 3});
  add<std::uint8_t>("y", {0, 1}, {2});
  expect_error({"/x: NaN in row 1, column 0; expected finite numbers"});
  add<double>("inf", {1, 2, 3, 4, -std::numeric_limits<double>::infinity(), 6}, {2, 3});
  expect_error({"/inf: infinity in row 1, column 1"}, {"inf", "y"});
  add<double>("large", {1, 2, 1e300, 4, 5, 6}, {2, 3});
  expect_error({"/large: 1e+300 (infinity as float32) in row 0, column 2"}, {"large", "y"});
  add<std::uint8_t>("scaled", {0, 255}, {2, 1});
  file_.write_attribute<double>("/", "scale", 1e37);
  expect_error({"/scaled: 2.55e+39 (infinity as float32) in row 1, column 0"}, {"scaled", "y"});
}

TEST_F(DatasetFile, TargetsThatAreNotFinite) {
  add_inputs();
  add<float>("y", {1, 2, 3, kNaN}, {2, 2});
  expect_error({"/y: NaN in row 1, column 1; expected finite numbers"});
  add<double>("large", {1, 1e300}, {2});
  expect_error({"/large: infinity in row 1, column 0", "(as float32)"}, {"x", "large"});
}

}  // namespace
}  // namespace lockstep::datasets

#include "datasets/idx.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <numeric>

#include "datasets/dataset.hpp"
#include "datasets_files.hpp"

namespace lockstep::datasets {
namespace {

class Idx : public FolderTest {
 protected:
  // Three images of 2 x 4 and their labels.
  void SetUp() override {
    std::iota(pixels_.begin(), pixels_.end(), '\0');
    write_file(path("images"), idx(8, {3, 2, 4}, pixels_));
    write_file(path("labels"), idx(8, {3}, labels_));
  }

  static std::string idx(char type, const std::vector<std::uint32_t>& shape,
                         const std::string& values) {
    std::string text{'\0', '\0', type, static_cast<char>(shape.size())};
    for (const std::uint32_t dimension : shape) {
      for (int shift = 24; shift >= 0; shift -= 8) {
        text += static_cast<char>(static_cast<std::uint8_t>(dimension >> shift));
      }
    }
    return text + values;
  }

  void write_gzip(const std::string& name, const std::string& text) {
    gzFile file = ::gzopen(path(name).c_str(), "wb9");
    ASSERT_EQ(::gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
              static_cast<int>(text.size()));
    ASSERT_EQ(::gzclose(file), Z_OK);
  }

  void expect_images_error(const std::string& content, const std::string& part) {
    write_file(path("bad"), content);
    expect_data_error([this] { read_idx(path("bad"), path("labels")); },
                      {path("bad").string() + ": ", part});
  }

  std::string pixels_ = std::string(24, '\0');
  std::string labels_ = {'\2', '\0', '\6'};
};

TEST_F(Idx, ReadsImagesAndLabels) {
  const Contents contents = read_idx(path("images"), path("labels"));
  EXPECT_EQ(contents.x_shape, (std::vector<std::size_t>{3, 2, 4}));
  std::vector<std::uint8_t> expected(24);
  std::iota(expected.begin(), expected.end(), std::uint8_t{0});
  EXPECT_EQ(std::get<0>(contents.x), expected);
  EXPECT_EQ(contents.labels, (std::vector<std::int32_t>{2, 0, 6}));
  EXPECT_EQ(contents.classes, 7u);
  EXPECT_EQ(contents.scale, 1.0 / 255.0);
  EXPECT_EQ(contents.offset, 0.0);
  EXPECT_EQ(contents.source, "IDX files images and labels");
}

TEST_F(Idx, BecomesADatasetFile) {
  write_dataset(path("d.h5"), read_idx(path("images"), path("labels")));
  const Dataset data = Dataset::read(path("d.h5"));
  EXPECT_EQ(data.sample_shape(), (std::vector<std::size_t>{2, 4}));
  EXPECT_EQ(data.label(2), 6);
  std::vector<float> sample(8);
  data.copy_sample(2, sample.data());
  EXPECT_EQ(sample[7], static_cast<float>(23.0 * (1.0 / 255.0)));
}

TEST_F(Idx, CompressedFilesAreThePlainOnes) {
  write_gzip("images.gz", read_file(path("images")));
  write_gzip("labels.gz", read_file(path("labels")));
  const Contents plain = read_idx(path("images"), path("labels"));
  const Contents compressed = read_idx(path("images.gz"), path("labels.gz"));
  EXPECT_EQ(compressed.x, plain.x);
  EXPECT_EQ(compressed.labels, plain.labels);
}

TEST_F(Idx, TheBestCompressionIsStillRead) {
  write_gzip("zeros", idx(8, {3, 1000, 1000}, std::string(3000000, '\0')));
  EXPECT_EQ(std::get<0>(read_idx(path("zeros"), path("labels")).x).size(), 3000000u);
}

TEST_F(Idx, EveryTruncationIsAnError) {
  const std::string plain = read_file(path("images"));
  write_gzip("images.gz", plain);
  const std::string compressed = read_file(path("images.gz"));
  for (std::size_t size = 0; size < plain.size(); ++size) {
    expect_images_error(plain.substr(0, size), "");
  }
  for (std::size_t size = 0; size < compressed.size(); ++size) {
    expect_images_error(compressed.substr(0, size), "");
  }
  expect_images_error(plain.substr(0, 3), "ends within the header, 3 of 4 bytes");
  expect_images_error(plain.substr(0, plain.size() - 1), "ends within the values, 23 of 24 bytes");
  expect_images_error(compressed.substr(0, compressed.size() - 1), "truncated or damaged");
}

TEST_F(Idx, DamageInACompressedFileIsAnError) {
  write_gzip("images.gz", read_file(path("images")));
  std::string compressed = read_file(path("images.gz"));
  compressed[compressed.size() - 6] ^= 1;  // of the checksum
  expect_images_error(compressed, "truncated or damaged");
}

TEST_F(Idx, MoreThanTheHeaderSaysIsAnError) {
  expect_images_error(read_file(path("images")) + "x", "goes on after the 24 values");
}

TEST_F(Idx, OtherFormatsTypesAndRanksAreErrors) {
  expect_images_error(std::string("PNG") + read_file(path("images")),
                      "starts with 50 4e, expected 00 00");
  expect_images_error(idx(0x0D, {3, 2, 1}, pixels_), "holds float32, expected uint8");
  expect_images_error(idx(0x77, {3, 8}, pixels_), "an unknown type (0x77)");
  expect_images_error(idx(8, {24}, pixels_), "has 1 dimension, expected images of 2 or more");
  expect_images_error(idx(8, {0, 2, 4}, ""), "is empty (0 x 2 x 4)");
  expect_images_error("", "ends within the header");
}

TEST_F(Idx, ExchangedFilesAreAnError) {
  expect_data_error([this] { read_idx(path("labels"), path("images")); },
                    {"labels: has 1 dimension", "exchanged?"});
}

TEST_F(Idx, AbsurdDimensionsTakeNoMemory) {
  const std::uint32_t most = 0xffffffffu;
  expect_images_error(idx(8, {most, most, most}, pixels_), "more values than can be counted");
  expect_images_error(idx(8, {most, most}, pixels_), "more than a file of 36 bytes can hold");
  write_gzip("absurd.gz", idx(8, {most, most}, pixels_));
  expect_data_error([this] { read_idx(path("absurd.gz"), path("labels")); },
                    {"absurd.gz", "more than a compressed file of"});
}

TEST_F(Idx, DifferentNumbersOfImagesAndLabelsAreAnError) {
  write_file(path("two"), idx(8, {2}, "ab"));
  expect_data_error([this] { read_idx(path("images"), path("two")); },
                    {path("two").string() + ": has 2 labels, expected 3 as in", "images"});
}

TEST_F(Idx, MissingFilesAreNamed) {
  expect_data_error([this] { read_idx(path("none"), path("labels")); }, {"none: no such file"});
  expect_data_error([this] { read_idx(path("images"), path("none")); }, {"none: no such file"});
  expect_data_error([this] { read_idx(path("images"), path("")); }, {"not a regular file"});
}

}  // namespace
}  // namespace lockstep::datasets

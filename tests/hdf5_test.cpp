#include "datasets/hdf5.hpp"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/wait.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "datasets_files.hpp"

namespace lockstep::datasets::hdf5 {
namespace {

class Hdf5 : public FolderTest {};

using Shape = std::vector<std::size_t>;

File reopened(const File& file) {
  return File::open_image(file.image(), file.name());
}

template <Number T>
void expect_round_trip() {
  const std::vector<T> values{std::numeric_limits<T>::lowest(), T{0}, T{1},
                              std::numeric_limits<T>::max(),    T{2}, T{3}};
  File file = File::create_image("memory");
  file.write<T>("a", values, std::array<std::size_t, 2>{2, 3});
  file.write_scalar<T>("group/one", values[3]);
  file.write_attribute<T>("group", "number", values[0]);
  const File again = reopened(file);
  EXPECT_EQ(again.info("a").shape, (Shape{2, 3}));
  EXPECT_EQ(again.info("a").bytes, sizeof(T));
  EXPECT_EQ(again.read<T>("a"), values);
  EXPECT_EQ(again.info("group/one").shape, Shape{});
  EXPECT_EQ(again.read_scalar<T>("group/one"), values[3]);
  EXPECT_EQ(again.read_attribute<T>("group", "number"), values[0]);
}

TEST_F(Hdf5, NumbersReadBackAsWritten) {
  expect_round_trip<std::uint8_t>();
  expect_round_trip<std::int8_t>();
  expect_round_trip<std::uint16_t>();
  expect_round_trip<std::int16_t>();
  expect_round_trip<std::uint32_t>();
  expect_round_trip<std::int32_t>();
  expect_round_trip<std::uint64_t>();
  expect_round_trip<std::int64_t>();
  expect_round_trip<float>();
  expect_round_trip<double>();
}

TEST_F(Hdf5, FloatsKeepTheirBits) {
  const std::vector<float> values{-0.0f, std::numeric_limits<float>::denorm_min(),
                                  std::bit_cast<float>(0x7fc12345u),
                                  -std::numeric_limits<float>::infinity()};
  File file = File::create_image("memory");
  file.write<float>("a", values, std::array{values.size()});
  const auto again = reopened(file).read<float>("a");
  ASSERT_EQ(again.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(again[i]), std::bit_cast<std::uint32_t>(values[i]));
  }
}

TEST_F(Hdf5, TextsReadBackAsWritten) {
  File file = File::create_image("memory");
  const std::string long_text(300000, 'z');  // past the size limit of an attribute's header
  file.write_text("state/text", "ten = 10\nname = \"ü\"\n");
  file.write_text("empty", "");
  file.write_text("long", long_text);
  file.write_text_attribute("/", "source", "here");
  file.write_text_attribute("state", "empty", "");
  const File again = reopened(file);
  EXPECT_EQ(again.read_text("state/text"), "ten = 10\nname = \"ü\"\n");
  EXPECT_EQ(again.read_text("empty"), "");
  EXPECT_EQ(again.read_text("long"), long_text);
  EXPECT_EQ(again.read_text_attribute("/", "source"), "here");
  EXPECT_EQ(again.read_text_attribute("state", "empty"), "");
  EXPECT_EQ(again.info("state/text").kind, Info::Kind::text);
  EXPECT_EQ(again.info("state/text").type_name(), "text");
}

TEST_F(Hdf5, EmptyDatasetsKeepTheirShape) {
  File file = File::create_image("memory");
  file.write<float>("none", {}, std::array<std::size_t, 2>{0, 5});
  const File again = reopened(file);
  EXPECT_EQ(again.info("none").shape, (Shape{0, 5}));
  EXPECT_TRUE(again.read<float>("none").empty());
}

TEST_F(Hdf5, MembersComeInOrderOfNameOrCreation) {
  File file = File::create_image("memory");
  for (const char* name : {"2.weight", "10.weight", "0.bias"}) {
    file.write_scalar<float>(std::string("a/b/") + name, 1.0f);
  }
  file.create_group("Z");
  file.create_group("Z");
  file.create_group("B/c");
  const File again = reopened(file);
  using Names = std::vector<std::string>;
  EXPECT_EQ(again.members("a/b"), (Names{"0.bias", "10.weight", "2.weight"}));
  EXPECT_EQ(again.members("/a/b/", Order::creation), (Names{"2.weight", "10.weight", "0.bias"}));
  EXPECT_EQ(again.members("", Order::creation), (Names{"a", "Z", "B"}));
  EXPECT_EQ(again.members("/"), (Names{"B", "Z", "a"}));
  EXPECT_TRUE(again.members("Z").empty());
}

TEST_F(Hdf5, KnowsWhatIsThere) {
  File file = File::create_image("memory");
  file.write_scalar<float>("g/one", 1.0f);
  EXPECT_TRUE(file.has("/") && file.has("g") && file.has("/g/one"));
  EXPECT_TRUE(file.is_group("g") && file.is_dataset("g/one"));
  EXPECT_FALSE(file.is_dataset("g") || file.is_group("g/one"));
  for (const char* path : {"x", "g/x", "x/y/z", "g/one/x"}) EXPECT_FALSE(file.has(path)) << path;
  EXPECT_FALSE(file.has_attribute("/", "a") || file.has_attribute("x", "a"));
  file.write_attribute<float>("/", "a", 1.0f);
  EXPECT_TRUE(file.has_attribute("/", "a"));
}

TEST_F(Hdf5, TheSameCallsGiveTheSameBytes) {
  const auto image = [] {
    File file = File::create_image("memory");
    file.write<double>("g/a", std::vector<double>{1, 2, 3}, std::array<std::size_t, 1>{3});
    file.write_text("text", "some text");
    file.write_text_attribute("g", "t", "more");
    file.write_attribute<std::uint64_t>("g/a", "n", 5);
    return file.image();
  };
  EXPECT_EQ(image(), image());
}

TEST_F(Hdf5, AnImageIsTheSameHoweverItsMemoryGrew) {
  const auto image = [](std::size_t growth, std::size_t room) {
    File file = File::create_image("memory", growth);
    const std::vector<float> values(50000, 1.5F);
    file.write<float>("a", values, std::array<std::size_t, 1>{values.size()});
    file.write<float>("b", values, std::array<std::size_t, 1>{values.size()});
    auto bytes = file.image(room);
    EXPECT_GE(bytes.capacity(), bytes.size() + room);
    return bytes;
  };
  const auto once = image(std::size_t{1} << 20, 0);
  EXPECT_EQ(image(4096, 0), once);
  EXPECT_EQ(image(4096, 100), once);
}

TEST_F(Hdf5, FilesOnDiskReadAsTheirImages) {
  File file = File::create_image("memory");
  std::vector<std::uint8_t> values(100000);
  std::iota(values.begin(), values.end(), std::uint8_t{0});
  file.write<std::uint8_t>("a", values, std::array{values.size()});
  save(file, path("a.h5"));
  // No lock keeps out a second reader, of this process or another.
  const File first = File::open(path("a.h5"));
  const File second = File::open(path("a.h5"));
  EXPECT_EQ(first.read<std::uint8_t>("a"), values);
  EXPECT_EQ(second.read<std::uint8_t>("a"), values);
  EXPECT_EQ(first.name(), path("a.h5").string());
  // Nor a file that may only be read, nor its replacement.
  std::filesystem::permissions(path("a.h5"), std::filesystem::perms::owner_read);
  const File third = File::open(path("a.h5"));
  write_file_atomically(path("a.h5"), bytes_of("something else"));
  EXPECT_EQ(third.read<std::uint8_t>("a"), values);
}

TEST_F(Hdf5, NothingIsWrittenToDiskOrPrinted) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(path(""));
  ::testing::internal::CaptureStderr();
  {
    File file = File::create_image("memory.h5");
    File other = File::create_image("memory.h5");  // two of one name at a time
    file.write_scalar<float>("a", 1.0f);
    other.write_scalar<float>("a", 2.0f);
    EXPECT_EQ(reopened(file).read_scalar<float>("a"), 1.0f);
    EXPECT_NE(data_error([&] { file.write_scalar<float>("a", 3.0f); }), "");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  std::filesystem::current_path(before);
  EXPECT_TRUE(listing().empty());
}

TEST_F(Hdf5, AMovedFromFileIsNull) {
  File file = File::create_image("memory");
  file.write_scalar<float>("a", 1.0f);
  File moved = std::move(file);
  EXPECT_FALSE(file);  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(moved);
  file = std::move(moved);
  EXPECT_EQ(file.read_scalar<float>("a"), 1.0f);
}

TEST_F(Hdf5, ErrorsOfFilesNameTheFile) {
  expect_data_error([this] { File::open(path("a.h5")); }, {"a.h5: no such file"});
  expect_data_error([this] { File::open(path("")); }, {"not a regular file"});
  write_file(path("empty"), "");
  expect_data_error([this] { File::open(path("empty")); }, {"is not an HDF5 file (0 bytes)"});
  write_file(path("text"), std::string(5000, 'x'));
  expect_data_error([this] { File::open(path("text")); }, {"is not an HDF5 file (5000 bytes)"});
  expect_data_error([] { File::open_image(bytes_of("text"), "image"); }, {"image: is not an HDF5"});

  File file = File::create_image("memory");
  file.write<float>("a", std::vector<float>(5000), std::array<std::size_t, 1>{5000});
  const auto image = file.image();
  for (const std::size_t size : {std::size_t{10}, std::size_t{500}, image.size() - 1}) {
    write_file_atomically(path("cut"), std::span(image).first(size));
    expect_data_error([this] { File::open(path("cut")).read<float>("a"); }, {"cut: is truncated"});
  }
}

TEST_F(Hdf5, ErrorsOfObjectsNameThem) {
  File file = File::create_image("f.h5");
  file.write<float>("g/a", std::vector<float>{1, 2}, std::array<std::size_t, 1>{2});
  file.write_text("text", "t");
  file.write_attribute<float>("g", "n", 1.0f);
  file.write_text_attribute("/", "t", "t");
  expect_data_error([&] { file.read<float>("g/b"); }, {"f.h5: /g/b: no such dataset"});
  expect_data_error([&] { file.read<float>("g"); }, {"/g: is a group, expected a dataset"});
  expect_data_error([&] { file.read<float>("text"); }, {"/text: holds text, expected numbers"});
  expect_data_error([&] { file.read_text("g/a"); }, {"/g/a: holds no text"});
  expect_data_error([&] { file.read_scalar<float>("g/a"); },
                    {"/g/a", "shape 2, expected 1 element"});
  std::vector<float> three(3);
  expect_data_error([&] { file.read_into<float>("g/a", std::span(three)); },
                    {"shape 2, expected 3 elements"});
  expect_data_error([&] { file.members("g/a"); }, {"/g/a: no such group"});
  expect_data_error([&] { file.create_group("g/a"); }, {"/g/a: is a dataset, expected a group"});
  expect_data_error([&] { file.write_scalar<float>("g/a/b", 1.0f); }, {"/g/a"});
  expect_data_error([&] { file.write_scalar<float>("g/a", 1.0f); }, {"/g/a", "already exists"});
  expect_data_error(
      [&] {
        file.write<float>("c", three, std::array<std::size_t, 2>{2, 2});
      },
      {"/c: 3 values given for the shape 2 x 2"});
  expect_data_error([&] { file.write_text("n", std::string("a\0b", 3)); }, {"/n", "NUL"});
  expect_data_error([&] { file.read_attribute<float>("g", "m"); },
                    {"/g: attribute m: no such attribute"});
  expect_data_error([&] { file.read_attribute<float>("/", "t"); },
                    {"attribute t: is text (scalar), expected one number"});
  expect_data_error([&] { file.read_text_attribute("g", "n"); }, {"attribute n: holds no text"});
  expect_data_error([&] { file.write_attribute<float>("g", "n", 2.0f); }, {"attribute n"});
  expect_data_error([&] { file.write_attribute<float>("none", "n", 2.0f); }, {"/none"});
}

// What other programs write: h5py's bool and half, texts of fixed length, big-endian, checksums.
class Foreign : public FolderTest {
 protected:
  void SetUp() override {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    id_ = H5Fcreate(path("f.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ASSERT_GE(id_, 0);
  }

  void add(const char* name, hid_t stored, hid_t given, const void* values,
           const std::vector<hsize_t>& shape, hid_t properties = H5P_DEFAULT) {
    const hid_t space =
        shape.empty() ? H5Screate(H5S_SCALAR)
                      : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t set = H5Dcreate2(id_, name, stored, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    ASSERT_GE(set, 0);
    ASSERT_GE(H5Dwrite(set, given, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    H5Dclose(set);
    H5Sclose(space);
  }

  File finish() {
    H5Fclose(id_);
    return File::open(path("f.h5"));
  }

  hid_t id_ = -1;
};

TEST_F(Foreign, EnumerationsAreTheirIntegers) {
  const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
  std::int8_t value = 0;
  H5Tenum_insert(type, "FALSE", &value);
  value = 1;
  H5Tenum_insert(type, "TRUE", &value);
  const std::array<std::int8_t, 3> values{0, 1, 1};
  add("bool", type, type, values.data(), {3});
  const File file = finish();
  EXPECT_EQ(file.info("bool").type_name(), "int8");
  EXPECT_EQ(file.read<std::int64_t>("bool"), (std::vector<std::int64_t>{0, 1, 1}));
  EXPECT_EQ(file.read<std::int8_t>("bool"), (std::vector<std::int8_t>{0, 1, 1}));
  EXPECT_EQ(file.read<float>("bool"), (std::vector<float>{0, 1, 1}));
  H5Tclose(type);
}

TEST_F(Foreign, OtherWidthsAndByteOrdersAreConverted) {
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  const std::array<float, 3> values{-1.5f, 0.25f, 1024.0f};
  add("half", half, H5T_NATIVE_FLOAT, values.data(), {3});
  add("big", H5T_IEEE_F64BE, H5T_NATIVE_FLOAT, values.data(), {3});
  add("integer", H5T_STD_I16BE, H5T_NATIVE_FLOAT, values.data(), {3});
  const File file = finish();
  EXPECT_EQ(file.info("half").type_name(), "float16");
  EXPECT_EQ(file.read<float>("half"), std::vector<float>(values.begin(), values.end()));
  EXPECT_EQ(file.info("big").type_name(), "float64");
  EXPECT_EQ(file.read<float>("big"), std::vector<float>(values.begin(), values.end()));
  EXPECT_EQ(file.info("integer").type_name(), "int16");
  EXPECT_EQ(file.read<std::int32_t>("integer"), (std::vector<std::int32_t>{-1, 0, 1024}));
  H5Tclose(half);
}

TEST_F(Foreign, TextsOfFixedLengthLoseTheirPadding) {
  for (const auto& [name, padding] : {std::pair{"nul", H5T_STR_NULLPAD},
                                      {"space", H5T_STR_SPACEPAD},
                                      {"end", H5T_STR_NULLTERM}}) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 8);
    H5Tset_strpad(type, padding);
    const char* text = padding == H5T_STR_SPACEPAD ? "abc     " : "abc\0\0\0\0\0";
    add(name, type, type, text, {});
    H5Tclose(type);
  }
  const File file = finish();
  for (const char* name : {"nul", "space", "end"}) EXPECT_EQ(file.read_text(name), "abc") << name;
}

TEST_F(Foreign, GroupsWithoutOrderSaySo) {
  const float one = 1.0f;
  add("b", H5T_NATIVE_FLOAT, H5T_NATIVE_FLOAT, &one, {});
  const File file = finish();
  EXPECT_EQ(file.members("/"), std::vector<std::string>{"b"});
  expect_data_error([&] { file.members("/", Order::creation); }, {"f.h5: /: the order"});
}

TEST_F(Foreign, ALinkToNothingIsNotThere) {
  H5Lcreate_soft("/nowhere", id_, "soft", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("none.h5", "/x", id_, "external", H5P_DEFAULT, H5P_DEFAULT);
  const File file = finish();
  EXPECT_FALSE(file.has("soft") || file.has("external") || file.has("soft/deeper"));
  expect_data_error([&] { file.read<float>("soft"); }, {"/soft: no such dataset"});
}

TEST_F(Foreign, ADamagedChunkIsAnError) {
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  const std::array<hsize_t, 1> chunk{1000};
  H5Pset_chunk(properties, 1, chunk.data());
  H5Pset_fletcher32(properties);
  const std::string pattern(1000, 'q');
  add("a", H5T_NATIVE_UINT8, H5T_NATIVE_UINT8, pattern.data(), {1000}, properties);
  H5Pclose(properties);
  H5Fclose(id_);
  std::string bytes = read_file(path("f.h5"));
  const std::size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 500] = 'r';
  write_file(path("f.h5"), bytes);
  const File file = File::open(path("f.h5"));
  expect_data_error([&] { file.read<std::uint8_t>("a"); }, {"f.h5: /a: cannot read"});
}

TEST_F(Foreign, AShapeThatMemoryCannotHoldIsAnError) {
  const std::array<hsize_t, 2> shape{hsize_t{1} << 41, (hsize_t{1} << 20) + 1}, chunk{1024, 1024};
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(properties, 2, chunk.data());
  const hid_t space = H5Screate_simple(2, shape.data(), nullptr);
  H5Dclose(H5Dcreate2(id_, "a", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(properties);
  const File file = finish();
  expect_data_error([&] { file.read<float>("a"); }, {"f.h5: /a", "do not fit into memory"});
}

}  // namespace
}  // namespace lockstep::datasets::hdf5

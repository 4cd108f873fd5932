#include "datasets/detail/names.hpp"

#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>

#include "datasets/error.hpp"

namespace lockstep::datasets {
namespace {

struct Pair {
  std::string_view x, y;
};
constexpr std::array<Pair, 4> kRecognised{
    {{"x", "y"}, {"data", "label"}, {"X", "y"}, {"features", "targets"}}};

std::string absolute(std::string_view name) {
  while (name.starts_with('/')) name.remove_prefix(1);
  return std::string("/").append(name);
}

// "; the file holds /images (60000 x 784 uint8), /meta (group)"
std::string listing(const hdf5::File& file) {
  constexpr std::size_t kMost = 20;
  std::string text;
  std::size_t count = 0;
  for (const std::string& name : file.members("/")) {
    if (count++ == kMost) {
      text += ", …";
      break;
    }
    text += (text.empty() ? "" : ", ") + absolute(name);
    if (file.is_group(name)) {
      text += " (group)";
    } else if (file.is_dataset(name)) {
      const hdf5::Info info = file.info(name);
      text += fmt::format(" ({} {})", hdf5::to_string(info.shape), info.type_name());
    }
  }
  return "; the file holds " + (text.empty() ? "nothing" : text);
}

std::string recognised_names() {
  std::string text;
  for (const Pair& pair : kRecognised) {
    text += fmt::format("{}{} and {}", text.empty() ? "" : ", ", pair.x, pair.y);
  }
  return text;
}

[[noreturn]] void fail(const hdf5::File& file, const std::string& object, const std::string& text) {
  throw DataError(file.name(), object, text + listing(file));
}

// The dataset called `name`, or "" if it is not there and need not be.
std::string find_named(const hdf5::File& file, const std::string& name, bool required) {
  const std::string path = absolute(name);
  if (file.is_dataset(path)) return path;
  if (!required) return {};
  fail(file, path, "no such dataset");
}

// The first of the recognised names on one side that is there, or "".
std::string find_recognised(const hdf5::File& file, std::string_view Pair::*side) {
  for (const Pair& pair : kRecognised) {
    if (file.is_dataset(pair.*side)) return absolute(pair.*side);
  }
  return {};
}

}  // namespace

Names find_names(const hdf5::File& file, const Names& names, bool targets_required) {
  // Without any name, inputs and targets of one pair belong together.
  if (names.x.empty() && names.y.empty()) {
    for (const Pair& pair : kRecognised) {
      if (file.is_dataset(pair.x) && file.is_dataset(pair.y)) {
        return {absolute(pair.x), absolute(pair.y)};
      }
    }
  }
  const Names found{
      names.x.empty() ? find_recognised(file, &Pair::x) : find_named(file, names.x, true),
      names.y.empty() ? find_recognised(file, &Pair::y)
                      : find_named(file, names.y, targets_required)};
  const bool mixed = names.x.empty() && names.y.empty() && !found.y.empty();
  if (found.x.empty()) {
    fail(file, "", "no inputs under a recognised name (" + recognised_names() + ")");
  }
  if (targets_required && (found.y.empty() || mixed)) {
    fail(file, "",
         fmt::format("no targets that go with {} under a recognised name ({})", found.x,
                     recognised_names()));
  }
  // Targets of another pair are not taken for those of these inputs.
  return mixed ? Names{found.x, ""} : found;
}

}  // namespace lockstep::datasets

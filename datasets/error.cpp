#include "datasets/error.hpp"

namespace lockstep::datasets {
namespace {

std::string join(const std::filesystem::path& file, std::string_view object,
                 std::string_view text) {
  std::string line = file.string() + ": ";
  if (!object.empty()) line.append(object).append(": ");
  line.append(text);
  return line;
}

}  // namespace

DataError::DataError(const std::filesystem::path& file, std::string_view object,
                     std::string_view text)
    : std::runtime_error(join(file, object, text)) {}

}  // namespace lockstep::datasets

// Data that cannot be used: a file that is missing, damaged, or holds something else than it
// should.
//
// The text is one line and says, in this order, the file, the dataset or attribute in it, what was
// found and what was expected: "train.h5: /y: label 12 in row 3; expected 0 to 9 (classes = 10)".
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lockstep::datasets {

class DataError : public std::runtime_error {
 public:
  explicit DataError(const std::string& text) : std::runtime_error(text) {}

  // "file: object: text"; an empty `object` (the file as a whole is meant) is left out.
  DataError(const std::filesystem::path& file, std::string_view object, std::string_view text);
};

}  // namespace lockstep::datasets

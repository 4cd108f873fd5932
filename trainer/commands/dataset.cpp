// lockstep dataset import, lockstep dataset info: bringing data in and looking at it.
#include <fmt/format.h>

#include "datasets/describe.hpp"
#include "datasets/idx.hpp"
#include "datasets/writer.hpp"
#include "trainer/commands/commands.hpp"

namespace lockstep::trainer {

ExitCode import_idx(const ImportOptions& options) {
  const datasets::Contents contents = datasets::read_idx(options.images, options.labels);
  datasets::write_dataset(options.out, contents);
  fmt::print("{}: {} samples of {}x{} pixels, {} classes\n", options.out.string(),
             contents.samples(), contents.x_shape.at(1), contents.x_shape.at(2), contents.classes);
  return ExitCode::done;
}

ExitCode dataset_info(const std::filesystem::path& file, const datasets::Names& names) {
  fmt::print("{}", datasets::describe(file, names));
  return ExitCode::done;
}

}  // namespace lockstep::trainer

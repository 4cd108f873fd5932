// lockstep dataset import, lockstep dataset info: bringing data in and looking at it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

#include "datasets/describe.hpp"
#include "datasets/idx.hpp"
#include "datasets/writer.hpp"
#include "trainer/commands/commands.hpp"

namespace lockstep::trainer {

ExitCode import_idx(const ImportOptions& options) {
  const datasets::Contents contents = datasets::read_idx(options.images, options.labels);
  datasets::write_dataset(options.out, contents);
  fmt::print("{}: {} samples of {} values, {} classes\n", options.out.string(), contents.samples(),
             fmt::join(std::span(contents.x_shape).subspan(1), "x"), contents.classes);
  return ExitCode::done;
}

ExitCode dataset_info(const std::filesystem::path& file, const datasets::Names& names) {
  fmt::print("{}", datasets::describe(file, names));
  return ExitCode::done;
}

}  // namespace lockstep::trainer

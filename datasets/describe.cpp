#include "datasets/describe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "datasets/hdf5.hpp"
#include "datasets/numbers.hpp"

namespace lockstep::datasets {
namespace {

// 47,040,000
// "name      text": one line of the description.
std::string line(std::string_view name, std::string_view text) {
  return fmt::format("{:<10}{}\n", name, text);
}

struct Summary {
  float lowest = std::numeric_limits<float>::infinity();
  float highest = -std::numeric_limits<float>::infinity();
  double sum = 0.0;
  std::size_t count = 0;

  void add(const std::vector<float>& values) {
    for (const float value : values) {
      lowest = std::min(lowest, value);
      highest = std::max(highest, value);
      sum += static_cast<double>(value);
    }
    count += values.size();
  }
  std::string text() const {
    return fmt::format("{:.6g} to {:.6g}, mean {:.6g}", lowest, highest,
                       sum / static_cast<double>(count));
  }
};

std::string shape_text(const Dataset& data) {
  std::string text = with_commas(data.samples()) + " samples";
  if (data.sample_shape().size() > 1) {
    text += fmt::format(" of {} = {} features", hdf5::to_string(data.sample_shape()),
                        with_commas(data.features()));
  } else {
    text += fmt::format(" of {} feature{}", with_commas(data.features()),
                        data.features() == 1 ? "" : "s");
  }
  return text;
}

// One line per class, unless they are very many.
std::string classes_text(const Dataset& data) {
  constexpr std::size_t kListed = 100;
  if (data.classes() > kListed) return line("classes", "too many to list");
  std::vector<std::size_t> counts(data.classes(), 0);
  for (std::size_t row = 0; row < data.samples(); ++row) {
    ++counts[static_cast<std::size_t>(data.label(row))];
  }
  const std::size_t width = with_commas(*std::max_element(counts.begin(), counts.end())).size();
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double percent =
        100.0 * static_cast<double>(counts[i]) / static_cast<double>(data.samples());
    text += line(i == 0 ? "classes" : "", fmt::format("{:>3}  {:>{}}  {:5.1f} %", i,
                                                      with_commas(counts[i]), width, percent));
  }
  return text;
}

std::string targets_text(const Dataset& data) {
  if (!data.has_targets()) return line("targets", "none");
  if (data.has_classes()) {
    return line("targets",
                fmt::format("{}, {}, {} class{}", data.y_name(), data.y_type(),
                            with_commas(data.classes()), data.classes() == 1 ? "" : "es")) +
           classes_text(data);
  }
  Summary summary;
  std::vector<float> targets(data.target_width());
  for (std::size_t row = 0; row < data.samples(); ++row) {
    data.copy_targets(row, targets.data());
    summary.add(targets);
  }
  return line("targets",
              fmt::format("{}, {}, {} a sample", data.y_name(), data.y_type(), targets.size())) +
         line("", summary.text());
}

}  // namespace

std::string describe(const std::filesystem::path& path, const Names& names) {
  const Dataset data = Dataset::read(path, names, /*targets_required=*/false);
  Summary summary;
  std::vector<float> sample(data.features());
  for (std::size_t row = 0; row < data.samples(); ++row) {
    data.copy_sample(row, sample.data());
    summary.add(sample);
  }
  return line("file", path.string()) +
         line("inputs", fmt::format("{}, {}, {}", data.x_name(), data.x_type(), shape_text(data))) +
         line("values", summary.text()) +
         line("", fmt::format("(stored value * {:.6g} + {:.6g})", data.scale(), data.offset())) +
         targets_text(data) +
         line("source", data.source().empty() ? "not recorded" : data.source()) +
         line("sha256", data.digest());
}

}  // namespace lockstep::datasets

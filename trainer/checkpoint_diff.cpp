#include "trainer/checkpoint_diff.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>

#include "trainer/config.hpp"
#include "trainer/training_state.hpp"

namespace lockstep::trainer {
namespace {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
bool same_bits(T a, T b) {
  return std::bit_cast<Bits<T>>(a) == std::bit_cast<Bits<T>>(b);
}

// 9 digits tell any two float32 apart, 17 any two float64.
template <class T>
std::string value_text(T value) {
  return fmt::format("{:.{}g} (0x{:0{}x})", value, sizeof(T) == 4 ? 9 : 17,
                     std::bit_cast<Bits<T>>(value), 2 * sizeof(T));
}

// "3, 17" for the element `index` of a tensor of `shape`.
std::string place_text(std::size_t index, const std::vector<std::size_t>& shape) {
  std::vector<std::size_t> place(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    place[i] = index % shape[i];
    index /= shape[i];
  }
  return fmt::format("{}", fmt::join(place, ", "));
}

class Comparison {
 public:
  void differ(const std::string& first, const std::string& detail) {
    if (!result.first) result.first = first;
    result.details.push_back(detail);
  }

  template <class T>
  void values(const std::string& name, const std::vector<T>& a, const std::vector<T>& b,
              const std::vector<std::size_t>& shape) {
    std::size_t count = 0, first = 0;
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (same_bits(a[i], b[i])) continue;
      if (count++ == 0) first = i;
      const double by = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
      // A NaN is further away than any number.
      if (std::isnan(by) || by > largest) largest = by;
      if (std::isnan(largest)) largest = std::numeric_limits<double>::infinity();
    }
    if (count == 0) return;
    const std::string where =
        shape.empty() ? name : fmt::format("{}[{}]", name, place_text(first, shape));
    differ(fmt::format("{}: {} and {}", where, value_text(a[first]), value_text(b[first])),
           fmt::format("{}: {} of {} elements differ, by {:.3g} at most", name, count, a.size(),
                       largest));
  }

  void tensors(const std::string& group, const std::vector<NamedTensor>& a,
               const std::vector<NamedTensor>& b) {
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
      if (i >= a.size() || i >= b.size()) {
        const std::string text =
            fmt::format("{}/{}: only in the {}", group, i < a.size() ? a[i].name : b[i].name,
                        i < a.size() ? "first" : "second");
        differ(text, text);
        continue;
      }
      const std::string name = fmt::format("{}/{}", group, a[i].name);
      if (a[i].name != b[i].name) {
        const std::string text = fmt::format("{} and {}/{}", name, group, b[i].name);
        differ(text, text);
      } else if (a[i].shape != b[i].shape || a[i].values.size() != b[i].values.size()) {
        const std::string text =
            fmt::format("{}: of shape {} and {}", name, fmt::join(a[i].shape, " x "),
                        fmt::join(b[i].shape, " x "));
        differ(text, text);
      } else {
        values(name, a[i].values, b[i].values, a[i].shape);
      }
    }
  }

  template <class T>
  void member(const char* key, const T& a, const T& b) {
    const std::string name = fmt::format("state/{}", key);
    if constexpr (std::is_same_v<T, std::vector<double>>) {
      if (a.size() == b.size()) {
        values(name, a, b, {a.size()});
      } else {
        const std::string text = fmt::format("{}: {} and {} elements", name, a.size(), b.size());
        differ(text, text);
      }
    } else if constexpr (std::is_same_v<T, double>) {
      values(name, std::vector<double>{a}, std::vector<double>{b}, {});
    } else if (a != b) {
      const std::string text = fmt::format("{}: {} and {}", name, a, b);
      differ(text, text);
    }
  }

  void note(const char* name, const std::string& a, const std::string& b) {
    if (a != b) result.notes.push_back(fmt::format("{}: {} and {}", name, a, b));
  }

  CheckpointDifference result;
};

void compare_configs(const std::string& a, const std::string& b, std::vector<std::string>& notes) {
  if (a == b) return;
  try {
    for (const std::string& key :
         differences(parse_config(a, "first"), parse_config(b, "second"))) {
      notes.push_back(fmt::format("config: {} differs", key));
    }
  } catch (const ConfigError&) {
    notes.push_back("config: the texts differ");  // written by a version with other keys
  }
}

}  // namespace

CheckpointDifference compare(const Checkpoint& a, const Checkpoint& b) {
  Comparison comparison;
  comparison.tensors("parameters", a.parameters, b.parameters);
  for (std::size_t i = 0; i < std::max(a.moments.size(), b.moments.size()); ++i) {
    const std::string in_a = i < a.moments.size() ? a.moments[i].first : "(none)";
    const std::string in_b = i < b.moments.size() ? b.moments[i].first : "(none)";
    if (in_a == in_b) {
      comparison.tensors("optimizer/" + in_a, a.moments[i].second, b.moments[i].second);
    } else {
      const std::string text = fmt::format("optimizer: moment {} and {}", in_a, in_b);
      comparison.differ(text, text);
    }
  }
  comparison.tensors("best", a.best, b.best);

  for_each_state_member([&](const char* key, auto member) {
    if (std::string_view(key) == "seconds") return;
    comparison.member(key, a.state.*member, b.state.*member);
  });

  compare_configs(a.config, b.config, comparison.result.notes);
  comparison.note("program_version", a.program_version, b.program_version);
  comparison.note("build", a.build, b.build);
  comparison.note("instruction_set", a.instruction_set, b.instruction_set);
  comparison.note("data_digest", a.data_digest, b.data_digest);
  return comparison.result;
}

std::optional<std::string> first_difference(const Checkpoint& a, const Checkpoint& b) {
  const CheckpointDifference difference = compare(a, b);
  if (!difference.first) return std::nullopt;
  std::string text = *difference.first;
  for (const std::string& line : difference.details) {
    if (line != *difference.first) text += "\n" + line;
  }
  for (const std::string& line : difference.notes) text += "\n" + line;
  return text;
}

}  // namespace lockstep::trainer

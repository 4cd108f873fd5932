#include "trainer/config_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

namespace lockstep::trainer {
namespace schema {
namespace {

template <class T>
constexpr bool is_layers = std::is_same_v<std::remove_const_t<T>, std::vector<LayerConfig>>;
template <class T>
constexpr bool is_text = std::is_same_v<std::remove_const_t<T>, std::string>;

// { dense = 10, bias = true }: the keys that apply, with their values.
class LayerWriter {
 public:
  template <class T>
  void field(const Field& field, T& value) {
    if (!field.applies) return;
    if constexpr (is_text<T>) {
      if (value.empty()) return;
    }
    text_ += fmt::format("{}{} = {}", text_.empty() ? "{ " : ", ", field.key, toml_text(value));
  }
  std::string text() const { return text_ + " }"; }

 private:
  std::string text_;
};

}  // namespace

std::string toml_text(bool value) {
  return value ? "true" : "false";
}

std::string toml_text(double value) {
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  // 1 reads back as an integer, which is allowed; 1.0 says what the key is.
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::string toml_text(std::uint64_t value) {
  const bool fits = value <= std::uint64_t(std::numeric_limits<std::int64_t>::max());
  return fits ? fmt::format("{}", value) : fmt::format("\"{}\"", value);
}

std::string toml_text(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      text += '\\';
      text += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\u{:04X}", unsigned{byte});
    } else {
      text += c;
    }
  }
  return text + '"';
}

std::string toml_text(const std::vector<LayerConfig>& layers) {
  std::string text = "[\n";
  for (const LayerConfig& layer : layers) {
    LayerWriter writer;
    describe_layer(writer, layer);
    text += fmt::format("  {},\n", writer.text());
  }
  return text + "]";
}

std::string range_text(const Rule& rule) {
  if (!rule.choices.empty()) return fmt::format("{}", fmt::join(rule.choices, ", "));
  const bool below = std::isfinite(rule.low), above = std::isfinite(rule.high);
  std::string text;
  if (below && above) {
    text = fmt::format("{}{}, {}{}", rule.low_open ? '(' : '[', rule.low, rule.high,
                       rule.high_open ? ')' : ']');
  } else if (below) {
    text = fmt::format("{} {}", rule.low_open ? ">" : ">=", rule.low);
  } else if (above) {
    text = fmt::format("{} {}", rule.high_open ? "<" : "<=", rule.high);
  }
  return rule.power_of_two ? text + ", a power of two" : text;
}

namespace {

std::string number_text(std::string_view noun, const Rule& rule) {
  const std::string range = range_text(rule);
  if (range.empty()) return std::string(noun);
  return fmt::format("{}{} {}", noun, range.front() == '[' || range.front() == '(' ? " in" : "",
                     range);
}

}  // namespace

std::string expected_text(const Rule&, const bool*) {
  return "true or false";
}

std::string expected_text(const Rule& rule, const double*) {
  const bool bounded = std::isfinite(rule.low) || std::isfinite(rule.high);
  return number_text(bounded ? "a number" : "a finite number", rule);
}

std::string expected_text(const Rule& rule, const std::uint64_t*) {
  return number_text("an integer", rule) + (rule.full_range ? " (above 2^63 - 1 in quotes)" : "");
}

std::string expected_text(const Rule& rule, const std::string*) {
  if (rule.choices.empty()) return rule.required ? "a string that is not empty" : "a string";
  const std::string choices = range_text(rule);
  return rule.choices.size() == 1 ? choices : "one of " + choices;
}

}  // namespace schema

namespace {

using schema::Field;

class Writer {
 public:
  void section(std::string_view name) {
    text_ += fmt::format("{}[{}]\n", text_.empty() ? "" : "\n", name);
  }

  template <class T>
  void field(const Field& field, T& value) {
    const std::string text = schema::toml_text(value);
    if (text.empty()) {
      text_ += fmt::format("# {} unset: {}\n", field.key, field.unset);
    } else {
      text_ += fmt::format("{} = {}\n", field.key, text);
    }
  }

  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// (key, value as text) of every key. Texts round-trip, so equal texts are equal values.
class Lister {
 public:
  void section(std::string_view name) { section_ = name; }

  template <class T>
  void field(const Field& field, T& value) {
    entries.emplace_back(fmt::format("{}.{}", section_, field.key), schema::toml_text(value));
  }

  std::vector<std::pair<std::string, std::string>> entries;

 private:
  std::string section_;
};

// Rows of the help text.
class Table {
 public:
  void section(std::string_view name) { prefix_ = fmt::format("{}.", name); }

  template <class T>
  void field(const Field& field, T& value) {
    std::string initial = schema::toml_text(value);
    if constexpr (schema::is_layers<T>) initial.clear();
    if (!field.unset.empty() && (initial.empty() || initial == "\"\"" || in_layer_)) {
      initial = field.unset;
    }
    if (field.rule.required) initial = "(required)";
    std::string values = "an array of tables";
    if constexpr (!schema::is_layers<T>) values = schema::expected_text(field.rule, &value);
    rows_.push_back(
        {prefix_ + std::string(field.key), initial, fmt::format("{}; {}", field.meaning, values)});
    if constexpr (schema::is_layers<T>) {
      const std::string section = std::exchange(prefix_, prefix_ + "layers[].");
      in_layer_ = true;
      const LayerConfig layer;
      schema::describe_layer(*this, layer);
      in_layer_ = false;
      prefix_ = section;
    }
  }

  std::string text() const {
    std::array<std::size_t, 2> width{};
    for (const Row& row : rows_) {
      for (std::size_t i = 0; i < width.size(); ++i) width[i] = std::max(width[i], row[i].size());
    }
    std::string text;
    for (const Row& row : rows_) {
      text += fmt::format("{:<{}}  {:<{}}  {}\n", row[0], width[0], row[1], width[1], row[2]);
    }
    return text;
  }

 private:
  using Row = std::array<std::string, 3>;  // key, default, meaning and limits

  std::string prefix_;
  bool in_layer_ = false;
  std::vector<Row> rows_{{"key", "default", "meaning; values"}};
};

}  // namespace

std::string to_toml(const Config& config) {
  Writer writer;
  schema::describe(writer, config);
  return writer.text();
}

std::vector<std::string> differences(const Config& a, const Config& b) {
  Lister left, right;
  schema::describe(left, a);
  schema::describe(right, b);
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < left.entries.size(); ++i) {
    if (left.entries[i].second != right.entries[i].second) keys.push_back(left.entries[i].first);
  }
  return keys;
}

std::string describe_keys() {
  Table table;
  const Config defaults;
  schema::describe(table, defaults);
  return table.text();
}

}  // namespace lockstep::trainer

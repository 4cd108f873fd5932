#include "trainer/config.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <system_error>
#include <type_traits>
#include <utility>

#include "trainer/config_checks.hpp"
#include "trainer/config_schema.hpp"
#include "trainer/config_text.hpp"
#include "trainer/nearest.hpp"

namespace lockstep::trainer {
namespace {

using schema::Field;
using schema::Rule;

// One source of values: a file, or one --set.
struct Source {
  std::string origin;
  bool has_lines = true;
  std::string note = {};  // appended to what was found

  std::string at(const toml::source_region& region) const {
    return has_lines && region.begin ? fmt::format("{}:{}", origin, region.begin.line) : origin;
  }
};

// "section.key" of every key, and the keys of a layer.
class Names {
 public:
  Names() {
    const Config config;
    schema::describe(*this, config);
    into_layer_ = true;
    const LayerConfig layer;
    schema::describe_layer(*this, layer);
  }

  void section(std::string_view name) { sections.emplace_back(name); }
  template <class T>
  void field(const Field& field, T&) {
    if (into_layer_) {
      layer_keys.emplace_back(field.key);
    } else {
      keys.push_back(fmt::format("{}.{}", sections.back(), field.key));
    }
  }

  std::vector<std::string> sections, keys, layer_keys;

 private:
  bool into_layer_ = false;
};

const Names& names() {
  static const Names known;
  return known;
}

template <class Range>
bool contains(const Range& range, std::string_view word) {
  return std::find(std::begin(range), std::end(range), word) != std::end(range);
}

// The known key for "section.key": one of that name in another section, or else the nearest.
std::string nearest_key(std::string_view wanted) {
  const std::string_view key = wanted.substr(wanted.find('.') + 1);
  for (const std::string& known : names().keys) {
    if (std::string_view(known).substr(known.find('.') + 1) == key) return known;
  }
  return nearest(wanted, names().keys);
}

[[noreturn]] void unknown(std::string_view what, std::string_view name, std::string_view where,
                          std::string_view meant) {
  throw ConfigError(fmt::format("unknown {} {} ({}); did you mean {}?", what, name, where, meant));
}

// Text of any origin on one line: control characters become spaces, and long text is cut.
std::string one_line(std::string text, std::size_t longest = 200) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  if (text.size() > longest) {
    std::size_t end = longest;  // not inside a character of several bytes
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return text;
}

std::string found_text(const toml::node& node) {
  if (const auto* table = node.as_table()) return table->empty() ? "an empty table" : "a table";
  if (const auto* array = node.as_array()) return array->empty() ? "an empty array" : "an array";
  if (const auto* text = node.as_string()) {
    return "the string " + one_line(schema::toml_text(text->get()), 80);
  }
  if (const auto* number = node.as_floating_point()) return schema::toml_text(number->get());
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* boolean = node.as_boolean()) return schema::toml_text(boolean->get());
  return "a date or time";
}

// Reads values of one table (a section or a layer) into fields, each checked against its rule.
class TableReader {
 public:
  TableReader(const Source& source, std::map<std::string, std::string>& places)
      : source_(source), places_(places) {}

  // `prefix`: what stands before the key in messages. A null table has no keys.
  void enter(const toml::table* table, std::string prefix) {
    table_ = table;
    prefix_ = std::move(prefix);
  }

  template <class T>
  void field(const Field& field, T& value) {
    const toml::node* node = table_ == nullptr ? nullptr : table_->get(field.key);
    if (node == nullptr) return;
    const std::string key = fmt::format("{}{}", prefix_, field.key);
    const std::string place = source_.at(node->source());
    if (!field.applies) {
      throw ConfigError(fmt::format("{} ({}): found {}, but only {} have this key", key, place,
                                    found_text(*node), field.applies_to));
    }
    if constexpr (std::is_same_v<T, std::vector<LayerConfig>>) {
      value = read_layers(*node, key, place);
    } else if (!read(*node, field.rule, value)) {
      std::string meant;
      if (const auto* text = node->as_string(); text != nullptr && field.rule.choices.size() > 1) {
        const std::vector<std::string> choices(field.rule.choices.begin(),
                                               field.rule.choices.end());
        meant = fmt::format("; did you mean \"{}\"?", nearest(text->get(), choices));
      }
      throw ConfigError(fmt::format("{} ({}): found {}{}, expected {}{}", key, place,
                                    found_text(*node), source_.note,
                                    schema::expected_text(field.rule, &value), meant));
    }
    places_[key] = place;
  }

 private:
  static bool in_range(const Rule& rule, double value) {
    return (rule.low_open ? value > rule.low : value >= rule.low) &&
           (rule.high_open ? value < rule.high : value <= rule.high);
  }

  static bool read(const toml::node& node, const Rule&, bool& value) {
    const auto* found = node.as_boolean();
    if (found != nullptr) value = found->get();
    return found != nullptr;
  }

  static bool read(const toml::node& node, const Rule& rule, double& value) {
    if (!node.is_number()) return false;
    const double found = node.is_integer() ? static_cast<double>(node.as_integer()->get())
                                           : node.as_floating_point()->get();
    if (!std::isfinite(found) || !in_range(rule, found)) return false;
    value = found;
    return true;
  }

  static bool read(const toml::node& node, const Rule& rule, std::uint64_t& value) {
    std::uint64_t found = 0;
    if (const auto* integer = node.as_integer()) {
      if (integer->get() < 0) return false;
      found = static_cast<std::uint64_t>(integer->get());
    } else if (const auto* text = node.as_string(); text != nullptr && rule.full_range) {
      const std::string& digits = text->get();
      const char* const end = digits.data() + digits.size();
      const auto [stop, error] = std::from_chars(digits.data(), end, found);
      if (error != std::errc() || stop != end) return false;
    } else {
      return false;
    }
    if (!in_range(rule, static_cast<double>(found))) return false;
    if (rule.power_of_two && (found & (found - 1)) != 0) return false;
    value = found;
    return true;
  }

  static bool read(const toml::node& node, const Rule& rule, std::string& value) {
    const auto* found = node.as_string();
    if (found == nullptr) return false;
    if (!rule.choices.empty() && !contains(rule.choices, found->get())) return false;
    if (rule.required && found->get().empty()) return false;
    value = found->get();
    return true;
  }

  template <class T>
  static bool read(const toml::node& node, const Rule& rule, std::optional<T>& value) {
    T found{};
    if (!read(node, rule, found)) return false;
    value = found;
    return true;
  }

  std::vector<LayerConfig> read_layers(const toml::node& node, const std::string& key,
                                       const std::string& place) {
    const toml::array* entries = node.as_array();
    if (entries == nullptr || entries->empty()) {
      throw ConfigError(
          fmt::format("{} ({}): found {}{}, expected at least one layer such as "
                      "[{{ dense = 10 }}]",
                      key, place, found_text(node), source_.note));
    }
    std::vector<LayerConfig> layers;
    for (const toml::node& entry : *entries) {
      layers.push_back(read_layer(entry, fmt::format("{}[{}]", key, layers.size())));
    }
    return layers;
  }

  LayerConfig read_layer(const toml::node& entry, const std::string& key) {
    const std::string place = source_.at(entry.source());
    places_[key] = place;
    const toml::table* table = entry.as_table();
    if (table == nullptr) {
      throw ConfigError(fmt::format("{} ({}): found {}, expected a table such as {{ dense = 10 }}",
                                    key, place, found_text(entry)));
    }
    for (const auto& [name, value] : *table) {
      if (contains(names().layer_keys, name.str())) continue;
      unknown("key", fmt::format("{}.{}", key, one_line(std::string(name.str()), 80)),
              source_.at(value.source()), nearest(name.str(), names().layer_keys));
    }
    LayerConfig layer;
    layer.kind = kind_of(*table, key, place);
    TableReader reader(source_, places_);
    reader.enter(table, key + ".");
    schema::describe_layer(reader, layer);
    if (!layer.batch_norm) {
      throw ConfigError(fmt::format(
          "{}.batch_norm ({}): found false, expected true, or no such layer", key, place));
    }
    return layer;
  }

  // An activation is also a key of dense layers.
  static LayerConfig::Kind kind_of(const toml::table& table, const std::string& key,
                                   const std::string& place) {
    using Kind = LayerConfig::Kind;
    constexpr std::array<std::pair<const char*, Kind>, 3> kinds{
        {{"dense", Kind::dense}, {"batch_norm", Kind::batch_norm}, {"dropout", Kind::dropout}}};
    std::vector<Kind> found;
    std::string names;
    for (const auto& [name, kind] : kinds) {
      if (!table.contains(name)) continue;
      names += fmt::format("{}{}", found.empty() ? "both " : " and ", name);
      found.push_back(kind);
    }
    if (found.size() == 1) return found[0];
    if (found.empty() && table.contains("activation")) return Kind::activation;
    throw ConfigError(
        fmt::format("{} ({}): found {}, expected exactly one of dense, activation, batch_norm, "
                    "dropout",
                    key, place, found.empty() ? "none of them" : names));
  }

  const Source& source_;
  std::map<std::string, std::string>& places_;
  const toml::table* table_ = nullptr;
  std::string prefix_;
};

// Reads a whole document: sections of keys.
class Reader {
 public:
  Reader(const toml::table& root, const Source& source, std::map<std::string, std::string>& places)
      : root_(root), fields_(source, places) {
    reject_unknown(source);
  }

  void section(std::string_view name) {
    const toml::node* node = root_.get(name);
    fields_.enter(node == nullptr ? nullptr : node->as_table(), fmt::format("{}.", name));
  }
  template <class T>
  void field(const Field& field, T& value) {
    fields_.field(field, value);
  }

 private:
  void reject_unknown(const Source& source) const {
    for (const auto& [name, node] : root_) {
      const std::string section = one_line(std::string(name.str()), 80);
      const std::string place = source.at(node.source());
      if (!contains(names().sections, name.str())) {
        if (node.is_table()) unknown("section", section, place, nearest(section, names().sections));
        unknown("key", section, place, nearest_key(section));
      }
      const toml::table* table = node.as_table();
      if (table == nullptr) {
        throw ConfigError(fmt::format("{} ({}): found {}, expected a section [{}]", section, place,
                                      found_text(node), section));
      }
      for (const auto& [key, value] : *table) {
        const std::string full =
            fmt::format("{}.{}", section, one_line(std::string(key.str()), 80));
        if (contains(names().keys, full)) continue;
        unknown("key", full, source.at(value.source()), nearest_key(full));
      }
    }
  }

  const toml::table& root_;
  TableReader fields_;
};

toml::table parse_toml(std::string_view text, const std::string& origin) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw ConfigError(fmt::format("{}:{}: not valid TOML: {}", origin, error.source().begin.line,
                                  one_line(std::string(error.description()))));
  }
}

// True if `document`, made from one setting, holds its one key and nothing else.
bool is_single(const toml::table& document) {
  const toml::table* table = document.size() == 1 ? document.begin()->second.as_table() : nullptr;
  return table != nullptr && table->size() == 1;
}

void apply_setting(const std::string& setting, Config& config,
                   std::map<std::string, std::string>& places) {
  Source source{"--set", false};
  const std::size_t equals = setting.find('=');
  const auto trim = [](std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return std::string();
    return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
  };
  const std::string key = trim(std::string_view(setting).substr(0, equals));
  if (equals == std::string::npos || key.empty()) {
    throw ConfigError(
        fmt::format("--set: found \"{}\", expected section.key=value", one_line(setting)));
  }
  if (!contains(names().keys, key)) {
    unknown("key", one_line(key, 80), source.origin, nearest_key(key));
  }
  const std::string value = trim(std::string_view(setting).substr(equals + 1));
  toml::table document;
  try {
    document = toml::parse(fmt::format("{} = {}", key, value));
  } catch (const toml::parse_error& error) {
    if (!value.empty() && std::string_view("[{\"'").find(value.front()) != std::string_view::npos) {
      source.note =
          fmt::format(" (not valid TOML: {})", one_line(std::string(error.description())));
    }
  }
  if (!is_single(document)) {
    document = parse_toml(fmt::format("{} = {}", key, schema::toml_text(value)),
                          fmt::format("--set {}", key));
  }
  Reader reader(document, source, places);
  schema::describe(reader, config);
}

}  // namespace

Config read_config(const std::filesystem::path& file, std::span<const std::string> settings) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  // A directory opens, but does not read; an empty file reads, but sets failbit on `text`.
  if (in) text << in.rdbuf();
  if (!in || in.bad() || std::filesystem::is_directory(file)) {
    std::error_code ignored;
    const char* why = !std::filesystem::exists(file, ignored)        ? "no such file"
                      : std::filesystem::is_directory(file, ignored) ? "is a directory"
                                                                     : "cannot be read";
    throw ConfigError(fmt::format("{}: {}, expected a configuration in TOML", file.string(), why));
  }
  return parse_config(text.str(), file.string(), settings);
}

Config parse_config(std::string_view text, std::string_view origin,
                    std::span<const std::string> settings) {
  Config config;
  std::map<std::string, std::string> places;
  const Source source{std::string(origin)};
  const toml::table root = parse_toml(text, source.origin);
  Reader reader(root, source, places);
  schema::describe(reader, config);
  for (const std::string& setting : settings) apply_setting(setting, config, places);
  check_consistency(config, source.origin, places);
  return config;
}

}  // namespace lockstep::trainer

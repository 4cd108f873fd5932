#include "trainer/config.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "trainer/nearest.hpp"

namespace lockstep::trainer {
namespace {

const std::string base = "[data]\ntrain = \"train.h5\"\n[model]\nlayers = [{ dense = 10 }]\n";

Config parse(const std::string& text, const std::vector<std::string>& settings = {}) {
  return parse_config(text, "config.toml", settings);
}

// The text of the error; a test failure if there is none, or if it is not one line.
std::string error_of(const std::string& text, const std::vector<std::string>& settings = {}) {
  try {
    parse(text, settings);
  } catch (const ConfigError& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    return what;
  }
  ADD_FAILURE() << "accepted:\n" << text;
  return {};
}

std::string setting_error(const std::string& setting) {
  return error_of(base, {setting});
}

void expect_same(const Config& a, const Config& b) {
  EXPECT_EQ(differences(a, b), std::vector<std::string>{});
  EXPECT_EQ(to_toml(a), to_toml(b));
}

TEST(EditDistance, IsAMetricOnSmallWords) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("adam", ""), 4U);
  EXPECT_EQ(edit_distance("adma", "adam"), 1U);
  EXPECT_EQ(edit_distance("Adam", "adam"), 0U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  const std::vector<std::string> words{"relu", "relus", "rleu", "tanh", "", "leaky_relu"};
  for (const auto& a : words) {
    for (const auto& b : words) EXPECT_EQ(edit_distance(a, b), edit_distance(b, a)) << a << b;
  }
  EXPECT_EQ(nearest("rlu", words), "relu");
  EXPECT_EQ(nearest("rlu", {}), "");
}

TEST(Config, DefaultsNeedDataAndModelAlone) {
  const Config config = parse(base);
  EXPECT_EQ(config.data.train, "train.h5");
  ASSERT_EQ(config.model.layers.size(), 1U);
  EXPECT_EQ(config.model.layers[0].units, 10U);
  EXPECT_TRUE(config.model.layers[0].bias);
  Config expected;
  expected.data.train = "train.h5";
  expected.model.layers = config.model.layers;
  expect_same(config, expected);
}

TEST(Config, ReadsEveryKindOfValue) {
  const Config config = parse(R"(
    [data]
    train = "fashion-train.h5"
    test = "fashion-test.h5"
    validation_fraction = 0.1
    [model]
    layers = [
      { dense = 512, activation = "leaky_relu", slope = 0, bias = false },
      { dropout = 0.2 },
      { batch_norm = true, momentum = 1, epsilon = 1e-3, affine = false, scope = "leaf" },
      { dense = 7, initializer = "constant", scale = -1 },
      { activation = "softmax" },
    ]
    loss = "mean_squared_error"
    [optimizer]
    name = "adam"
    learning_rate = 1
    epsilon = 1e-7
    epsilon_inside_root = true
    [training]
    descent = "batch"
    seed = 0xFF
    leaves = 16
    shuffle = false
    precision = "float32"
  )");
  ASSERT_EQ(config.model.layers.size(), 5U);
  const auto& layers = config.model.layers;
  EXPECT_EQ(layers[0].kind, LayerConfig::Kind::dense);
  EXPECT_EQ(layers[0].activation, "leaky_relu");
  EXPECT_EQ(layers[0].slope, 0.0);
  EXPECT_FALSE(layers[0].bias);
  EXPECT_EQ(layers[1].kind, LayerConfig::Kind::dropout);
  EXPECT_EQ(layers[1].rate, 0.2);
  EXPECT_EQ(layers[2].kind, LayerConfig::Kind::batch_norm);
  EXPECT_EQ(layers[2].momentum, 1.0);
  EXPECT_EQ(layers[2].epsilon, 1e-3);
  EXPECT_FALSE(layers[2].affine);
  EXPECT_EQ(layers[2].scope, "leaf");
  EXPECT_EQ(layers[3].scale, -1.0);
  EXPECT_EQ(layers[4].kind, LayerConfig::Kind::activation);
  EXPECT_EQ(config.optimizer.learning_rate, 1.0);
  EXPECT_EQ(config.optimizer.epsilon, 1e-7);
  EXPECT_EQ(config.optimizer.epsilon_inside_root, true);
  EXPECT_EQ(config.training.seed, 255U);
  EXPECT_FALSE(config.training.shuffle);
  expect_same(parse(to_toml(config)), config);
}

TEST(Config, SettingsApplyInOrderOverTheFile) {
  const Config config = parse(base, {
                                        "training.batch_size=64",
                                        "optimizer.name=adam",
                                        "optimizer.learning_rate = 1",
                                        "training.batch_size=32",
                                        "model.layers=[{dense=3}, {dropout=0.5}]",
                                        "data.test=/a path/with = and [brackets].h5",
                                        "data.x=",
                                        "data.y='z'",
                                        "training.shuffle=false",
                                        "optimizer.epsilon=1e-3",
                                    });
  EXPECT_EQ(config.training.batch_size, 32U);
  EXPECT_EQ(config.optimizer.name, "adam");
  EXPECT_EQ(config.optimizer.learning_rate, 1.0);
  ASSERT_EQ(config.model.layers.size(), 2U);
  EXPECT_EQ(config.model.layers[0].units, 3U);
  EXPECT_EQ(config.data.test, "/a path/with = and [brackets].h5");
  EXPECT_EQ(config.data.x, "");
  EXPECT_EQ(config.data.y, "z");
  EXPECT_FALSE(config.training.shuffle);
  EXPECT_EQ(config.optimizer.epsilon, 1e-3);
}

TEST(Config, WeightDecayIsForLambWhereverItsNameComesFrom) {
  const std::string text = base + std::string("[optimizer]\nweight_decay = 0.01\n");
  EXPECT_THROW(parse(text), ConfigError);
  EXPECT_EQ(parse(text, {"optimizer.name=lamb"}).optimizer.weight_decay, 0.01);
  EXPECT_EQ(parse(text, {"optimizer.weight_decay=0"}).optimizer.weight_decay, 0);
}

TEST(Config, AnEndFactorIsForSchedulesThatFall) {
  const std::string text = base + std::string("[optimizer]\nend_factor = 0.1\n");
  EXPECT_THROW(parse(text), ConfigError);
  EXPECT_EQ(parse(text, {"optimizer.schedule=cosine"}).optimizer.end_factor, 0.1);
}

TEST(Config, SettingsAloneCanGiveDataAndModel) {
  const Config config = parse("", {"data.train=t.h5", "model.layers=[{dense=1}]"});
  EXPECT_EQ(config.data.train, "t.h5");
}

// A setting gives its own key and no other, whatever its text holds.
TEST(Config, SettingCannotReachOtherKeys) {
  EXPECT_EQ(parse(base, {"data.x=1\ntest = 2"}).data.x, "1\ntest = 2");
  EXPECT_EQ(parse(base, {"data.x='a'\n[training]"}).data.x, "'a'\n[training]");
  EXPECT_EQ(parse(base, {"data.x='a'\n[training]"}).data.test, "");
}

TEST(Config, RoundTripsDoublesAndIntegersExactly) {
  std::mt19937_64 random(7);
  Config config = parse(base);
  for (int i = 0; i < 2000; ++i) {
    const double rate = std::abs(std::bit_cast<double>(random()));
    if (!std::isfinite(rate) || rate == 0) continue;
    config.comm.timeout = rate;
    config.optimizer.epsilon = i % 3 == 0 ? std::nullopt : std::optional(std::max(rate, 1.2e-38));
    config.model.layers[0].initializer = "constant";
    config.model.layers[0].scale = std::bit_cast<double>(random());
    if (!std::isfinite(config.model.layers[0].scale)) config.model.layers[0].scale = -0.0;
    config.training.seed = random();
    const Config again = parse(to_toml(config));
    ASSERT_EQ(std::bit_cast<std::uint64_t>(again.comm.timeout), std::bit_cast<std::uint64_t>(rate));
    ASSERT_EQ(again.optimizer.epsilon, config.optimizer.epsilon);
    ASSERT_EQ(std::bit_cast<std::uint64_t>(again.model.layers[0].scale),
              std::bit_cast<std::uint64_t>(config.model.layers[0].scale));
    ASSERT_EQ(again.training.seed, config.training.seed);
    expect_same(again, config);
  }
}

TEST(Config, RoundTripsExtremeNumbers) {
  for (const double value :
       {5e-324, std::numeric_limits<double>::min(), std::numeric_limits<double>::max(), 1.0, 1e22,
        1e23, 123456789.0, 0.1, 1e-5}) {
    Config config = parse(base);
    config.comm.timeout = value;
    EXPECT_EQ(parse(to_toml(config)).comm.timeout, value) << value;
  }
}

TEST(Config, RoundTripsStrings) {
  for (const std::string& path :
       {std::string("a \"quoted\" \\ path"), std::string("tab\tnewline\nbell\a"),
        std::string("\x7f\x01 h\xc3\xa4user \xe6\x97\xa5"), std::string("'"), std::string("#"),
        std::string("\0x", 2)}) {
    Config config = parse(base);
    config.data.test = path;
    EXPECT_EQ(parse(to_toml(config)).data.test, path);
  }
}

TEST(Config, SeedsOf64BitsAreQuoted) {
  for (const std::string seed :
       {"0", "9223372036854775807", "9223372036854775808", "18446744073709551615"}) {
    const Config config = parse(base, {"training.seed=" + seed});
    EXPECT_EQ(std::to_string(config.training.seed), seed);
    expect_same(parse(to_toml(config)), config);
  }
  for (const std::string seed :
       {"18446744073709551616", "-1", "1.5", "x", "\"-1\"", "\"\"", "\"1 \""}) {
    EXPECT_NE(setting_error("training.seed=" + seed).find("training.seed (--set): found"),
              std::string::npos);
  }
  // Only a seed may be quoted.
  EXPECT_NE(setting_error("training.epochs=\"3\"").find("expected an integer >= 1"),
            std::string::npos);
}

TEST(Config, DifferencesNameTheKeys) {
  const Config a = parse(base);
  Config b = a;
  b.training.batch_size = 3;
  b.model.layers.push_back(b.model.layers[0]);
  b.optimizer.epsilon = 1e-8;
  EXPECT_EQ(differences(a, b),
            (std::vector<std::string>{"model.layers", "optimizer.epsilon", "training.batch_size"}));
  EXPECT_TRUE(differences(b, b).empty());
}

struct Wrong {
  std::string text, message;
};

void PrintTo(const Wrong& wrong, std::ostream* out) {
  *out << wrong.text;
}

class WrongFile : public testing::TestWithParam<Wrong> {};

TEST_P(WrongFile, GivesTheWholeMessage) {
  EXPECT_EQ(error_of(GetParam().text), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Config, WrongFile,
    testing::Values(
        Wrong{"[training]\n\nbatchsize = 3",
              "unknown key training.batchsize (config.toml:3); did you mean training.batch_size?"},
        Wrong{"[trainning]\nseed = 3",
              "unknown section trainning (config.toml:1); did you mean training?"},
        Wrong{"seed = 3", "unknown key seed (config.toml:1); did you mean training.seed?"},
        Wrong{"[training]\nlearning_rate = 3",
              "unknown key training.learning_rate (config.toml:2); did you mean "
              "optimizer.learning_rate?"},
        Wrong{"[training]\nseed.low = 3",
              "training.seed (config.toml:2): found a table, expected an integer >= 0 (above 2^63 "
              "- 1 in quotes)"},
        Wrong{"training = 3", "training (config.toml:1): found 3, expected a section [training]"},
        Wrong{"[[training]]\nseed = 3",
              "training (config.toml:1): found an array, expected a section [training]"},
        Wrong{"[training]\nbatch_size = 0",
              "training.batch_size (config.toml:2): found 0, expected an integer >= 1"},
        Wrong{"[training]\nbatch_size = -7",
              "training.batch_size (config.toml:2): found -7, expected an integer >= 1"},
        Wrong{"[training]\nbatch_size = 1.5",
              "training.batch_size (config.toml:2): found 1.5, expected an integer >= 1"},
        Wrong{"[training]\nleaves = 6",
              "training.leaves (config.toml:2): found 6, expected an integer in [1, 4096], a "
              "power of two"},
        Wrong{"[training]\nleaves = 0",
              "training.leaves (config.toml:2): found 0, expected an integer in [1, 4096], a "
              "power of two"},
        Wrong{"[training]\nshuffle = 1",
              "training.shuffle (config.toml:2): found 1, expected true or false"},
        Wrong{"[training]\nprecision = \"float16\"",
              "training.precision (config.toml:2): found the string \"float16\", expected one of "
              "float32, bfloat16; did you mean \"bfloat16\"?"},
        Wrong{"[optimizer]\nlearning_rate = 0",
              "optimizer.learning_rate (config.toml:2): found 0, expected a number in (0, "
              "3.4e+38]"},
        Wrong{"[optimizer]\nlearning_rate = nan",
              "optimizer.learning_rate (config.toml:2): found nan, expected a number in (0, "
              "3.4e+38]"},
        Wrong{"[optimizer]\nlearning_rate = inf",
              "optimizer.learning_rate (config.toml:2): found inf, expected a number in (0, "
              "3.4e+38]"},
        Wrong{"[optimizer]\nlearning_rate = \"fast\"",
              "optimizer.learning_rate (config.toml:2): found the string \"fast\", expected a "
              "number in (0, 3.4e+38]"},
        Wrong{"[optimizer]\nname = \"adma\"",
              "optimizer.name (config.toml:2): found the string \"adma\", expected one of sgd, "
              "momentum, adagrad, rmsprop, adam, lamb; did you mean \"adam\"?"},
        Wrong{"[optimizer]\nmomentum = 1",
              "optimizer.momentum (config.toml:2): found 1, expected a number in [0, 1)"},
        Wrong{"[optimizer]\nweight_decay = -1e-3",
              "optimizer.weight_decay (config.toml:2): found -0.001, expected a number >= 0"},
        Wrong{"[data]\ntrain = \"a\"\n[model]\nlayers = [{ dense = 1 }]\n"
              "[optimizer]\nname = \"adam\"\nweight_decay = 0.01",
              "optimizer.weight_decay (config.toml:7): found 0.01 beside optimizer.name = \"adam\" "
              "(config.toml:6), expected 0 for all but lamb; regularization.l2 adds l2 * w to the "
              "gradient"},
        Wrong{"[optimizer]\nepsilon = 0",
              "optimizer.epsilon (config.toml:2): found 0, expected a number >= 1.2e-38"},
        Wrong{"[data]\ntrain = 2024-01-01",
              "data.train (config.toml:2): found a date or time, expected a string that is not "
              "empty"},
        Wrong{"[data]\ntrain = \"\"",
              "data.train (config.toml:2): found the string \"\", expected a string that is not "
              "empty"},
        Wrong{"[data]\nvalidation_fraction = 1.0",
              "data.validation_fraction (config.toml:2): found 1.0, expected a number in [0, 1)"},
        Wrong{"", "data.train (config.toml): missing, expected the HDF5 file of the training set"},
        Wrong{"[data]\ntrain = \"a\"",
              "model.layers (config.toml): missing, expected at least one layer such as "
              "[{ dense = 10 }]"},
        Wrong{"[model]\nlayers = []",
              "model.layers (config.toml:2): found an empty array, expected at least one layer "
              "such as [{ dense = 10 }]"},
        Wrong{"[model]\nlayers = 3",
              "model.layers (config.toml:2): found 3, expected at least one layer such as "
              "[{ dense = 10 }]"},
        Wrong{"[model]\nlayers = [\n{ dense = 3 },\n{ bias = true }]",
              "model.layers[1] (config.toml:4): found none of them, expected exactly one of "
              "dense, activation, batch_norm, dropout"},
        Wrong{"[model]\nlayers = [\n{ dense = 3, dropout = 0.5 }]",
              "model.layers[0] (config.toml:3): found both dense and dropout, expected exactly "
              "one of dense, activation, batch_norm, dropout"},
        Wrong{"[model]\nlayers = [\n{ dense = 3 },\n\n10]",
              "model.layers[1] (config.toml:5): found 10, expected a table such as "
              "{ dense = 10 }"},
        Wrong{"[model]\nlayers = [\n{ dense = 3, activaton = \"relu\" }]",
              "unknown key model.layers[0].activaton (config.toml:3); did you mean activation?"},
        Wrong{"[model]\nlayers = [{ dense = 3, activation = \"rleu\" }]",
              "model.layers[0].activation (config.toml:2): found the string \"rleu\", expected one "
              "of sigmoid, tanh, relu, leaky_relu, softmax; did you mean \"relu\"?"},
        Wrong{"[model]\nlayers = [{ dense = 0 }]",
              "model.layers[0].dense (config.toml:2): found 0, expected an integer in "
              "[1, 2147483647]"},
        Wrong{"[model]\nlayers = [{ dropout = 1.0 }]",
              "model.layers[0].dropout (config.toml:2): found 1.0, expected a number in [0, 1)"},
        Wrong{"[model]\nlayers = [{ dropout = 0.5, activation = \"relu\" }]",
              "model.layers[0].activation (config.toml:2): found the string \"relu\", but only "
              "dense and activation layers have this key"},
        Wrong{"[model]\nlayers = [{ dense = 3, activation = \"relu\", slope = 0.1 }]",
              "model.layers[0].slope (config.toml:2): found 0.1, but only layers with activation = "
              "\"leaky_relu\" have this key"},
        Wrong{"[model]\nlayers = [{ batch_norm = false }]",
              "model.layers[0].batch_norm (config.toml:2): found false, expected true, or no such "
              "layer"},
        Wrong{
            "[model]\nlayers = [{ batch_norm = true, dropout = 0.1 }]",
            "model.layers[0] (config.toml:2): found both batch_norm and dropout, expected exactly "
            "one of dense, activation, batch_norm, dropout"},
        Wrong{"[model]\nlayers = [{ batch_norm = true, momentum = 0.0 }]",
              "model.layers[0].momentum (config.toml:2): found 0.0, expected a number in (0, 1]"},
        Wrong{"[model]\nlayers = [{ batch_norm = true, scope = \"rank\" }]",
              "model.layers[0].scope (config.toml:2): found the string \"rank\", expected one of "
              "batch, leaf; did you mean \"batch\"?"},
        Wrong{
            "[model]\nlayers = [{ dense = 3, affine = false }]",
            "model.layers[0].affine (config.toml:2): found false, but only batch_norm layers have "
            "this key"},
        Wrong{"[model]\nlayers = [{ batch_norm = true, bias = false }]",
              "model.layers[0].bias (config.toml:2): found false, but only dense layers have this "
              "key"},
        Wrong{"[data]\ntrain = \"a\"\n[model]\nlayers = [\n{ dense = 3 }, { batch_norm = true }]\n"
              "[training]\nbatch_size = 1",
              "training.batch_size (config.toml:7): found one sample a step beside "
              "model.layers[1].batch_norm (config.toml:5): one sample has no variance, expected at "
              "least two samples in a batch"},
        Wrong{"[data]\ntrain = \"a\"\n[model]\nlayers = [\n{ dense = 3 }, { batch_norm = true }]\n"
              "[training]\ndescent = \"stochastic\"",
              "training.descent (config.toml:7): found one sample a step beside "
              "model.layers[1].batch_norm (config.toml:5): one sample has no variance, expected at "
              "least two samples in a batch"},
        Wrong{
            "[data]\ntrain = \"a\"\n[model]\nlayers = [\n{ dense = 3 }, { batch_norm = true, scope "
            "= "
            "\"leaf\" }]\n[training]\nbatch_size = 15",
            "training.batch_size (config.toml:7): found 15 beside model.layers[1].batch_norm "
            "(config.toml:5): one sample has no variance, expected at least two samples in each of "
            "the 8 leaves of a batch, which makes 16, for scope = \"leaf\""},
        Wrong{"[model]\nlayers = [{ dense = 3, scale = 0.1 }]",
              "model.layers[0].scale (config.toml:2): found 0.1, but only layers with initializer "
              "= \"normal\", \"uniform\" or \"constant\" have this key"},
        Wrong{"[model]\nlayers = [{ dense = 3, initializer = \"normal\", scale = -0.1 }]",
              "model.layers[0].scale (config.toml:2): found -0.1, expected a number >= 0"},
        Wrong{"[data]\ntrain = \"a\"\n[model]\nlayers = [\n{ dense = 3, activation = \"softmax\" "
              "},\n{ dense = 3 }]",
              "model.layers[0].activation (config.toml:5): found \"softmax\", expected it in the "
              "last layer alone"},
        Wrong{base + "[early_stopping]\npatience = 3",
              "early_stopping.patience (config.toml:6): found 3 without a validation set, expected "
              "0, or data.validation or data.validation_fraction > 0"},
        Wrong{base + "[early_stopping]\ntarget_accuracy = 0.98",
              "early_stopping.target_accuracy (config.toml:6): found 0.98 without a validation "
              "set, expected 0, or data.validation or data.validation_fraction > 0"},
        Wrong{"[early_stopping]\ntarget_accuracy = 98",
              "early_stopping.target_accuracy (config.toml:2): found 98, expected a number in "
              "[0, 1]"},
        Wrong{"[data]\ntrain = \"a\"\nvalidation = \"b\"\nvalidation_fraction = 0.1\n"
              "[model]\nlayers = [{ dense = 10 }]",
              "data.validation (config.toml:3): found a file beside data.validation_fraction = "
              "0.1 (config.toml:4), expected one of the two"},
        Wrong{"[data]\nvalidation = 3",
              "data.validation (config.toml:2): found 3, expected a string"},
        Wrong{base + "[checkpoint]\nkeep = 0",
              "checkpoint.keep (config.toml:6): found 0, expected an integer >= 1"},
        Wrong{base + "[comm]\ntimeout = 0.0",
              "comm.timeout (config.toml:6): found 0.0, expected a number > 0"}));

TEST(Config, SyntaxErrorsNameTheLine) {
  for (const std::string text : {"[data", "[data]\ntrain = ", "[data]\ntrain = \"x", "x = 1\nx = 2",
                                 "[training]\nseed = 18446744073709551615", "\xff\xfe", "a\0b"}) {
    EXPECT_EQ(error_of(text).find("config.toml:"), 0U);
    EXPECT_NE(error_of(text).find(": not valid TOML: "), std::string::npos) << error_of(text);
  }
}

TEST(Config, WrongSettings) {
  EXPECT_EQ(setting_error("training.batch_size"),
            "--set: found \"training.batch_size\", expected section.key=value");
  EXPECT_EQ(setting_error("=3"), "--set: found \"=3\", expected section.key=value");
  EXPECT_EQ(setting_error("batch_size=3"),
            "unknown key batch_size (--set); did you mean training.batch_size?");
  EXPECT_EQ(setting_error("training.batchsize=3"),
            "unknown key training.batchsize (--set); did you mean training.batch_size?");
  EXPECT_EQ(setting_error("training.batch_size=0"),
            "training.batch_size (--set): found 0, expected an integer >= 1");
  EXPECT_EQ(setting_error("training.batch_size=many"),
            "training.batch_size (--set): found the string \"many\", expected an integer >= 1");
  EXPECT_EQ(setting_error("optimizer.name=Adma").substr(0, 63),
            "optimizer.name (--set): found the string \"Adma\", expected one o");
  EXPECT_EQ(setting_error("model.layers=[{dense=3, dropout=0.1}]"),
            "model.layers[0] (--set): found both dense and dropout, expected exactly one of dense, "
            "activation, batch_norm, dropout");
  EXPECT_NE(setting_error("model.layers=[{dense=3}").find("not valid TOML"), std::string::npos);
  EXPECT_NE(setting_error("data.test=\xff\xfe").find("--set data.test:1: not valid TOML"),
            std::string::npos);
  EXPECT_EQ(error_of("", {"model.layers=[{dense=3}]"}),
            "data.train (config.toml): missing, expected the HDF5 file of the training set");
  EXPECT_EQ(error_of(base, {"early_stopping.patience=2"}),
            "early_stopping.patience (--set): found 2 without a validation set, expected 0, or "
            "data.validation or data.validation_fraction > 0");
}

TEST(Config, EarlyStoppingTakesEitherKindOfValidationSet) {
  for (const std::string key : {"patience=2", "target_accuracy=0.5", "target_accuracy=1"}) {
    for (const std::string set : {"validation=v.h5", "validation_fraction=0.1"}) {
      const Config config = parse(base, {"early_stopping." + key, "data." + set});
      expect_same(parse(to_toml(config)), config);
    }
  }
  const Config config =
      parse(base, {"data.validation=v.h5", "early_stopping.target_accuracy=0.98"});
  EXPECT_EQ(config.data.validation, "v.h5");
  EXPECT_EQ(config.early_stopping.target_accuracy, 0.98);
}

TEST(Config, SoftmaxMayEndTheNetwork) {
  parse(base, {"model.layers=[{dense=3, activation='softmax'}]"});
  parse(base, {"model.layers=[{dense=3}, {activation='softmax'}]"});
  EXPECT_THROW(parse(base, {"model.layers=[{dense=3, activation='softmax'}, {dropout=0.1}]"}),
               ConfigError);
}

TEST(Config, UnreadableFiles) {
  const auto message = [](const std::filesystem::path& path) -> std::string {
    try {
      read_config(path);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message("/nonexistent/config.toml"),
            "/nonexistent/config.toml: no such file, expected a configuration in TOML");
  const std::filesystem::path directory = std::filesystem::temp_directory_path();
  EXPECT_EQ(message(directory),
            directory.string() + ": is a directory, expected a configuration in TOML");
  const std::filesystem::path file =
      directory / ("lockstep-config-test-" + std::to_string(getpid()) + ".toml");
  std::ofstream(file).close();
  EXPECT_EQ(message(file), "data.train (" + file.string() +
                               "): missing, expected the HDF5 file of the training set");
  std::ofstream(file) << base;
  expect_same(read_config(file), parse(base));
  std::filesystem::remove(file);
}

// Every key is in the written configuration and in the help, with one line each.
TEST(Config, HelpAndTomlNameEveryKey) {
  const std::string help = describe_keys();
  for (const std::string key :
       {"data.train", "model.layers", "model.layers[].dense", "model.layers[].slope",
        "optimizer.epsilon", "training.leaves", "comm.timeout"}) {
    EXPECT_NE(help.find(key), std::string::npos) << key;
  }
  std::size_t start = 0, column = help.find("default");
  while (start < help.size()) {  // aligned: a blank before the second column, none at its start
    EXPECT_EQ(help[start + column - 1], ' ');
    EXPECT_NE(help[start + column], '\n');
    start = help.find('\n', start) + 1;
  }
  const std::string text = to_toml(parse(base));
  EXPECT_NE(text.find("[training]\n"), std::string::npos);
  EXPECT_NE(text.find("learning_rate = 0.01\n"), std::string::npos);
  EXPECT_NE(text.find("# epsilon unset: by optimizer\n"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::trainer

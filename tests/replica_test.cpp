// What happens to a run when a replica is no longer what it should be. Bits are flipped behind the
// trainer's back, as failing memory would.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "comm_main.hpp"
#include "small_dataset.hpp"
#include "trainer/replica_guard.hpp"
#include "trainer/training.hpp"

namespace lockstep::trainer {
namespace {

using comm::test::world;

Config wide_config() {
  Config config;
  config.data.validation_fraction = 0;
  LayerConfig hidden;
  hidden.units = 4096;
  hidden.activation = "relu";
  LayerConfig output;
  output.units = 3;
  config.model.layers = {hidden, output};
  config.training.batch_size = 16;
  config.training.steps = 40;
  config.comm.compare_every = 13;  // epochs of the data below: then a step is done when it returns
  return config;
}

void flip(std::span<const float> parameters, std::size_t i) {
  float& value = const_cast<float&>(parameters[i]);
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= 1U << 20;
  std::memcpy(&value, &bits, sizeof bits);
}

// The last rank's element number i changes before step `step`. Returns what the run says, or
// nothing.
std::string train_with_flip(std::size_t (*place)(const Training&), std::uint64_t step,
                            const Config& config) {
  const auto data = test::small_dataset(200);
  Training training(config, data, world());
  const std::size_t i = place(training);
  std::uint64_t steps = 0;
  const auto stop = [&] {
    ++steps;  // it is asked for before each step
    if (steps == step && world().rank() + 1 == world().size()) flip(training.result(), i);
    return false;
  };
  try {
    training.run({}, stop);
  } catch (const ReplicaError& error) {
    return error.what();
  }
  return "";
}

// What the exchange makes of the words of all ranks.
std::vector<std::uint64_t> words_of_all(const ReplicaGuard& guard) {
  std::vector<std::uint64_t> all(guard.words().size());
  const std::string mine(reinterpret_cast<const char*>(guard.words().data()),
                         guard.words().size_bytes());
  for (const std::string& words : world().gather_strings(mine)) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::uint64_t word;
      std::memcpy(&word, &words[i * sizeof word], sizeof word);
      all[i] |= word;
    }
  }
  return all;
}

// Whole runs in which this happens are in replica_faults_test: no rank is of use after it.
TEST(Replica, AnyElementThatChangesByItselfIsFoundAtTheNextChange) {
  if (world().size() == 1) return;
  const auto data = test::small_dataset(200);
  const Config config = wide_config();
  Training training(config, data, world());
  ReplicaGuard guard(training.exchange(), world());
  guard.remember(training.result());
  guard.hear(words_of_all(guard));
  guard.begin(7);
  const std::size_t elements = training.exchange().buckets().front().end;
  const auto all = training.result().first(elements);
  for (const std::size_t i : {std::size_t{0}, comm::chunk - 1, comm::chunk, elements / 2 + 1,
                              elements - comm::chunk, elements - 1}) {
    EXPECT_NO_THROW(guard.before_change(0, all));
    flip(training.result(), i);
    try {
      guard.before_change(0, all);
      FAIL() << "it did not notice element " << i;
    } catch (const ReplicaError& error) {
      const std::string text = error.what();
      const std::string rank = std::to_string(world().rank());
      EXPECT_EQ(text.find("parameters of rank " + rank + " changed"), 0U) << text;
      EXPECT_NE(text.find("before step 7"), std::string::npos) << text;
      EXPECT_NE(text.find("of bucket 1 of 1"), std::string::npos) << text;
    }
    flip(training.result(), i);
  }
  EXPECT_NO_THROW(guard.before_change(0, all));
}

TEST(Replica, ReplicasThatDifferAreFoundByComparison) {
  if (world().size() == 1) return;
  const auto data = test::small_dataset(200);
  const Config config = wide_config();
  Training training(config, data, world());
  const ReplicaGuard guard(training.exchange(), world());
  EXPECT_NO_THROW(guard.compare(26, training.result()));
  const std::size_t last = world().size() - 1;  // of two ranks, the one that is not 0
  if (world().rank() == last) flip(training.result(), 5);
  try {
    guard.compare(26, training.result());
    FAIL() << "it did not notice";
  } catch (const ReplicaError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find("the replica of rank " + std::to_string(last) + " differs"), 0U) << text;
    EXPECT_NE(text.find("after step 26"), std::string::npos) << text;
    EXPECT_NE(text.find("bucket 1 of 1"), std::string::npos) << text;
  }
}

// Each rank has them for itself: no owner's values overwrite them.
TEST(Replica, AStatisticThatDiffersIsFoundAtTheNextComparison) {
  if (world().size() == 1) return;
  Config config = wide_config();
  LayerConfig norm;
  norm.kind = LayerConfig::Kind::batch_norm;
  config.model.layers.insert(config.model.layers.begin() + 1, norm);
  const auto a_running_mean = [](const Training& training) {
    return training.result().size() - training.network().layers()[0]->outputs();
  };
  const std::string text = train_with_flip(a_running_mean, 20, config);
  EXPECT_NE(text.find("differs from the others' after step 26, in the statistics"),
            std::string::npos)
      << text;
  EXPECT_EQ(train_with_flip(a_running_mean, 1000, config), "");
}

TEST(Replica, EachRankKeepsItsShareOfTheMoments) {
  const auto data = test::small_dataset(200);
  Config config = wide_config();
  config.optimizer.name = "adam";
  config.model.layers[0].units = 100'000;
  Training training(config, data, world());
  const double all = 2 * sizeof(float) * 900'003;
  const double share = all / static_cast<double>(world().size());
  EXPECT_NEAR(static_cast<double>(training.memory().moments), share, 0.02 * share);
}

}  // namespace
}  // namespace lockstep::trainer

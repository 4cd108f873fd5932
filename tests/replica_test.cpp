// What happens to a run when a replica is no longer what it should be. Bits are flipped behind the
// trainer's back, as failing memory would.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

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

// The last rank's weight number i changes before step `from` and, if it stays, before every step
// after it. Returns what the run says, or nothing.
std::string train_with_flips(std::size_t (*place)(const Training&), std::uint64_t from, bool stays,
                             const Config& config = wide_config()) {
  const auto data = test::small_dataset(200);
  Training training(config, data, world());
  const std::size_t i = place(training);
  std::uint64_t steps = 0;
  const auto stop = [&] {
    ++steps;  // it is asked for before each step
    const bool now = stays ? steps >= from : steps == from;
    if (now && world().rank() + 1 == world().size()) flip(training.result(), i);
    return false;
  };
  try {
    training.run({}, stop);
  } catch (const ReplicaError& error) {
    return error.what();
  }
  return "";
}

std::size_t first_owned(const Training& training) {
  return training.exchange().owned().front().begin;
}

// An element that another rank moves.
std::size_t not_owned(const Training& training) {
  std::size_t i = 0;
  for (const comm::Shard& shard : training.exchange().owned()) {
    if (shard.begin <= i && i < shard.end) i = shard.end;
  }
  return i;
}

TEST(Replica, AShareThatChangesByItselfIsFoundInTheNextStep) {
  if (world().size() == 1) return;
  // Only its rank sees it; the others are told through together(), which is not at work here.
  const auto data = test::small_dataset(200);
  Training training(wide_config(), data, world());
  comm::Communicator& ranks = world();
  ReplicaGuard guard(training.exchange(), ranks);
  const std::size_t i = first_owned(training);
  guard.remember(training.result());
  const auto chunk = training.result().subspan(i, 100);
  guard.after_move(i, chunk);
  EXPECT_NO_THROW(guard.before_move(7, i, chunk));
  flip(training.result(), i + 50);
  try {
    guard.before_move(7, i, chunk);
    FAIL() << "it did not notice";
  } catch (const ReplicaError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("rank " + std::to_string(ranks.rank()) + " changed"), std::string::npos);
    EXPECT_NE(text.find("before step 7"), std::string::npos) << text;
    EXPECT_NE(text.find("bucket"), std::string::npos) << text;
  }
}

TEST(Replica, AWeightThatStaysWrongIsFoundAtTheNextComparison) {
  if (world().size() == 1) return;
  const std::string text = train_with_flips(not_owned, 20, true);
  const std::string last =
      std::to_string(world().size() - 1);  // of two ranks, the one that is not 0
  EXPECT_EQ(text.find("the replica of rank " + last + " differs"), 0U) << text;
  EXPECT_NE(text.find("after step 26"), std::string::npos) << text;
  EXPECT_NE(text.find("bucket 1 of 1"), std::string::npos) << text;
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
  const std::string text = train_with_flips(a_running_mean, 20, false, config);
  EXPECT_NE(text.find("differs from the others' after step 26, in the statistics"),
            std::string::npos)
      << text;
  EXPECT_EQ(train_with_flips(a_running_mean, 1000, false, config), "");
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

TEST(Replica, AnUndisturbedRunIsNotAccused) {
  EXPECT_EQ(train_with_flips(not_owned, 1000, false), "");
}

}  // namespace
}  // namespace lockstep::trainer

// A training in which one weight of the last rank changes behind the trainer's back, once, between
// two updates, as a memory that fails would do it: replica_faults PLACE WAY. replica_faults_test
// runs it under mpirun.
//   PLACE  own: an element that the rank moves; other: one that another rank moves;
//          shared_own, shared_other: the same among weights whose gradient is shared out by weights;
//          small: one of a network so small that every rank moves all of it; none: nothing changes
//   WAY    memory: ranks share memory; messages: they do not
// Prints "saved" when something is saved, and ends as the program would.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "comm/error.hpp"
#include "comm/session.hpp"
#include "comm/together.hpp"
#include "small_dataset.hpp"
#include "trainer/exit_code.hpp"
#include "trainer/training.hpp"

namespace {

using namespace lockstep::trainer;
using lockstep::comm::Communicator;
using lockstep::comm::Session;

constexpr std::size_t kSamples = 200;
constexpr std::size_t kBatch = 16;
constexpr std::size_t kEpoch = (kSamples + kBatch - 1) / kBatch;  // steps

Config config_of(const std::string& place, const std::string& way) {
  Config config;
  config.data.validation_fraction = 0;
  LayerConfig hidden;
  hidden.units = place == "small" ? 16 : 4096;
  hidden.activation = "relu";
  LayerConfig output;
  output.units = 3;
  config.model.layers = {hidden, output};
  if (place.starts_with("shared")) {
    hidden.units = 512;
    config.model.layers = {hidden, hidden, output};
  }
  config.training.batch_size = kBatch;
  config.training.steps = 3 * kEpoch;
  config.comm.compare_every = 0;
  config.comm.first_bucket_mib = 0.04;  // more than is small
  config.comm.bucket_mib = 0.04;
  config.comm.shared_memory = way == "memory";
  return config;
}

std::size_t element_at(const std::string& place, const Training& training) {
  const auto owned = training.exchange().owned();
  if (place.starts_with("shared")) {
    const bool own = place == "shared_own";
    const auto is_owned = [&](std::size_t i) {
      return std::ranges::any_of(owned,
                                 [i](const auto& one) { return one.begin <= i && i < one.end; });
    };
    std::size_t i = training.network().layout().tensors()[2].offset + 70'001;
    while (is_owned(i) != own) ++i;
    return i;
  }
  if (place != "other") return owned.front().begin + 7;
  std::size_t i = 7;
  for (const lockstep::comm::Shard& shard : owned) {
    if (shard.begin <= i && i < shard.end) i = shard.end;
  }
  return i;
}

void flip(std::span<const float> parameters, std::size_t i) {
  float& value = const_cast<float&>(parameters[i]);
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= 1U;
  std::memcpy(&value, &bits, sizeof bits);
}

void run(Communicator& world, const std::string& place, const std::string& way) {
  const auto data = lockstep::test::small_dataset(kSamples);
  const Config config = config_of(place, way);
  Training training(config, data, world);
  const std::size_t i = element_at(place, training);
  std::size_t steps = 0;
  const auto before_step = [&] {
    // After an epoch's last step, of whose norm is told, no exchange is under way.
    const bool now = ++steps == kEpoch + 1 && place != "none";
    if (now && world.rank() + 1 == world.size()) flip(training.result(), i);
    return false;
  };
  TrainingObserver observer;
  if (world.rank() == 0) observer.save = [](const Checkpoint&) { std::puts("saved"); };
  training.run(observer, before_step);
}

int code_of(const std::exception_ptr& error) {
  return static_cast<int>(exit_code_of(error));
}

}  // namespace

int main(int argc, char** argv) {
  Session session(argc, argv);
  session.world().set_timeout(20.0);
  int code = 0;
  try {
    if (argc != 3) throw std::invalid_argument("replica_faults wants PLACE WAY");
    together(session.world(), code_of, [&] { run(session.world(), argv[1], argv[2]); });
  } catch (...) {
    code = code_of(std::current_exception());
    const std::string message = message_of(std::current_exception());
    if (!message.empty()) std::printf("error: %s\n", message.c_str());
  }
  std::fflush(stdout);
  if (!session.in_step()) session.abort(code);
  session.finalize();
  return code;
}

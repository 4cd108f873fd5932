// Training steps of a network in which computing is time that passes and the exchange is the real
// one:
//   smpirun -np 64 -platform … -hostfile … simulated_step     under SimGrid
//   mpirun -np 2 simulated_step                               on real ranks
//
// One rank a node. `step` is the mean time of steps in steady state, `computing` that of a node
// without others; rank 0 prints one line of JSON. Options, and what they are unless said:
//   --samples N (512)         of each rank; --batch N: of all ranks together
//   --widths N,N,… (784,2048,2048,10)
//   --gflops F (230)          of a node's products
//   --memory F (51)           GB/s of a node's additions and updates; simulated ranks only
//   --slice F (0.1)           milliseconds of computing between two looks at the exchange
//   --steps N (5), --warm N (2)
//   --first-bucket KIB, --other-buckets KIB (of BucketSizes)
//   --no-overlap              gradients go when backward is done, and the next forward waits for all
//   --unwatched               replicas are not guarded by check sums
//   --always-apart            of ParameterExchange::Options
//   --share-memory            see node.hpp
// and instead of steps:
//   --check                   sums of random numbers are the bits of the serial tree
//   --exchange KIB            the time of one exchange of so many, the fastest of --steps
//   --link                    what two ranks reach: seconds of an empty message, bytes/s both ways at once
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/detail/mpi.hpp"
#include "comm/parameter_exchange.hpp"
#include "comm/parameter_watch.hpp"
#include "comm/session.hpp"
#include "comm/tree_sum.hpp"
#include "serial_tree.hpp"
#include "simulate/node.hpp"
#include "simulate/workload.hpp"

namespace {

using lockstep::comm::Communicator;
using lockstep::comm::LeafRange;
using lockstep::comm::ParameterExchange;
using lockstep::simulate::Layer;
using lockstep::simulate::pass_time;

struct Options {
  std::size_t samples = 512;
  std::size_t batch = 0;
  std::vector<std::size_t> widths = {784, 2048, 2048, 10};
  double gflops = 230;
  double memory = 51;
  double slice = 0.1;
  std::size_t steps = 5;
  std::size_t warm = 2;
  std::size_t exchange = 0;
  bool overlap = true;
  bool watched = true;
  bool share_memory = false;
  bool check = false;
  bool link = false;
  ParameterExchange::Options how{.shared_memory = false,
                                 .thread = ParameterExchange::Thread::never};
};

std::vector<std::size_t> numbers_in(const char* text) {
  std::vector<std::size_t> numbers;
  for (char* next = const_cast<char*>(text); *next != '\0'; next += *next == ',') {
    numbers.push_back(std::strtoul(next, &next, 10));
    if (*next != ',' && *next != '\0') return {};
  }
  return numbers;
}

Options options_from(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto given = [&](const char* wanted) { return name == wanted && i + 1 < argc; };
    const auto count = [&] { return std::strtoul(argv[++i], nullptr, 10); };
    const auto number = [&] { return std::strtod(argv[++i], nullptr); };
    if (name == "--no-overlap")
      o.overlap = false;
    else if (name == "--unwatched")
      o.watched = false;
    else if (name == "--always-apart")
      o.how.always_apart = true;
    else if (name == "--share-memory")
      o.share_memory = true;
    else if (name == "--check")
      o.check = true;
    else if (name == "--link")
      o.link = true;
    else if (given("--samples"))
      o.samples = count();
    else if (given("--batch"))
      o.batch = count();
    else if (given("--widths"))
      o.widths = numbers_in(argv[++i]);
    else if (given("--gflops"))
      o.gflops = number();
    else if (given("--memory"))
      o.memory = number();
    else if (given("--slice"))
      o.slice = number();
    else if (given("--steps"))
      o.steps = count();
    else if (given("--warm"))
      o.warm = count();
    else if (given("--exchange"))
      o.exchange = count() << 10;
    else if (given("--first-bucket"))
      o.how.buckets.first = count() << 10;
    else if (given("--other-buckets"))
      o.how.buckets.others = count() << 10;
    else
      throw std::invalid_argument("unknown option " + name);
  }
  if (o.widths.size() < 2) throw std::invalid_argument("--widths wants two numbers or more");
  return o;
}

// As few leaves as there are ranks; where that is no power of two so many that no rank has much
// more of them than another.
std::size_t leaves_for(std::size_t ranks) {
  return std::has_single_bit(ranks) ? ranks : 16 * std::bit_ceil(ranks);
}

// ---- a training step ----------------------------------------------------------------------------

class Step final : public lockstep::comm::ParameterWatch {
 public:
  Step(Communicator& world, const Options& options)
      : options_(options),
        layers_(lockstep::simulate::layers_of(options.widths)),
        leaves_(leaves_for(world.size())),
        rows_(rows_of(world)),
        backward_(lockstep::simulate::backward_of(layers_, rows_)),
        present_(leaves_, 1),
        words_(lockstep::comm::chunks_in(lockstep::simulate::elements_of(layers_))),
        exchange_(world, leaves_, lockstep::simulate::elements_of(layers_), options.how) {
    // Momentum: reads sum, parameter and moment, and writes the latter two.
    exchange_.set_move([this](std::size_t, std::span<const float> sum, std::span<float>, unsigned) {
      moved_bytes_ += 5 * static_cast<double>(sum.size_bytes());
    });
    if (options.watched) exchange_.set_watch(*this);
  }

  // A check sum reads what it is of; a single chunk is read anyway by what changes it next.
  void before_change(std::size_t, std::span<const float> parameters) override { read(parameters); }
  void after_move(std::size_t, std::span<const float>) override {}
  std::span<const std::uint64_t> words() const override { return words_; }
  void hear(std::span<const std::uint64_t>) override {}

  // What a node alone computes. Its update is made where the gradient is summed, in that time.
  double computing() const {
    double multiply_adds = 0;
    for (const Layer& layer : layers_) multiply_adds += layer.multiply_adds(rows_);
    for (const auto& stretch : backward_) multiply_adds += stretch.multiply_adds;
    return seconds_of(multiply_adds);
  }

  void run() {
    for (const Layer& layer : layers_) {
      if (options_.overlap) exchange_.wait_for(layer.end);
      compute(layer.multiply_adds(rows_));
    }
    exchange_.finish();
    exchange_.begin(present_, 0);
    for (const auto& stretch : backward_) {
      compute(stretch.multiply_adds);
      if (!options_.overlap) continue;
      exchange_.final_from(stretch.movable_from);
      exchange_.sums_final_from(stretch.sums_final_from);
    }
    exchange_.final_from(0);
    exchange_.raised();
    if (!options_.overlap) finish();
  }

  void finish() {
    exchange_.finish();
    pay_for_updates();
  }

  std::string describe() const { return exchange_.describe(); }

 private:
  double rows_of(const Communicator& world) const {
    const std::size_t batch = options_.batch > 0 ? options_.batch : options_.samples * world.size();
    const LeafRange own = lockstep::comm::leaves_of_rank(world.rank(), world.size(), leaves_);
    return static_cast<double>(own.end * batch / leaves_ - own.begin * batch / leaves_);
  }

  double seconds_of(double multiply_adds) const {
    return 2 * multiply_adds / (options_.gflops * 1e9);
  }

  // In slices, between which the exchange goes on: what its thread does on a real node.
  void compute(double multiply_adds) {
    const double slice = options_.slice * 1e-3;
    for (double left = seconds_of(multiply_adds); left > 0; left -= slice) {
      pass_time(std::min(left, slice));
      if (options_.overlap) exchange_.progress();
      pay_for_updates();
    }
  }

  void read(std::span<const float> values) {
    if (values.size() > lockstep::comm::chunk) {
      pass_time(static_cast<double>(values.size_bytes()) / (options_.memory * 1e9));
    }
  }

  void pay_for_updates() {
    pass_time(moved_bytes_ / (options_.memory * 1e9));
    moved_bytes_ = 0;
  }

  Options options_;
  std::vector<Layer> layers_;
  std::size_t leaves_;
  double rows_;
  std::vector<lockstep::simulate::Stretch> backward_;
  std::vector<std::uint8_t> present_;
  std::vector<std::uint64_t> words_;
  double moved_bytes_ = 0;
  ParameterExchange exchange_;
};

void run_steps(Communicator& world, const Options& options) {
  Step step(world, options);
  for (std::size_t i = 0; i < options.warm; ++i) step.run();
  const double start = MPI_Wtime();
  for (std::size_t i = 0; i < options.steps; ++i) step.run();
  const double seconds = (MPI_Wtime() - start) / static_cast<double>(options.steps);
  step.finish();
  if (world.rank() == 0) {
    std::printf("{\"nodes\": %zu, \"step\": %.9f, \"computing\": %.9f}\n", world.size(), seconds,
                step.computing());
  }
}

// ---- one exchange -------------------------------------------------------------------------------

// Whatever else a machine does only adds.
double fastest(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

// Seconds that `work` takes on the slowest rank, all having started together.
double slowest(const std::function<void()>& work) {
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  work();
  const double mine = MPI_Wtime() - start;
  double all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return all;
}

void time_exchange(Communicator& world, const Options& options) {
  const std::size_t leaves = leaves_for(world.size());
  ParameterExchange exchange(world, leaves, options.exchange / sizeof(float), options.how);
  exchange.set_move([](std::size_t, std::span<const float>, std::span<float>, unsigned) {});
  const std::vector<std::uint8_t> present(leaves, 1);
  std::vector<double> seconds;
  for (std::size_t i = 0; i < options.warm + options.steps; ++i) {
    const double one = slowest([&] {
      exchange.begin(present, 0);
      exchange.final_from(0);
      exchange.finish();
    });
    if (i >= options.warm) seconds.push_back(one);
  }
  if (world.rank() == 0) {
    std::printf("{\"nodes\": %zu, \"bytes\": %zu, \"exchange\": %.9f}\n", world.size(),
                options.exchange, fastest(seconds));
  }
}

// Neighbours in pairs, all pairs at once, each rank sending and receiving, as the exchange does.
void time_link(Communicator& world, const Options& options) {
  const int peer = static_cast<int>(world.rank() ^ 1);
  std::vector<float> out(std::size_t{2} << 20, 1.0F);
  std::vector<float> in(out.size());
  const auto swap = [&](std::size_t bytes) {
    MPI_Sendrecv(out.data(), static_cast<int>(bytes), MPI_BYTE, peer, 0, in.data(),
                 static_cast<int>(bytes), MPI_BYTE, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  };
  const std::size_t bytes = out.size() * sizeof(float);
  std::vector<double> empty;
  std::vector<double> full;
  std::vector<double> additions;
  for (std::size_t i = 0; i < options.warm + options.steps; ++i) {
    constexpr int times = 100;
    empty.push_back(slowest([&] {
                      for (int k = 0; k < times; ++k) swap(0);
                    }) /
                    times);
    full.push_back(slowest([&] { swap(bytes); }));
    additions.push_back(slowest([&] { lockstep::comm::add_to(in.data(), out.data(), in.size()); }));
  }
  if (world.rank() == 0) {
    std::printf("{\"nodes\": %zu, \"latency\": %.9f, \"bandwidth\": %.0f, \"additions\": %.0f}\n",
                world.size(), fastest(empty), static_cast<double>(bytes) / fastest(full),
                3 * static_cast<double>(bytes) / fastest(additions));
  }
}

// ---- the answer ---------------------------------------------------------------------------------

void check_sums(Communicator& world, const Options& options) {
  using namespace lockstep::comm::test;
  constexpr std::size_t elements = 100'003;
  const std::size_t count = leaves_for(world.size());
  const auto leaves = random_leaves(count, elements, 1);
  auto how = options.how;
  how.buckets = {64 << 10, 128 << 10};
  how.replicated_bytes = 16 << 10;
  ParameterExchange exchange(world, count, elements, how);
  exchange.set_move(
      [](std::size_t begin, std::span<const float> sum, std::span<float> moved, unsigned) {
        std::memcpy(moved.data() + begin, sum.data(), sum.size_bytes());
      });
  const std::vector<std::uint8_t> present(count, 1);
  for (std::size_t i = 0; i < exchange.subtrees().size(); ++i) {
    const Floats sum = *serial_sum(exchange.subtrees()[i], leaves, present);
    std::copy(sum.begin(), sum.end(), exchange.partial(i).begin());
  }
  exchange.begin(present, 0);
  for (std::size_t end = elements; end > 0; end -= std::min<std::size_t>(end, 7000)) {
    exchange.final_from(std::min(elements, end + 40'000));  // parameters are read for longer
    exchange.sums_final_from(end);
    pass_time(1e-4);
    exchange.progress();
  }
  exchange.final_from(0);
  exchange.finish();
  const Floats expected = *serial_sum({0, count}, leaves, present);
  const bool same =
      std::memcmp(expected.data(), exchange.parameters().data(), elements * sizeof(float)) == 0;
  if (world.any(!same)) throw std::runtime_error("the sums are not those of the serial tree");
  if (world.rank() == 0) std::printf("{\"nodes\": %zu, \"bits\": \"equal\"}\n", world.size());
}

void run(Communicator& world, const Options& options) {
  lockstep::simulate::set_addition_bandwidth(options.memory * 1e9);
  if (options.share_memory) lockstep::simulate::share_all_memory();
  if (options.check)
    check_sums(world, options);
  else if (options.link)
    time_link(world, options);
  else if (options.exchange > 0)
    time_exchange(world, options);
  else
    run_steps(world, options);
}

}  // namespace

int main(int argc, char** argv) {
  lockstep::comm::Session session(argc, argv);
  try {
    const Options options = options_from(argc, argv);
    run(session.world(), options);
    // Of a thousand simulated ranks, which all say goodbye to each other, that takes longer than
    // steps.
    if (options.share_memory && session.world().rank() == 0) {
      std::fflush(stdout);
      std::_Exit(0);
    }
    session.finalize();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "simulated_step: %s\n", error.what());
    session.abort(1);
  }
  return 0;
}

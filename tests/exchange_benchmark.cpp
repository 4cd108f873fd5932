// The exchange of gradients beside MPI_Allreduce, in one run and in turn: mpirun -np N
// exchange_benchmark
//
// Sums 64 KiB to 64 MiB of floats over all ranks by ParameterExchange, with the sum as the moved
// parameters, which makes it an all-reduce, and by the installed MPI. Both answers are checked. A
// time is that of the slowest rank; the median over the rounds counts. For each size also the bytes
// that every rank must at least read and write, over the time, beside what memory gives all ranks
// at once.
//
// Options: --rounds N (21), --largest MIB (64), --messages (no shared memory), --json FILE
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/detail/mpi.hpp"
#include "comm/parameter_exchange.hpp"
#include "comm/session.hpp"

namespace {

using lockstep::comm::Communicator;
using lockstep::comm::ParameterExchange;
using Clock = std::chrono::steady_clock;

struct Options {
  std::size_t rounds = 21;
  std::size_t largest = 64;  // MiB
  bool messages = false;
  std::string json;
};

Options options_from(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const bool has_value = i + 1 < argc;
    if (name == "--messages") {
      options.messages = true;
    } else if (name == "--rounds" && has_value) {
      options.rounds = std::strtoul(argv[++i], nullptr, 10);
    } else if (name == "--largest" && has_value) {
      options.largest = std::strtoul(argv[++i], nullptr, 10);
    } else if (name == "--json" && has_value) {
      options.json = argv[++i];
    } else {
      std::fprintf(stderr, "exchange_benchmark: unknown option %s\n", argv[i]);
      std::exit(2);
    }
  }
  return options;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Seconds that `work` takes on the slowest rank, all having started together.
double slowest(Communicator& world, const std::function<void()>& work) {
  MPI_Barrier(MPI_COMM_WORLD);
  const auto start = Clock::now();
  work();
  const double mine = std::chrono::duration<double>(Clock::now() - start).count();
  std::vector<double> all(world.size());
  MPI_Allgather(&mine, 1, MPI_DOUBLE, all.data(), 1, MPI_DOUBLE, MPI_COMM_WORLD);
  return *std::max_element(all.begin(), all.end());
}

// Whole numbers, whose sums are exact in any order.
float value_of(std::size_t rank, std::size_t i) {
  return static_cast<float>((i * 7 + rank * 3) % 1000);
}

void check(std::span<const float> sum, std::size_t ranks, const char* whose) {
  for (std::size_t i = 0; i < sum.size(); i += 997) {
    float expected = 0;
    for (std::size_t r = 0; r < ranks; ++r) expected += value_of(r, i);
    if (sum[i] == expected) continue;
    std::fprintf(stderr, "%s: element %zu is %g, not %g\n", whose, i, sum[i], expected);
    std::abort();
  }
}

// Bytes/s that all ranks together move when each copies memory that no cache holds.
double memory_bandwidth(Communicator& world) {
  constexpr std::size_t floats = std::size_t{32} << 20;
  std::vector<float> from(floats, 1.0F);
  std::vector<float> to(floats);
  std::vector<double> seconds;
  for (int i = 0; i < 5; ++i) {
    seconds.push_back(slowest(world, [&] { std::memcpy(to.data(), from.data(), 4 * floats); }));
  }
  return 8.0 * floats * static_cast<double>(world.size()) / median(seconds);
}

struct Row {
  std::size_t bytes;
  double ours;
  double mpi;
};

// Partial sums stand in leaves' order; with a power of two of ranks each rank has one.
Row measure(Communicator& world, std::size_t bytes, const Options& options) {
  const std::size_t floats = bytes / sizeof(float);
  ParameterExchange exchange(world, 64, floats, {.shared_memory = !options.messages});
  exchange.set_move(
      [](std::size_t begin, std::span<const float> sum, std::span<float> moved, unsigned) {
        std::memcpy(moved.data() + begin, sum.data(), sum.size_bytes());
      });
  const std::vector<std::uint8_t> present(64, 1);
  std::vector<float> mine(floats);
  std::vector<float> total(floats);
  for (std::size_t i = 0; i < floats; ++i) mine[i] = value_of(world.rank(), i);
  std::vector<double> ours;
  std::vector<double> mpi;
  for (std::size_t round = 0; round < options.rounds + 2; ++round) {
    // As after a backward pass: written by this rank just now.
    for (std::size_t s = 1; s < exchange.subtrees().size(); ++s) {
      std::fill(exchange.partial(s).begin(), exchange.partial(s).end(), 0.0F);
    }
    std::copy(mine.begin(), mine.end(), exchange.partial(0).begin());
    const double a = slowest(world, [&] {
      exchange.begin(present, 0);
      exchange.final_from(0);
      exchange.finish();
    });
    const double b = slowest(world, [&] {
      MPI_Allreduce(mine.data(), total.data(), static_cast<int>(floats), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
    });
    check(exchange.parameters(), world.size(), "exchange");
    check(total, world.size(), "MPI_Allreduce");
    if (round < 2) continue;  // memory is met for the first time
    ours.push_back(a);
    mpi.push_back(b);
  }
  return {bytes, median(ours), median(mpi)};
}

void run(Communicator& world, const Options& options) {
  const bool prints = world.rank() == 0;
  const double limit = memory_bandwidth(world);
  if (prints) {
    std::printf("%zu ranks; a copy moves %.1f GB/s in all\n", world.size(), limit * 1e-9);
    std::printf("%10s %12s %12s %8s %14s\n", "bytes", "lockstep us", "MPI us", "ratio",
                "GB/s (limit)");
  }
  std::string json;
  for (std::size_t bytes = 64 << 10; bytes <= options.largest << 20; bytes *= 2) {
    const Row row = measure(world, bytes, options);
    if (!prints) continue;
    // Of R ranks each reads its shard of R partial sums and writes it moved, and reads and writes R
    // - 1 moved shards. What a cache still holds costs less than memory does.
    const double least = static_cast<double>(bytes) * (3.0 * static_cast<double>(world.size()) - 1);
    std::printf("%10zu %12.1f %12.1f %8.2f %8.1f (%.1f)\n", row.bytes, row.ours * 1e6,
                row.mpi * 1e6, row.mpi / row.ours, least / row.ours * 1e-9, limit * 1e-9);
    char line[200];
    std::snprintf(line, sizeof line,
                  "%s\n  {\"bytes\": %zu, \"lockstep_seconds\": %.9f, \"mpi_seconds\": %.9f}",
                  json.empty() ? "" : ",", row.bytes, row.ours, row.mpi);
    json += line;
  }
  if (prints && !options.json.empty()) {
    std::ofstream(options.json) << "{\"ranks\": " << world.size() << ", \"rows\": [" << json
                                << "\n]}\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  lockstep::comm::Session session(argc, argv);
  try {
    run(session.world(), options_from(argc, argv));
    session.finalize();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "exchange_benchmark: %s\n", error.what());
    session.abort(1);
  }
}

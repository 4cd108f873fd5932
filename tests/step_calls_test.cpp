// That a step of training allocates nothing and asks the system for nothing, counted for real.
//
// Each case trains in a process of its own. There every call of malloc and its like is counted, on
// all threads, from the second step of an epoch to its last, once the first epochs have warmed up
// what there is to warm up. The system calls of the same steps are counted from outside, by a
// tracer (ptrace): the process marks the steps by calls that no kernel knows.
//
// With one thread both counts are zero. With more, oneTBB wakes threads that have fallen asleep,
// and yields: so futex and sched_yield are the only calls that it or the step may make. Memory for
// tasks comes from oneTBB's pools; when a task is taken up by another thread than ever before, a
// pool may have to grow: what libtbb asks for is counted apart, and bounded.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>
#include <tbb/task_scheduler_observer.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "comm/session.hpp"
#include "datasets/writer.hpp"
#include "random_matrix.hpp"
#include "trainer/training.hpp"

namespace {

// What is counted in the training process.
std::atomic<bool> counting = false;
std::atomic<std::uint64_t> allocations = 0;
std::array<std::atomic<void*>, 64> callers;  // of the first of them

void count_allocation(void* caller) {
  if (!counting.load(std::memory_order_relaxed)) return;
  const std::uint64_t place = allocations.fetch_add(1);
  if (place < callers.size()) callers[place] = caller;
}

}  // namespace

// These take the places of the C library's, for the whole program and all of its libraries.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  count_allocation(__builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  count_allocation(__builtin_return_address(0));
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  count_allocation(__builtin_return_address(0));
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  count_allocation(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count_allocation(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  count_allocation(__builtin_return_address(0));
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}

namespace lockstep::trainer {
namespace {

struct Case {
  const char* name;
  std::size_t threads;
  std::size_t batch;
  std::size_t hidden;
  const char* optimizer;
  const char* shortcoming;      // what is done wrong on purpose inside the steps; empty: nothing
  const char* norm_scope = "";  // of a batch_norm layer; empty: there is none
  double clip_norm = 0;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

constexpr std::size_t kFeatures = 64;
constexpr std::size_t kSamples = 8200;
constexpr std::uint64_t kWarmUpEpochs = 3;
constexpr std::uint64_t kCountedEpochs = 3;

// What the process tells of itself, through a pipe.
struct Told {
  std::uint64_t steps = 0;
  std::uint64_t allocations = 0;          // in these steps, but for libtbb's
  std::uint64_t allocations_of_pool = 0;  // libtbb's
  std::uint64_t batches_ahead = 0;
  bool training_failed = true;
};

// What the tracer saw of the threads that train. Numbers of system calls, and how often.
struct Seen {
  std::map<std::uint64_t, std::uint64_t> own;      // of the thread that runs the steps
  std::map<std::uint64_t, std::uint64_t> workers;  // of the others that take up tasks
  std::set<std::uint64_t> clock;  // made by reading the clock, where the system knows no better way
  std::uint64_t begun = 0, ended = 0;
  std::size_t worker_threads = 0;
};

// A call that every kernel refuses, so that it does nothing but tell the tracer.
constexpr long kMark = 0x6c6b7374;
enum class Mark : long { clock_begins = 1, clock_ends, steps_begin, steps_end, worker };

void mark(Mark what) {
  ::syscall(SYS_prctl, kMark, static_cast<long>(what), 0L, 0L, 0L);
}

class TellOfWorkers : public tbb::task_scheduler_observer {
 public:
  explicit TellOfWorkers(tbb::task_arena& arena) : tbb::task_scheduler_observer(arena) {
    observe(true);
  }
  ~TellOfWorkers() override { observe(false); }
  void on_scheduler_entry(bool is_worker) override {
    if (is_worker) mark(Mark::worker);
  }
};

datasets::Dataset some_images() {
  datasets::Contents contents;
  contents.x_shape = {kSamples, kFeatures};
  std::vector<float> x(kSamples * kFeatures);
  test::fill_uniform(std::span(x), 1);
  for (std::size_t i = 0; i < kSamples; ++i) {
    contents.labels.push_back(x[i * kFeatures] < 0 ? 0 : 1);
  }
  contents.x = x;
  contents.classes = 2;
  const auto path = std::filesystem::path(::testing::TempDir()) /
                    ("lockstep-step-calls-" + std::to_string(::getpid()) + ".h5");
  datasets::write_dataset(path, contents);
  datasets::Dataset data = datasets::Dataset::read(path);
  std::filesystem::remove(path);
  return data;
}

Config config_of(const Case& c) {
  Config config;
  config.data.train = "images";
  LayerConfig hidden;
  hidden.units = c.hidden;
  hidden.activation = "sigmoid";
  LayerConfig output;
  output.units = 2;
  LayerConfig drop;
  drop.kind = LayerConfig::Kind::dropout;
  drop.rate = 0.1;
  config.model.layers = {hidden, drop, output};
  if (*c.norm_scope != '\0') {
    LayerConfig norm;
    norm.kind = LayerConfig::Kind::batch_norm;
    norm.scope = c.norm_scope;
    config.model.layers.insert(config.model.layers.begin() + 1, norm);
  }
  config.optimizer.name = c.optimizer;
  config.optimizer.learning_rate = 0.001;
  config.optimizer.clip_norm = c.clip_norm;
  config.training.batch_size = c.batch;
  config.training.epochs = kWarmUpEpochs + kCountedEpochs;
  config.checkpoint.every_epochs = 0;
  return config;
}

bool from_libtbb(void* caller) {
  Dl_info info;
  return ::dladdr(caller, &info) != 0 && std::strstr(info.dli_fname, "libtbb") != nullptr;
}

void do_wrong(std::string_view what) {
  if (what == "allocates") {
    static void* volatile memory;
    memory = std::malloc(100);
    std::free(memory);
  } else if (what == "asks the system") {
    ::syscall(SYS_getppid);
  }
}

Told train(const Case& c, comm::Communicator& world) {
  const auto data = some_images();
  const Config config = config_of(c);
  Told told;
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, c.threads);
  tbb::task_arena arena(static_cast<int>(c.threads));
  const TellOfWorkers workers(arena);
  arena.execute([&] {
    Training training(config, data, world);
    TrainingObserver observer;
    observer.step = [&](const StepReport& report) {
      if (report.epoch <= kWarmUpEpochs) return;
      if (report.step_in_epoch == 1) {
        mark(Mark::steps_begin);
        counting = true;
        return;
      }
      if (counting) do_wrong(c.shortcoming);
      ++told.steps;
      if (report.step_in_epoch < report.steps_in_epoch) return;
      counting = false;
      mark(Mark::steps_end);
    };
    training.run(observer, [] { return false; });
    told.batches_ahead = training.input().times_ahead();
  });
  const std::uint64_t all = allocations;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(all, callers.size()); ++i) {
    if (from_libtbb(callers[i])) ++told.allocations_of_pool;
  }
  told.allocations = all - told.allocations_of_pool;
  told.training_failed = false;
  return told;
}

// In the process that was forked for it.
[[noreturn]] void train_and_tell(const Case& c, int pipe) {
  mark(Mark::clock_begins);
  (void)std::chrono::steady_clock::now();
  mark(Mark::clock_ends);
  char name[] = "step_calls_test";
  char* argument_list[] = {name, nullptr};
  char** arguments = argument_list;
  int count = 1;
  Told told;
  {
    comm::Session session(count, arguments);
    try {
      told = train(c, session.world());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", c.name, error.what());
    }
    session.finalize();
  }
  const bool written = ::write(pipe, &told, sizeof(told)) == sizeof(told);
  ::_exit(written ? 0 : 1);
}

class Tracer {
 public:
  explicit Tracer(pid_t process) : process_(process) {}

  // Runs the process to its end.
  Seen follow() {
    int status = 0;
    if (::waitpid(process_, &status, 0) != process_ || !WIFSTOPPED(status)) return seen_;
    threads_.insert(process_);
    ::ptrace(PTRACE_SETOPTIONS, process_, nullptr,
             PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    go_on(process_, 0);
    for (pid_t thread; (thread = ::waitpid(-1, &status, __WALL)) > 0;) {
      if (!WIFSTOPPED(status)) {
        if (thread == process_) break;
        continue;
      }
      const int signal = WSTOPSIG(status);
      if (signal == (SIGTRAP | 0x80)) {
        look_at(thread);
        go_on(thread, 0);
      } else if (signal == SIGTRAP || threads_.insert(thread).second) {
        go_on(thread, 0);  // told of a new thread, or a new thread's first stop
      } else {
        go_on(thread, signal);
      }
    }
    return seen_;
  }

 private:
  void go_on(pid_t thread, int signal) {
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, static_cast<long>(signal));
  }

  void look_at(pid_t thread) {
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) <= 0) return;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    if (info.entry.nr == SYS_prctl && info.entry.args[0] == kMark) {
      hear(thread, static_cast<Mark>(info.entry.args[1]));
    } else if (in_clock_) {
      seen_.clock.insert(info.entry.nr);
    } else if (in_steps_ && thread == process_) {
      ++seen_.own[info.entry.nr];
    } else if (in_steps_ && workers_.contains(thread)) {
      ++seen_.workers[info.entry.nr];
    }
  }

  void hear(pid_t thread, Mark what) {
    switch (what) {
      case Mark::clock_begins:
      case Mark::clock_ends:
        in_clock_ = what == Mark::clock_begins;
        break;
      case Mark::steps_begin:
        in_steps_ = true;
        ++seen_.begun;
        break;
      case Mark::steps_end:
        in_steps_ = false;
        ++seen_.ended;
        break;
      case Mark::worker:
        workers_.insert(thread);
        seen_.worker_threads = workers_.size();
        break;
    }
  }

  pid_t process_;
  std::set<pid_t> threads_;
  std::set<pid_t> workers_;
  bool in_clock_ = false;
  bool in_steps_ = false;
  Seen seen_;
};

struct Result {
  Told told;
  Seen seen;
  bool traced = false;
};

Result run_case(const Case& c, bool traced) {
  Result result;
  int ends[2];
  if (::pipe(ends) != 0) return result;
  const pid_t process = ::fork();
  if (process == 0) {
    ::close(ends[0]);
    if (traced) {
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
      ::raise(SIGSTOP);
    }
    train_and_tell(c, ends[1]);
  }
  ::close(ends[1]);
  if (traced) {
    result.seen = Tracer(process).follow();
    result.traced = result.seen.begun > 0;
  } else {
    ::waitpid(process, nullptr, 0);
  }
  std::array<std::byte, sizeof(Told)> bytes;
  if (::read(ends[0], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size())) {
    result.told = std::bit_cast<Told>(bytes);
  }
  ::close(ends[0]);
  return result;
}

// Whether a process may trace its child here: containers can forbid it.
bool tracing_is_permitted() {
  const pid_t process = ::fork();
  if (process == 0) ::_exit(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 ? 0 : 1);
  int status = 0;
  ::waitpid(process, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::string text_of(const std::map<std::uint64_t, std::uint64_t>& calls) {
  std::string text;
  for (const auto& [number, times] : calls) {
    text += "system call " + std::to_string(number) + ": " + std::to_string(times) + " times; ";
  }
  return text;
}

std::map<std::uint64_t, std::uint64_t> without(std::map<std::uint64_t, std::uint64_t> calls,
                                               const std::set<std::uint64_t>& allowed) {
  for (const std::uint64_t number : allowed) calls.erase(number);
  return calls;
}

std::uint64_t expected_steps(const Case& c) {
  return kCountedEpochs * ((kSamples + c.batch - 1) / c.batch - 1);
}

constexpr Case kCases[] = {
    {"one_thread_one_sample", 1, 1, 16, "sgd", ""},
    {"one_thread_ten_samples", 1, 10, 16, "adam", ""},
    {"one_thread_large_batch", 1, 1024, 256, "momentum", ""},
    {"two_threads_one_sample", 2, 1, 16, "adam", ""},
    {"two_threads_ten_samples", 2, 10, 16, "sgd", ""},
    {"two_threads_large_batch", 2, 1024, 256, "adam", ""},
    {"one_thread_batch_norm", 1, 10, 16, "adam", "", "batch"},
    {"one_thread_batch_norm_of_leaves", 1, 16, 16, "sgd", "", "leaf"},
    {"two_threads_batch_norm", 2, 1024, 256, "adam", "", "batch"},
    {"one_thread_lamb", 1, 10, 16, "lamb", ""},
    {"one_thread_lamb_clipped", 1, 1024, 256, "lamb", "", "", 1e-3},
    {"two_threads_lamb", 2, 1024, 256, "lamb", ""},
};

class Steps : public testing::TestWithParam<Case> {};

TEST_P(Steps, AllocateNothing) {
  const Case& c = GetParam();
  const Result result = run_case(c, false);
  ASSERT_FALSE(result.told.training_failed);
  EXPECT_EQ(result.told.steps, expected_steps(c));
  EXPECT_EQ(result.told.allocations, 0u);
  EXPECT_LE(result.told.allocations_of_pool, c.threads == 1 ? 0u : 16u);
  // The large batches are decoded by another thread while these steps run.
  EXPECT_EQ(result.told.batches_ahead > 0, c.threads > 1 && c.batch == 1024);
}

TEST_P(Steps, AskTheSystemForNothing) {
  if (!tracing_is_permitted()) {
    GTEST_SKIP() << "ptrace is not permitted here: system calls of a step were NOT counted";
  }
  const Case& c = GetParam();
  const Result result = run_case(c, true);
  ASSERT_TRUE(result.traced);
  ASSERT_FALSE(result.told.training_failed);
  EXPECT_EQ(result.told.steps, expected_steps(c));
  EXPECT_EQ(result.seen.begun, kCountedEpochs);
  EXPECT_EQ(result.seen.ended, kCountedEpochs);
  if (c.batch == 1024) {
    EXPECT_EQ(result.seen.worker_threads > 0, c.threads > 1);
  }
  std::set<std::uint64_t> allowed = result.seen.clock;
  if (c.threads > 1) allowed.insert({SYS_futex, SYS_sched_yield});
  EXPECT_EQ(text_of(without(result.seen.own, allowed)), "");
  EXPECT_EQ(text_of(without(result.seen.workers, allowed)), "");
}

INSTANTIATE_TEST_SUITE_P(All, Steps, testing::ValuesIn(kCases),
                         [](const auto& one) { return std::string(one.param.name); });

// That the counters count.
TEST(Counters, SeeAnAllocationInEveryStep) {
  const Case c{"allocates", 1, 1024, 16, "sgd", "allocates"};
  const Result result = run_case(c, false);
  EXPECT_EQ(result.told.allocations, expected_steps(c));
}

TEST(Counters, SeeASystemCallInEveryStep) {
  if (!tracing_is_permitted()) GTEST_SKIP() << "ptrace is not permitted here";
  const Case c{"asks", 1, 1024, 16, "sgd", "asks the system"};
  const Result result = run_case(c, true);
  EXPECT_EQ(text_of(result.seen.own), text_of({{SYS_getppid, expected_steps(c)}}));
}

}  // namespace
}  // namespace lockstep::trainer

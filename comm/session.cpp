#include "comm/session.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/detail/state.hpp"
#include "comm/error.hpp"

namespace lockstep::comm {

using detail::check;

namespace {

// MPI's own start and end wait for all ranks without a limit of theirs. While a ProcessLimit lives,
// SIGALRM ends this process, and so the job, after that many seconds.
class ProcessLimit {
 public:
  explicit ProcessLimit(unsigned seconds) {
    struct sigaction action {};
    action.sa_handler = [](int) {
      constexpr char text[] =
          "lockstep: MPI did not start or end within its time limit: a rank is missing\n";
      [[maybe_unused]] const auto written = write(STDERR_FILENO, text, sizeof text - 1);
      _exit(exit_code);
    };
    sigaction(SIGALRM, &action, &before_);
    alarm(seconds);
  }
  ~ProcessLimit() {
    alarm(0);
    sigaction(SIGALRM, &before_, nullptr);
  }
  ProcessLimit(const ProcessLimit&) = delete;
  ProcessLimit& operator=(const ProcessLimit&) = delete;

 private:
  static constexpr int exit_code = 4;  // communication failed
  struct sigaction before_ {};
};

// Whether a launcher (mpirun, srun, …) may have started this process as one of several.
bool launched() {
  constexpr std::array<std::string_view, 7> marks{
      "OMPI_COMM_WORLD_", "PMIX_", "PMI_", "SLURM_PROCID=", "PALS_", "ALPS_", "FLUX_"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    for (const std::string_view mark : marks) {
      if (text.starts_with(mark)) return true;
    }
  }
  return false;
}

// OpenMPI gives a process alone a daemon of its own, for spawning others, and tries every fabric
// that it knows: 0.3 s before the first sample, for a process that speaks to nobody. Other MPIs do
// not read these settings, and those that are already there stand.
void start_lightly_if_alone() {
  if (launched()) return;
  setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  setenv("OMPI_MCA_pml", "^cm", 0);
}

// The ranks that share this process's memory: their number, its place among them, and the lowest of
// them among all.
struct Node {
  std::size_t size;
  std::size_t rank;
  int leader;
};

Node node_of_this_process() {
  MPI_Comm node = MPI_COMM_NULL;
  int world_rank = 0;
  int rank = 0;
  int size = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank), "asking for the rank");
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_rank, MPI_INFO_NULL, &node),
        "finding the ranks of this node");
  check(MPI_Comm_rank(node, &rank), "asking for the rank on this node");
  check(MPI_Comm_size(node, &size), "asking for the number of ranks on this node");
  int leader = world_rank;
  check(MPI_Bcast(&leader, 1, MPI_INT, 0, node), "asking for the first rank of this node");
  check(MPI_Comm_free(&node), "freeing a communicator");
  return {static_cast<std::size_t>(size), static_cast<std::size_t>(rank), leader};
}

// All ranks, node after node, so that those of one node are neighbours, however the launcher dealt
// them out: neighbours are what the leaf tree sums first. Collective.
MPI_Comm node_by_node(detail::SessionState& session, const Node& node) {
  int rank = 0;
  int size = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "asking for the rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &size), "asking for the number of ranks");
  std::vector<int> leaders(static_cast<std::size_t>(size));
  check(MPI_Allgather(&node.leader, 1, MPI_INT, leaders.data(), 1, MPI_INT, MPI_COMM_WORLD),
        "asking who shares a node");
  if (std::is_sorted(leaders.begin(), leaders.end())) {
    return detail::duplicate(session, MPI_COMM_WORLD);
  }
  MPI_Comm ordered = MPI_COMM_NULL;
  check(MPI_Comm_split(MPI_COMM_WORLD, 0, node.leader, &ordered), "ordering the ranks by node");
  return ordered;
}

constexpr unsigned start_limit = 300;  // seconds; before any configuration can say otherwise
constexpr unsigned end_limit = 60;

}  // namespace

struct Session::State {
  std::shared_ptr<detail::SessionState> shared;
  std::optional<Communicator> world;

  // Alarm and session hold each other. They part here, unless MPI may still use their buffers.
  ~State() {
    if (shared && shared->in_step) shared->alarm.reset();
  }
};

Session::Session(int& argc, char**& argv) : state_(std::make_unique<State>()) {
  const ProcessLimit limit(start_limit);
  start_lightly_if_alone();
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "setting the error handler");
  if (provided < MPI_THREAD_SERIALIZED) {
    throw CommError("this MPI does not let threads take turns (MPI_THREAD_SERIALIZED)");
  }

  auto shared = std::make_shared<detail::SessionState>();
  state_->shared = shared;
  const Node node = node_of_this_process();
  auto world = detail::make_state(shared, node_by_node(*shared, node));
  std::vector<std::size_t>& node_of = world->node_of;
  const auto leader = static_cast<std::size_t>(node.leader);
  node_of.resize(world->size);
  check(MPI_Allgather(&leader, sizeof leader, MPI_BYTE, node_of.data(), sizeof leader, MPI_BYTE,
                      world->comm),
        "asking who shares a node");
  world->local_rank = node.rank;
  world->local_size = node.size;

  shared->alarm = detail::make_state(shared, detail::duplicate(*shared, world->comm));
  shared->alarm_taken.resize(world->size);
  shared->alarm_sends.reserve(world->size);
  shared->status_sends.reserve(world->size);
  shared->status_of_alarm.resize(world->size);
  shared->status_receives.reserve(world->size);
  state_->world.emplace(std::move(world));
}

Session::~Session() = default;
Session::Session(Session&& other) noexcept = default;
Session& Session::operator=(Session&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Communicator& Session::world() {
  return *state_->world;
}

bool Session::in_step() const noexcept {
  return state_->shared->in_step;
}

void Session::finalize() {
  detail::SessionState& shared = *state_->shared;
  if (!shared.in_step) {
    throw CommError("MPI cannot be ended in order: a wait for another rank was given up");
  }
  // MPI_Finalize waits without limit; so see first that everybody is about to call it.
  const std::vector<std::size_t> counts(shared.alarm->size, 0);
  detail::exchange(*shared.alarm, detail::barrier_tag, "finalize", {}, counts, {});
  for (MPI_Comm& comm : shared.to_free) check(MPI_Comm_free(&comm), "freeing a communicator");
  shared.to_free.clear();
  const ProcessLimit limit(end_limit);
  check(MPI_Finalize(), "MPI_Finalize");
}

void Session::abort(int exit_code) noexcept {
  const int code = exit_code >= 1 && exit_code <= 255 ? exit_code : 1;
  std::fflush(nullptr);
  if (active()) {
    if (state_ && state_->shared && state_->shared->remote_error) sleep(2);
    if (state_ && state_->world && state_->world->size() == 1) {
      MPI_Finalize();  // nobody to wait for, and without the alarming text of MPI_Abort
    } else {
      MPI_Abort(MPI_COMM_WORLD, code);
    }
  }
  std::_Exit(code);
}

bool Session::active() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

}  // namespace lockstep::comm

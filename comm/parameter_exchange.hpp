// Sums gradients over all ranks, lets each rank move its share of the parameters, and brings the
// moved ones to all: while the backward pass goes on and the next forward pass begins.
//
// Rank r of R computes leaves_of_rank(r, R, L) and puts the sums over the few maximal subtrees that
// they form into partial(0), partial(1), …, each `elements` floats, from the last element to the
// first, as backward does. The range is cut into buckets (shards.hpp). As soon as all of a bucket
// is there, it is summed in the fixed tree (leaf_tree.hpp), in shards; whoever owns a shard is
// called with its sum to move the parameters there, and all ranks get the moved ones. The additions
// and their order do not depend on R, on the buckets or on the way that a bucket takes, so neither
// do the bits.
//
// Ranks of one node read one another's memory; nodes exchange messages, each rank with the ranks
// that have its place on the other nodes, for its slice of each bucket (detail/bucket_exchange.hpp
// has the ways and their costs). A step is
//   begin()  final_from(e) …  raised()  …  wait_for(e) …  finish()
// of which begin() and final_from() return at once. Work is done by whoever waits or calls
// progress(), and while nobody does, by a thread of the exchange, if there is one: where more than
// one bucket is to be hidden behind computing.
//
// Owns the parameters, the partial sums and all memory of messages, and a communicator of its own.
// So when a wait is given up, MPI is left with no memory but ours, which then lives until the
// process ends. After the first step nothing is allocated. Partial sums must be written whole in
// every step, but for own sums (below): where they stood, anything may stand after it. With one
// rank nothing is sent, copied or waited for.
//
// One caller at a time, and no other call of MPI between begin() and finish() but those of other
// exchanges and of LeafSum, which take turns by a lock of the session. The constructor is
// collective; begin() must be called by all ranks, with the same leaf_present, and what waits,
// waits for all ranks to have come as far. All else is local. The destructor stops the thread and
// calls no MPI; what set_move() was given must live until then, or until stop().
//
// Errors: CommError and RemoteError as Communicator says, from the calls that wait;
// std::invalid_argument for what the caller got wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/leaf_tree.hpp"
#include "comm/parameter_watch.hpp"
#include "comm/shards.hpp"

namespace lockstep::comm {

class ParameterExchange {
 public:
  // Which way buckets take between nodes; automatic: by their size and the number of nodes.
  enum class Way { automatic, recursive, direct };

  // Whether a thread of the exchange goes on while the caller computes, should there be several
  // buckets. Within a node the work is the processor's, so a caller that has one core alone gains
  // nothing by it.
  enum class Thread { never, between_nodes, always };

  struct Options {
    BucketSizes buckets = {};
    std::vector<std::size_t> cuts = {};  // where buckets end, beside their size (buckets_of)
    // A bucket of up to this many bytes is summed as a whole by every rank, which spares the way
    // back.
    std::size_t replicated_bytes = 32 << 10;
    Way way = Way::automatic;
    // Sums go between nodes as bfloat16, half the bytes. The one option that leaves the contract:
    // the bits of the sum then depend on the number of nodes.
    bool round_messages = false;
    // Between nodes, parameters that backward still reads may move into the memory of their
    // gradient, to be copied later: where that has been worth a copy, or always.
    bool always_apart = false;
    bool shared_memory = true;  // between ranks of a node
    Thread thread = Thread::always;
    bool watched = true;          // its state is told when a rank gives up: one exchange at a time
    std::size_t group_ranks = 0;  // ranks that share memory: neighbours; 0: those of a node
    std::size_t extra = 0;        // floats behind the elements that are no part of any exchange
  };

  // `leaves` is a power of two. Throws std::invalid_argument, on all ranks, if it is not, or if
  // there are more ranks than leaves.
  ParameterExchange(Communicator& communicator, std::size_t leaves, std::size_t elements);
  ParameterExchange(Communicator& communicator, std::size_t leaves, std::size_t elements,
                    const Options& options);
  ~ParameterExchange();
  ParameterExchange(ParameterExchange&& other) noexcept;
  ParameterExchange& operator=(ParameterExchange&& other) noexcept;
  ParameterExchange(const ParameterExchange&) = delete;
  ParameterExchange& operator=(const ParameterExchange&) = delete;

  // `elements` floats at a multiple of 64 bytes, zeros at first. Between begin() and finish() those
  // of a bucket change from when its gradient is final on every rank until wait_for() covers it;
  // those that the rank moves by own sums when it does. Behind them the extra floats, which are the
  // caller's at all times.
  std::span<float> parameters();
  std::span<const float> parameters() const;

  // This rank's maximal subtrees, in leaf order, and where to put the sum over subtrees()[i]:
  // `elements` floats at a multiple of 64 bytes. After final_from() they mean nothing any more.
  std::span<const Subtree> subtrees() const;
  std::span<float> partial(std::size_t i);

  // The elements that this rank moves, in ascending order. Each starts at a multiple of `chunk`.
  // Those of buckets that every rank moves are among them on every rank.
  std::vector<Shard> owned() const;
  // The elements for which `rank` speaks when all are gathered: those of owned(), but of those that
  // every rank owns only its share. Disjoint, and together all elements.
  std::vector<Shard> share_of(std::size_t rank) const;

  // Moves parameters begin..begin+sum.size()-1, a chunk at most, of which `sum` is the gradient's
  // sum over all leaves (zeros if none is present): to the same elements of `moved`, which are the
  // parameters themselves, or other memory if these are still read (then what stands there is
  // anything). `flags` are those that any rank raised in this step. Called for every chunk of
  // owned(), or what the rank has not moved of it by own sums, once a step, from one thread at a
  // time, which may not be the caller's. `note` is called with the same sums, before, in steps that
  // hold them.
  using Move = std::function<void(std::size_t begin, std::span<const float> sum,
                                  std::span<float> moved, unsigned flags)>;
  using Note = std::function<void(std::size_t begin, std::span<const float> sum, unsigned flags)>;
  void set_move(Move move, Note note = {});

  // Who watches over the parameters from the next step on, on all ranks or on none; lives as long
  // as what set_move() was given.
  void set_watch(ParameterWatch& watch);

  // Sums by elements. Ranks that all share memory may take another way for some elements: not a
  // partial sum of all of them each, for owners to add up, but each rank makes the sums of those
  // that it owns by itself, over the leaves of all, from what the others show on their boards. It
  // may then move the parameters right where their sums are made.

  // Whether there are several ranks and all share memory.
  bool can_sum_by_elements() const;

  // Who owns what: the parts of all buckets, in ascending order; together all elements.
  struct Part {
    Shard elements;
    std::size_t rank;  // that owns it, unless all do
    bool everywhere;
  };
  std::vector<Part> parts() const;

  // Collective, once, where can_sum_by_elements(). Makes each rank a board of so many floats, for
  // the others to read, of which so many places are posted on their own. Returns on all ranks alike
  // why that could not be had, or nothing.
  std::string make_boards(std::size_t floats, std::size_t places);
  std::span<float> board();
  std::span<const float> board_of(std::size_t rank) const;

  // The elements of owned() that this rank sums by itself, in ascending order, and of these the
  // ones that it moves as well, if it moves any: these begin and end at multiples of 16.
  struct OwnSum {
    Shard elements;
    bool moves;
  };
  void set_own_sums(std::span<const OwnSum> own_sums);

  // In a step, after begin(). post(): what this rank has to show at `place` is there, and stays
  // until the step is finished. wait_for_posts() waits until that is so on all ranks, and until the
  // flags are known; then own_sums_are() says whether own sums come in partial(0), or have moved
  // their parameters if they may, before anything is final that holds any. Without it there are
  // none in this step. Who moves parameters tells of each piece before and after it, from the last
  // to the first; and, where there is a watch, does what the exchange does else: calls its
  // before_change() or after_move() for the whole chunks that these return.
  enum class OwnSums { none, given, moved };
  void post(std::size_t place);
  void wait_for_posts(std::size_t place);
  void own_sums_are(OwnSums own_sums);
  Shard before_moving(Shard piece);
  Shard after_moving(Shard piece);

  // Starts a step; the one before is finished. leaf_present has L flags, 0 or 1. The sum over a
  // subtree without a present leaf is not read. A step that holds its sums has parameters that move
  // by what all sums are together, as clipping wants: none moves before release(). wait_for_sums()
  // waits until this rank's are there and noted; from then until release() the exchange calls no
  // MPI, and visit_sums() calls `visit` from the calling thread as `note` was called before.
  enum class Sums { move, hold };
  void begin(std::span<const std::uint8_t> leaf_present, unsigned flags, Sums sums = Sums::move);
  void wait_for_sums();
  using Visit = std::function<void(std::size_t begin, std::span<const float> sum)>;
  void visit_sums(const Visit& visit);
  void release();

  // The partial sums are final from element `begin` on; the parameters there must not move yet.
  void sums_final_from(std::size_t begin);

  // The same, and the parameters there are not read any more before wait_for() says so.
  void final_from(std::size_t begin);

  // Goes on as far as it can without waiting for another rank: for who computes on the only thread
  // that there is, and calls this now and then.
  void progress();

  // Whether a thread of the exchange goes on while the caller computes.
  bool has_thread() const;

  // Whether progress() pays: there are several buckets, and no thread to go on with them.
  bool wants_progress() const;

  // Waits until it is known which flags were raised on any rank.
  unsigned raised();

  // Waits until all parameters before element `end` have moved. Their partial sums may be
  // overwritten.
  void wait_for(std::size_t end);

  // Waits until all of the step is done on this rank. Does nothing where no step was begun.
  void finish();

  // Collective, between steps: on rank 0 all = every rank's share_of() of its `mine`, `elements`
  // floats each; elsewhere `all` is not looked at.
  void gather_shares(std::span<const float> mine, std::span<float> all);

  // What this rank does now, in up to eight characters: "forward". Other ranks that wait for it in
  // vain say so. Costs a store.
  void set_phase(std::string_view phase);

  // The buckets, in the order of backward.
  std::vector<Shard> buckets() const;

  // Bytes of this rank's memory: parameters, partial sums and what messages need.
  std::size_t memory_bytes() const;

  // Seconds so far in which calls waited for other ranks with nothing to do.
  double seconds_waited() const;

  // Ends the thread, also in the middle of a step: nothing that was given to set_move() is called
  // after it, unless this exchange is waited for again. Local.
  void stop();

  // Steps begun so far.
  std::uint64_t step() const;

  // For people: how ranks and buckets exchange what; and why the ranks of a node do not share
  // memory, or nothing if they do or are alone.
  std::string describe() const;
  std::string why_not_shared() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::comm

// One bucket on its way: from partial sums on every rank to moved parameters on every rank.
//
// A state machine without waits. Its stages, of which those that a layout does not need pass at
// once:
//   filling     backward has not yet summed all of the bucket
//   gathering   until all members of the group have; then each member takes a slice of the bucket
//               and sums it over the group's subtrees, which it reads from the members' memory
//   reducing    groups exchange the slice's sums, member m with member m: each group's rank gets a
//               shard of the slice, with all sums that belong to it
//   summing     the tree is finished over the shard, chunk by chunk, and its parameters move,
//               unless the step holds its sums; but for what the rank has summed or moved by
//               itself. Where backward still reads them, that waits, or they move apart, into the
//               memory of the bucket's gradient: between groups, if the bucket has been held up so
//               and was then in the way. This costs a copy
//   holding     until held sums may be used
//   spreading   groups exchange the moved shards, in the parameters or apart from them
//   landing     what moved apart is copied when all of backward is done: land()
//   copying     members copy one another's slices
// Between groups, with G of them, S subtrees a group (1 if G is a power of two) and B bytes a
// slice:
//   recursive   G a power of two: in rounds four neighbours of the tree, at distance 1, 4, 16, …,
//               hand one another quarters of what they hold, and each adds up its own (two and
//               halves in the last round of an odd power). B*(G-1)/G bytes out; back likewise. Of
//               four terms at once memory sees each once, where rounds of two write and read again
//               what is between
//   direct      any G: S messages to each owner at once. S*B*(G-1)/G bytes out; B*(G-1)/G back
//   both with shards as large as the bucket: `replicated`, for small buckets: every rank finishes
//               the whole tree and moves all parameters, so that nothing comes back: half as many
//               rounds, of B bytes a message
//
// Refers to the ExchangeState and its memory. Not thread-safe: driven under its owner's lock. After
// an error it is of no more use.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "comm/detail/bucket_plan.hpp"
#include "comm/detail/exchange_state.hpp"
#include "comm/detail/requests.hpp"

namespace lockstep::comm::detail {

class BucketExchange {
 public:
  using OwnSum = ParameterExchange::OwnSum;

  BucketExchange(ExchangeState& state, const BucketPlan& plan);

  // Starts a new step; the last one is done.
  void begin();

  // Goes on as far as it can without waiting. True if it came further. Throws CommError.
  bool advance();

  // Copies what has moved apart to where it belongs: for who has nothing better to do. False if
  // there is nothing to copy.
  bool land();

  // Whether it could go on if messages and the other ranks were faster.
  bool on_its_way() const {
    return stage_ != Stage::filling && stage_ != Stage::landing && !done() &&
           !(stage_ == Stage::summing && held_up_);
  }
  // Nothing is on its way any more: what this bucket took of the links it took from none.
  void note_idle_links() {
    if (done()) held_up_ = false;
  }
  // The rank has nothing to do but wait, for this bucket or for others that came after it.
  void note_wait() {
    if (held_up_) worth_moving_apart_ = true;
  }

  bool done() const { return stage_ == Stage::done; }
  // Whether this rank's sums are there, where they are held, or have been used.
  bool is_summed() const { return stage_ >= Stage::holding; }
  // Before the sums of this group are there.
  bool waits_for_gradients() const {
    return stage_ == Stage::filling || stage_ == Stage::gathering;
  }
  // Takes from `own_sums` what lies in its shard: the elements that the rank sums by itself.
  void set_own_sums(std::span<const OwnSum> own_sums);
  // As ParameterExchange's.
  Shard before_moving(Shard piece);
  Shard after_moving(Shard piece);

  // Calls `visit` for each chunk of the sums that are held.
  void visit_held(const NoteSum& visit);
  const BucketPlan& plan() const { return plan_; }

  Shard shard() const { return shard_; }

  // Floats that a Slot must hold for it.
  std::size_t slot_size() const;

  bool outstanding() const { return requests_.outstanding(); }
  // Where it stands and which ranks it waits for, for a message.
  std::string stage_name() const;
  std::string missing() const;

 private:
  enum class Stage {
    filling,
    gathering,
    reducing,
    summing,
    holding,
    spreading,
    landing,
    copying,
    done
  };

  // Of the shard, in ascending order: whose sums are made how.
  struct Stretch {
    Shard elements;
    bool own;    // the rank's, of steps with own sums
    bool moves;  // by the rank, of steps in which these have moved
  };

  // How far the rank is that moves parameters of the shard by itself, from its end on.
  struct OwnMoves {
    std::size_t looked_at_from = 0;  // what stands from here on has been looked at
    std::size_t moved_from = 0;      // the last piece that has moved begins here
    std::size_t told_from = 0;  // of that and those it goes on from others are told from here on
  };

  bool step_forward();
  bool gather();
  void sum_over_group();
  void start_reducing();
  bool reduce();
  // Where every rank sums all of a bucket, all must sum the same numbers.
  bool rounds_sums() const { return state_.round_messages && !plan_.replicated; }
  std::size_t bytes_of_sum() const { return rounds_sums() ? 2 : sizeof(float); }
  void send_sums(float* values, std::size_t count, std::size_t to);
  void receive_sums(float* values, std::size_t count, std::size_t from);
  void start_reducing_round();
  void add_round();
  void receive_pieces();
  void send_pieces();
  bool may_move() const {
    return state_.movable_from.load(std::memory_order_acquire) <= plan_.bucket.begin;
  }
  // Once the slice is reduced nobody else reads its part of this rank's gradient, nor sends it:
  // the members of the group read it in their own slices alone.
  bool can_move_apart() const {
    return state_.hierarchy.groups > 1 && !plan_.replicated && !state_.holds;
  }
  // Where the parameters move and are spread.
  float* moved() const {
    return moves_apart_ ? state_.own_segment().partial(0) : state_.own_segment().parameters();
  }
  bool start_summing();
  void sum();
  void keep_sum();
  void move_held();
  void move(std::size_t begin, std::span<const float> sum);
  float* held(std::size_t begin);
  const float* whole_sum(std::size_t begin, std::size_t count, float* out);
  const float* sum_of_stretches(std::size_t begin, std::size_t count, float* out);
  void move_the_rest(std::size_t begin, std::size_t count, float* buffer);
  bool has_moved_some() const { return own_moves_.moved_from < shard_.end; }
  bool speaks_for(std::size_t element) const {
    return share_.begin <= element && element < share_.end;
  }
  void set_tree_inputs();
  void start_spreading();
  bool spread();
  void start_spreading_round();
  void receive_parameters(Shard range, std::size_t from);
  void send_parameters(Shard range, std::size_t to);
  bool copy();
  void take_over(const float* from, Shard range);
  void before_change(Shard range) const;
  void finish_copying();

  Shard kept(std::size_t rounds) const;
  Subtree subtree_after(std::size_t rounds, std::size_t group) const;
  std::size_t peer(std::size_t group) const;
  float* sums(std::size_t i) const;
  float* received(std::size_t i) const;
  bool take_slot();
  void release_slot();

  ExchangeState& state_;
  BucketPlan plan_;
  std::size_t rounds_ = 0;  // of a recursive exchange
  Shard slice_{};           // of the bucket, this member's
  Shard shard_{};           // of the slice, this group's
  Shard share_{};           // of that, what this rank tells others of
  Stage stage_ = Stage::done;
  std::size_t round_ = 0;
  bool held_up_ = false;             // in this step, by parameters that were read
  bool moves_apart_ = false;         // in this step
  bool worth_moving_apart_ = false;  // as has been seen
  std::vector<Stretch> stretches_;   // none: there are no own sums
  OwnMoves own_moves_;               // in this step
  Requests requests_;
  Slot* slot_ = nullptr;
  AlignedFloats held_whole_;  // where every rank sums all of the bucket, which others still read
};

}  // namespace lockstep::comm::detail

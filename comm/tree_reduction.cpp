#include "comm/tree_reduction.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/detail/aligned_floats.hpp"
#include "comm/detail/state.hpp"
#include "comm/error.hpp"
#include "comm/tree_sum.hpp"

namespace lockstep::comm {

using detail::AlignedFloats;
using detail::Requests;

namespace {

// Flags ride in the tags of the pieces, so that they cost no message and no byte.
constexpr int total_tag = static_cast<int>(TreeReduction::most_flags);

std::size_t round_up(std::size_t count) {
  return (count + shard_alignment - 1) / shard_alignment * shard_alignment;
}

}  // namespace

struct TreeReduction::State {
  State(Communicator& communicator, std::size_t leaf_count, std::size_t element_count,
        const Options& options);

  Shard shard(std::size_t r) const { return comm::shard_of(r, ranks, elements); }
  const std::vector<Subtree>& subtrees() const { return subtrees_of[rank]; }
  std::size_t cuts(std::size_t floats) const { return (floats + longest - 1) / longest; }

  template <typename Call>
  void for_each_cut(std::size_t floats, Call&& call) const;
  void send(const float* data, std::size_t floats, std::size_t to, int tag);
  void receive(Requests& requests, float* data, std::size_t floats, std::size_t from, int tag);

  void check_arguments(std::span<const std::uint8_t> leaf_present, unsigned raise) const;
  void receive_pieces(std::size_t from, std::span<const std::uint8_t> leaf_present);
  void send_pieces(std::size_t to, std::span<const std::uint8_t> leaf_present, int tag);
  unsigned raised_elsewhere() const;

  std::size_t rank;
  std::size_t ranks;
  std::size_t leaves;
  std::size_t elements;
  std::size_t longest;                            // floats in one message
  std::vector<std::vector<Subtree>> subtrees_of;  // by rank
  TreeSum tree;
  std::optional<Communicator> communicator;  // none with one rank
  std::vector<std::size_t> received_begin;   // by rank: where its pieces start in `received`
  std::vector<AlignedFloats> own;  // by subtree of this rank: its sum, from where it is sent
  AlignedFloats received;          // other ranks' pieces of this rank's shard
  AlignedFloats total;
  Requests piece_receives;
  Requests total_receives;
  Requests sends;
};

TreeReduction::State::State(Communicator& parent, std::size_t leaf_count, std::size_t element_count,
                            const Options& options)
    : rank(parent.rank()),
      ranks(parent.size()),
      leaves(leaf_count),
      elements(element_count),
      longest(options.longest_message / sizeof(float)),
      tree(leaf_count),
      total(element_count) {
  if (ranks > leaves) {
    throw std::invalid_argument(std::to_string(ranks) + " ranks are more than the " +
                                std::to_string(leaves) +
                                " leaves of a batch: start fewer ranks or set more leaves");
  }
  if (longest == 0 || options.longest_message > detail::longest_message) {
    throw std::invalid_argument("the longest message must have 4 to 2^30 bytes");
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    subtrees_of.push_back(maximal_subtrees(leaves_of_rank(r, ranks, leaves)));
  }
  for (std::size_t i = 0; i < subtrees().size(); ++i) own.emplace_back(elements);
  if (ranks == 1) return;

  // Messages of its own, since its receives accept any tag.
  communicator = parent.duplicate();
  const std::size_t stride = round_up(shard(rank).size());
  std::size_t foreign = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    received_begin.push_back(foreign * stride);
    if (r != rank) foreign += subtrees_of[r].size();
  }
  received = AlignedFloats(foreign * stride);

  std::size_t pieces_out = 0;
  std::size_t totals_in = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == rank) continue;
    pieces_out += std::max<std::size_t>(1, subtrees().size() * cuts(shard(r).size()));
    totals_in += cuts(shard(r).size());
  }
  const std::size_t own_cuts = cuts(shard(rank).size());
  piece_receives.reserve(ranks - 1 + foreign * own_cuts);
  total_receives.reserve(totals_in);
  sends.reserve(pieces_out + (ranks - 1) * own_cuts);
}

template <typename Call>
void TreeReduction::State::for_each_cut(std::size_t floats, Call&& call) const {
  for (std::size_t begin = 0; begin < floats; begin += longest) {
    call(begin, std::min(longest, floats - begin) * sizeof(float));
  }
}

void TreeReduction::State::send(const float* data, std::size_t floats, std::size_t to, int tag) {
  for_each_cut(floats, [&](std::size_t begin, std::size_t bytes) {
    sends.send(communicator->state().comm, data + begin, bytes, to, tag);
  });
}

void TreeReduction::State::receive(Requests& requests, float* data, std::size_t floats,
                                   std::size_t from, int tag) {
  for_each_cut(floats, [&](std::size_t begin, std::size_t bytes) {
    requests.receive(communicator->state().comm, data + begin, bytes, from, tag);
  });
}

void TreeReduction::State::check_arguments(std::span<const std::uint8_t> leaf_present,
                                           unsigned raise) const {
  if (raise >= most_flags) {
    throw std::invalid_argument("flags are bits below " + std::to_string(most_flags));
  }
  if (leaf_present.size() != leaves) {
    throw std::invalid_argument("leaf_present has " + std::to_string(leaf_present.size()) +
                                " flags for " + std::to_string(leaves) + " leaves");
  }
}

// Flags must come from every rank: one that has nothing to send sends an empty message. Any tag
// is accepted; what belongs together is told by the order of messages, which MPI keeps.
void TreeReduction::State::receive_pieces(std::size_t from,
                                          std::span<const std::uint8_t> leaf_present) {
  const std::size_t floats = shard(rank).size();
  const std::size_t before = piece_receives.size();
  float* piece = received.data() + received_begin[from];
  for (const Subtree& subtree : subtrees_of[from]) {
    const bool present = is_present(subtree, leaf_present);
    if (present) receive(piece_receives, piece, floats, from, MPI_ANY_TAG);
    tree.set(subtree, present ? piece : nullptr);
    piece += round_up(floats);
  }
  if (piece_receives.size() == before) {
    piece_receives.receive(communicator->state().comm, nullptr, 0, from, MPI_ANY_TAG);
  }
}

void TreeReduction::State::send_pieces(std::size_t to, std::span<const std::uint8_t> leaf_present,
                                       int tag) {
  const Shard piece = shard(to);
  const std::size_t before = sends.size();
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (is_present(subtrees()[i], leaf_present)) {
      send(own[i].data() + piece.begin, piece.size(), to, tag);
    }
  }
  if (sends.size() == before) sends.send(communicator->state().comm, nullptr, 0, to, tag);
}

unsigned TreeReduction::State::raised_elsewhere() const {
  unsigned raised = 0;
  for (std::size_t i = 0; i < piece_receives.size(); ++i) {
    raised |= static_cast<unsigned>(piece_receives.tag(i));
  }
  return raised;
}

TreeReduction::TreeReduction(Communicator& communicator, std::size_t leaves, std::size_t elements)
    : TreeReduction(communicator, leaves, elements, Options{}) {}

TreeReduction::TreeReduction(Communicator& communicator, std::size_t leaves, std::size_t elements,
                             const Options& options)
    : state_(std::make_unique<State>(communicator, leaves, elements, options)) {}

TreeReduction::~TreeReduction() {
  if (state_ && (state_->piece_receives.outstanding() || state_->total_receives.outstanding() ||
                 state_->sends.outstanding())) {
    detail::keep_forever(std::shared_ptr<State>(std::move(state_)));
  }
}

TreeReduction::TreeReduction(TreeReduction&& other) noexcept = default;

TreeReduction& TreeReduction::operator=(TreeReduction&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

std::span<const Subtree> TreeReduction::subtrees() const {
  return state_->subtrees();
}

std::span<float> TreeReduction::partial(std::size_t i) {
  return state_->own.at(i).span();
}

Shard TreeReduction::shard_of(std::size_t rank) const {
  return state_->shard(rank);
}

TreeReduction::Result TreeReduction::sum(std::span<const std::uint8_t> leaf_present,
                                         unsigned raise) {
  State& s = *state_;
  s.check_arguments(leaf_present, raise);
  if (s.ranks == 1) {
    // The total is touched only here, and holds zeros.
    const bool present = is_present(s.subtrees()[0], leaf_present);
    return {present ? s.own[0].span() : s.total.span(), raise};
  }
  detail::CommunicatorState& state = s.communicator->state();
  detail::check_usable(state, "gradient sum");
  s.piece_receives.clear();
  s.total_receives.clear();
  s.sends.clear();

  // Peers in turn from this rank on, so that not all send to the same one at once. Receives come
  // first, for both steps: then messages land where they belong without a copy.
  const bool any_present = is_present({0, s.leaves}, leaf_present);
  for (std::size_t i = 1; i < s.ranks; ++i) {
    const std::size_t from = (s.rank + s.ranks - i) % s.ranks;
    s.receive_pieces(from, leaf_present);
    const Shard shard = s.shard(from);
    if (any_present) {
      s.receive(s.total_receives, s.total.data() + shard.begin, shard.size(), from, total_tag);
    }
  }
  for (std::size_t i = 1; i < s.ranks; ++i) {
    s.send_pieces((s.rank + i) % s.ranks, leaf_present, static_cast<int>(raise));
  }
  const Shard mine = s.shard(s.rank);
  for (std::size_t i = 0; i < s.own.size(); ++i) {
    const bool present = is_present(s.subtrees()[i], leaf_present);
    s.tree.set(s.subtrees()[i], present ? s.own[i].data() + mine.begin : nullptr);
  }

  detail::wait_all(state, s.piece_receives, "gradient sum, reduce-scatter");
  const unsigned raised = raise | s.raised_elsewhere();
  if (any_present) {
    s.tree.finish(s.total.span().subspan(mine.begin, mine.size()));
    for (std::size_t i = 1; i < s.ranks; ++i) {
      s.send(s.total.data() + mine.begin, mine.size(), (s.rank + i) % s.ranks, total_tag);
    }
  } else {
    std::fill_n(s.total.data(), s.elements, 0.0F);
  }
  detail::wait_all(state, s.total_receives, "gradient sum, all-gather");
  detail::wait_all(state, s.sends, "gradient sum, sending");
  return {s.total.span(), raised};
}

}  // namespace lockstep::comm

#include "comm/parameter_exchange.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm_main.hpp"
#include "serial_tree.hpp"

namespace lockstep::comm {
namespace {

using test::Floats;
using test::serial_sum;
using test::world;
using Options = ParameterExchange::Options;
using Way = ParameterExchange::Way;

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Leaves' gradients that repeat after `period` elements, so that large ones cost little to make.
struct Gradients {
  Gradients(std::size_t leaves, std::size_t period, std::uint32_t seed)
      : values(test::random_leaves(leaves, period, seed)) {}
  std::vector<Floats> values;
};

void repeat_into(std::span<float> out, const Floats& values) {
  for (std::size_t at = 0; at < out.size(); at += values.size()) {
    std::copy_n(values.begin(), std::min(values.size(), out.size() - at),
                out.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

// Tells the bits of each chunk that this rank moves, and holds what is about to change against what
// the owners have told.
class Watch final : public ParameterWatch {
 public:
  explicit Watch(std::size_t elements)
      : told(elements), looked_at(elements), words_(chunks_in(elements)) {}

  void before_change(std::size_t begin, std::span<const float> parameters) override {
    for_each_chunk({begin, begin + parameters.size()}, [&](std::size_t at, std::size_t count) {
      if (heard_.at(at / chunk) != sum_of_bits(parameters.subspan(at - begin, count)))
        as_told = false;
    });
    count(looked_at, begin, parameters.size());
  }
  void after_move(std::size_t begin, std::span<const float> moved) override {
    words_[begin / chunk] = sum_of_bits(moved);
    count(told, begin, moved.size());
  }
  std::span<const std::uint64_t> words() const override { return words_; }
  void hear(std::span<const std::uint64_t> words) override {
    heard_.assign(words.begin(), words.end());
  }

  std::vector<int> told, looked_at;  // times in a step, by element
  bool as_told = true;

 private:
  static std::uint64_t sum_of_bits(std::span<const float> values) {
    std::uint64_t sum = 0;
    for (const float value : values) sum += std::bit_cast<std::uint32_t>(value);
    return sum;
  }
  static void count(std::vector<int>& times, std::size_t begin, std::size_t size) {
    for (std::size_t i = begin; i < begin + size; ++i) ++times[i];
  }
  std::vector<std::uint64_t> words_, heard_;
};

// Some of what a rank owns, cut at whole registers: every third run of them is another rank's sum,
// and the runs that it sums itself it moves or not.
std::vector<ParameterExchange::OwnSum> some_of(std::span<const Shard> owned, std::size_t run) {
  std::vector<ParameterExchange::OwnSum> own;
  for (const Shard& shard : owned) {
    for (std::size_t begin = shard.begin, i = 0; begin < shard.end; begin += run, ++i) {
      if (i % 3 != 0) own.push_back({{begin, std::min(shard.end, begin + run)}, i % 3 == 2});
    }
  }
  return own;
}

// An exchange whose parameters become the gradient's sum: then it is an all-reduce. With `run`,
// where ranks can, they make sums of runs of so many elements by themselves.
class AllReduce {
 public:
  AllReduce(std::size_t leaves, std::size_t elements, const Options& options, std::size_t run = 0)
      : leaves_(leaves),
        exchange_(world(), leaves, elements, options),
        moved_(elements),
        watch_(elements) {
    // Without elements nothing keeps a rank in the step until the others have read its board.
    by_elements_ = run > 0 && elements > 0 && exchange_.can_sum_by_elements();
    if (by_elements_) {
      own_sums_ = some_of(exchange_.owned(), run);
      for (const ParameterExchange::Part& part : exchange_.parts()) {
        for (const auto& own : some_of({&part.elements, 1}, run))
          summed_by_one_.push_back(own.elements);
      }
      const std::string why_not = exchange_.make_boards(100, 2);
      if (!why_not.empty()) throw std::runtime_error(why_not);
      exchange_.set_own_sums(own_sums_);
    }
    const auto move = [this](std::size_t begin, std::span<const float> sum, std::span<float> moved,
                             unsigned flags) {
      std::ranges::copy(sum, moved.subspan(begin).begin());
      for (std::size_t i = begin; i < begin + sum.size(); ++i) ++moved_[i];
      flags_seen_ |= flags;
      if (holds_ && !released_) moved_too_early_ = true;
    };
    const auto note = [this](std::size_t begin, std::span<const float> sum, unsigned) {
      for (std::size_t i = begin; i < begin + sum.size(); ++i) ++noted_[i];
    };
    exchange_.set_move(move, note);
    exchange_.set_watch(watch_);
  }

  // One step; what must not be read holds what would show.
  void run(const Gradients& gradients, std::span<const std::uint8_t> present, unsigned flags) {
    std::ranges::fill(moved_, 0);
    noted_ = moved_;
    watch_.told = watch_.looked_at = moved_;
    flags_seen_ = 0;
    for (std::size_t i = 0; i < exchange_.subtrees().size(); ++i) {
      const auto sum = serial_sum(exchange_.subtrees()[i], gradients.values, present);
      if (sum && !sum->empty()) {
        repeat_into(exchange_.partial(i), *sum);
      } else {
        std::ranges::fill(exchange_.partial(i), 1e30F);
      }
    }
    holds_ = !holds_;
    released_ = false;
    way_ = by_elements_ ? next_way() : OwnSums::none;
    if (way_ != OwnSums::none) {  // then no partial sum of these is to be read
      for (std::size_t i = 0; i < exchange_.subtrees().size(); ++i) {
        for (const Shard& range : summed_by_one_) {
          std::ranges::fill(exchange_.partial(i).subspan(range.begin, range.size()), 1e30F);
        }
      }
    }
    exchange_.begin(present, flags,
                    holds_ ? ParameterExchange::Sums::hold : ParameterExchange::Sums::move);
    if (by_elements_) make_own_sums(gradients, present);
    // As backward does: a piece after the other, from the end, whose parameters it still reads when
    // it computes the next one.
    const std::size_t elements = moved_.size();
    const Floats before(exchange_.parameters().begin(), exchange_.parameters().end());
    std::size_t read_before = elements;
    for (std::size_t quarter = 4; quarter-- > 0;) {
      exchange_.sums_final_from(elements / 4 * quarter);
      for (int i = 0; i < 5; ++i) exchange_.progress();
      const auto read = exchange_.parameters().first(read_before);
      if (way_ != OwnSums::moved && !same_bits(read, std::span(before).first(read_before))) {
        changed_while_read_ = true;
      }
      read_before = elements / 4 * quarter;
      exchange_.final_from(read_before);
    }
    raised_ = exchange_.raised();
    if (holds_) {
      exchange_.wait_for_sums();
      noted_in_time_ = noted_;
      visited_.assign(moved_.size(), 0);
      exchange_.visit_sums([this](std::size_t begin, std::span<const float> sum) {
        std::ranges::copy(sum, visited_.begin() + static_cast<std::ptrdiff_t>(begin));
      });
      world().barrier();  // nobody calls MPI but this
      released_ = true;
      exchange_.release();
    }
    exchange_.wait_for(elements / 2);
    exchange_.finish();
  }

  void expect(const Gradients& gradients, std::span<const std::uint8_t> present, unsigned raised) {
    const auto sum = serial_sum({0, leaves_}, gradients.values, present);
    Floats expected(moved_.size());
    if (sum && !sum->empty()) repeat_into(expected, *sum);
    ASSERT_TRUE(same_bits(exchange_.parameters().first(moved_.size()), expected))
        << exchange_.describe();
    ASSERT_EQ(raised_, raised);
    Floats owned(moved_.size());
    for (const Shard& shard : exchange_.owned()) {
      std::fill(owned.begin() + static_cast<std::ptrdiff_t>(shard.begin),
                owned.begin() + static_cast<std::ptrdiff_t>(shard.end), 1.0F);
    }
    ASSERT_TRUE(std::ranges::equal(owned, moved_)) << "each owned element moves once, no other";
    ASSERT_FALSE(moved_too_early_);
    ASSERT_FALSE(changed_while_read_);
    ASSERT_TRUE(watch_.as_told) << "what changes is what owners made of it in the last step";
    ASSERT_TRUE(std::ranges::all_of(watch_.looked_at, [](int n) { return n == 1 || n == 2; }));
    std::vector<int> share(moved_.size());
    for (const Shard& shard : exchange_.share_of(world().rank())) {
      for (std::size_t i = shard.begin; i < shard.end; ++i) ++share[i];
    }
    ASSERT_EQ(watch_.told, share) << "each element is told of by one rank";
    if (holds_) {
      ASSERT_TRUE(std::ranges::equal(owned, noted_in_time_)) << "and is noted once, before";
      for (std::size_t i = 0; i < owned.size(); ++i) {
        if (owned[i] == 0) expected[i] = 0;
      }
      ASSERT_TRUE(same_bits(visited_, expected)) << "and its sum can be looked at again";
    }
    if (!exchange_.owned().empty()) {
      ASSERT_EQ(flags_seen_, raised);
    }
  }

  ParameterExchange& exchange() { return exchange_; }

 private:
  using OwnSums = ParameterExchange::OwnSums;

  // All ways in turn, but that a step which holds its sums moves nothing.
  OwnSums next_way() const {
    if (holds_) return exchange_.step() % 4 == 1 ? OwnSums::given : OwnSums::none;
    return exchange_.step() % 4 == 0 ? OwnSums::moved : OwnSums::given;
  }

  // All ranks show something, and read what the others show.
  void make_own_sums(const Gradients& gradients, std::span<const std::uint8_t> present) {
    const auto step = static_cast<float>(exchange_.step());
    exchange_.board()[99] = step + static_cast<float>(world().rank());
    exchange_.post(1);
    exchange_.wait_for_posts(1);
    for (std::size_t r = 0; r < world().size(); ++r) {
      ASSERT_EQ(exchange_.board_of(r)[99], step + static_cast<float>(r));
    }
    if (way_ == OwnSums::none) return;
    exchange_.own_sums_are(way_);
    const auto sum = serial_sum({0, leaves_}, gradients.values, present);
    Floats total(moved_.size());
    if (sum && !sum->empty()) repeat_into(total, *sum);
    for (auto own = own_sums_.rbegin(); own != own_sums_.rend(); ++own) {
      const bool moves = own->moves && way_ == OwnSums::moved;
      for (std::size_t end = own->elements.end; end > own->elements.begin;) {
        constexpr std::size_t kPiece = 1600;
        const std::size_t begin = end - std::min(kPiece, end - own->elements.begin);
        const auto from = total.begin() + static_cast<std::ptrdiff_t>(begin);
        if (moves) {
          const Shard look = exchange_.before_moving({begin, end});
          watch_.before_change(look.begin, exchange_.parameters().subspan(look.begin, look.size()));
          std::copy_n(from, end - begin, exchange_.parameters().subspan(begin).begin());
          for (std::size_t i = begin; i < end; ++i) ++moved_[i];
          const Shard told = exchange_.after_moving({begin, end});
          for_each_chunk(told, [&](std::size_t at, std::size_t count) {
            watch_.after_move(at, exchange_.parameters().subspan(at, count));
          });
        } else {
          std::copy_n(from, end - begin, exchange_.partial(0).subspan(begin).begin());
        }
        end = begin;
      }
    }
  }

  bool by_elements_ = false;
  std::vector<ParameterExchange::OwnSum> own_sums_;
  std::vector<Shard> summed_by_one_;  // of all ranks
  OwnSums way_ = OwnSums::none;
  std::size_t leaves_;
  ParameterExchange exchange_;
  std::vector<int> moved_;
  std::vector<int> noted_, noted_in_time_;
  Floats visited_;
  Watch watch_;
  bool holds_ = true;  // every other step, from the second on
  std::atomic<bool> released_{false};
  std::atomic<bool> moved_too_early_{false};
  bool changed_while_read_ = false;
  unsigned flags_seen_ = 0;
  unsigned raised_ = 0;
};

// Every way through the code that this number of ranks has.
std::vector<Options> all_options(const BucketSizes& buckets) {
  std::vector<Options> all;
  for (const std::size_t group : std::initializer_list<std::size_t>{1, 2, 3, 4}) {
    if (world().size() % group != 0) continue;
    const std::size_t groups = world().size() / group;
    for (const Way way : {Way::recursive, Way::direct}) {
      if (way == Way::recursive && (groups & (groups - 1)) != 0) continue;
      for (const std::size_t replicated : std::initializer_list<std::size_t>{0, 32 << 10}) {
        all.push_back({.buckets = buckets,
                       .replicated_bytes = replicated,
                       .way = way,
                       .always_apart = replicated == 0,
                       .thread = group == 2 ? ParameterExchange::Thread::always
                                            : ParameterExchange::Thread::never,
                       .group_ranks = group});
      }
    }
  }
  all.push_back({.buckets = buckets});
  all.push_back({.buckets = buckets, .shared_memory = false});
  all.push_back({.buckets = buckets, .always_apart = true, .shared_memory = false});
  return all;
}

class ParameterExchangeSizes : public testing::TestWithParam<std::size_t> {};

// Many patterns in turn through one object, as batches of different shapes come: the bits of the
// serial tree on every rank, whichever rank raises the flag or none.
TEST_P(ParameterExchangeSizes, EqualsTheSerialTreeForEveryWayAndPattern) {
  const std::size_t elements = GetParam();
  constexpr std::size_t leaves = 8;
  const Gradients gradients(leaves, std::min<std::size_t>(elements, 5003), 1);
  for (const BucketSizes& buckets : {BucketSizes{}, BucketSizes{4096, 12288}}) {
    for (const Options& options : all_options(buckets)) {
      AllReduce sum(leaves, elements, options);
      std::size_t raising = 0;  // size(): none
      const auto patterns = test::presence_patterns(leaves);
      // Large ones have seen all patterns when they were small.
      const std::size_t tried = elements > 100'000 ? 3 : patterns.size();
      for (std::size_t p = 0; p < tried; ++p) {
        sum.run(gradients, patterns[p], raising == world().rank() ? 2 : 0);
        sum.expect(gradients, patterns[p], raising < world().size() ? 2 : 0);
        if (HasFatalFailure()) return;
        raising = (raising + 1) % (world().size() + 1);
      }
    }
  }
}

// The same where ranks make some of the sums by themselves, of runs that begin and end in the
// middle of chunks; what stands in partial sums there is wrong then.
TEST_P(ParameterExchangeSizes, EqualsTheSerialTreeWhereRanksSumByThemselves) {
  const std::size_t elements = GetParam();
  constexpr std::size_t leaves = 8;
  const Gradients gradients(leaves, std::min<std::size_t>(elements, 5003), 1);
  for (const std::size_t run : std::initializer_list<std::size_t>{48, 4000}) {
    for (const Options& options : all_options({4096, 12288})) {
      AllReduce sum(leaves, elements, options, run);
      const auto patterns = test::presence_patterns(leaves);
      for (std::size_t p = 0; p < 6; ++p) {  // all ways, and back to the first
        const std::size_t raising = p % (world().size() + 1);
        sum.run(gradients, patterns[p % patterns.size()], raising == world().rank() ? 2 : 0);
        sum.expect(gradients, patterns[p % patterns.size()], raising < world().size() ? 2 : 0);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Around a chunk, the limit of replicated buckets, and the first bucket's end.
INSTANTIATE_TEST_SUITE_P(Sizes, ParameterExchangeSizes,
                         testing::Values(0, 1, 15, 16, 17, 1000, 1023, 1024, 1025, 8191, 8192, 8193,
                                         30'011, 262'143, 262'144, 262'145));

TEST(ParameterExchange, TenMillionFloats) {
  const Gradients gradients(16, 100'003, 3);
  const std::vector<std::uint8_t> present(16, 1);
  AllReduce sum(16, 10'000'000, {});
  for (int step = 0; step < 2; ++step) {
    sum.run(gradients, present, 0);
    sum.expect(gradients, present, 0);
    if (HasFatalFailure()) return;
  }
}

TEST(ParameterExchange, TwoInTurnDoNotDisturbEachOther) {
  const Gradients gradients(8, 999, 5);
  const std::vector<std::uint8_t> present(8, 1);
  AllReduce large(8, 1U << 20, {});
  AllReduce small(8, 10, {});
  for (int step = 0; step < 3; ++step) {
    large.run(gradients, present, 1);
    small.run(gradients, present, 0);
    large.expect(gradients, present, 1);
    small.expect(gradients, present, 0);
    if (HasFatalFailure()) return;
  }
}

TEST(ParameterExchange, ExtraFloatsStayEachRanksOwn) {
  constexpr std::size_t elements = 5000;
  const Gradients gradients(8, 999, 6);
  const std::vector<std::uint8_t> present(8, 1);
  for (Options options : all_options({4096, 12288})) {
    options.extra = 40;
    AllReduce sum(8, elements, options);
    ASSERT_EQ(sum.exchange().parameters().size(), elements + 40);
    ASSERT_EQ(sum.exchange().partial(0).size(), elements);
    const Floats own(40, static_cast<float>(world().rank()));
    std::ranges::copy(own, sum.exchange().parameters().last(40).begin());
    for (int step = 0; step < 2; ++step) {
      sum.run(gradients, present, 0);
      sum.expect(gradients, present, 0);
      if (HasFatalFailure()) return;
      ASSERT_TRUE(same_bits(sum.exchange().parameters().last(40), own));
    }
  }
}

TEST(ParameterExchange, SharesAreDisjointAndCover) {
  for (const std::size_t elements : std::initializer_list<std::size_t>{0, 5000, 300'001}) {
    for (const Options& options : all_options({8192, 40960})) {
      ParameterExchange exchange(world(), 8, elements, options);
      std::vector<int> owners(elements);
      for (std::size_t r = 0; r < world().size(); ++r) {
        for (const Shard& shard : exchange.share_of(r)) {
          for (std::size_t i = shard.begin; i < shard.end; ++i) ++owners[i];
        }
      }
      ASSERT_TRUE(std::ranges::all_of(owners, [](int n) { return n == 1; }));
    }
  }
}

// Each message rounds once, with a relative error of at most 2^-8, and no rank sends more than log2
// L sums of an element.
TEST(ParameterExchange, RoundedMessagesAreCloseAndTheSameOnAllRanks) {
  constexpr std::size_t elements = 50'000;
  const Gradients gradients(8, 999, 9);
  const std::vector<std::uint8_t> present(8, 1);
  for (const Options& options : all_options({65536, 65536})) {
    Options rounding = options;
    rounding.round_messages = true;
    rounding.replicated_bytes = 0;
    AllReduce sum(8, elements, rounding);
    sum.run(gradients, present, 0);
    const auto exact = serial_sum({0, 8}, gradients.values, present).value();
    const auto parameters = sum.exchange().parameters();
    for (std::size_t i = 0; i < elements; ++i) {
      float sizes = 0;
      for (const Floats& leaf : gradients.values) sizes += std::abs(leaf[i % 999]);
      ASSERT_NEAR(parameters[i], exact[i % 999], 3 * sizes / 256) << options.group_ranks;
    }
    const std::string mine(reinterpret_cast<const char*>(parameters.data()),
                           parameters.size_bytes());
    for (const std::string& other : world().gather_strings(mine)) ASSERT_TRUE(other == mine);
  }
}

TEST(ParameterExchange, EachRanksShareShrinksAsRanksGrow) {
  ParameterExchange exchange(world(), 8, 4'000'000);
  std::size_t owned = 0;
  for (const Shard& shard : exchange.owned()) owned += shard.size();
  const double uneven = 2.0 * chunk * static_cast<double>(exchange.buckets().size());
  EXPECT_NEAR(static_cast<double>(owned), 4e6 / static_cast<double>(world().size()), uneven);
}

TEST(ParameterExchange, WantsProgressOfBucketsThatNoThreadGoesOnWith) {
  using Thread = ParameterExchange::Thread;
  const std::size_t one_bucket = 1000, buckets = 1'000'000;
  const bool alone = world().size() == 1;
  for (const Thread thread : {Thread::never, Thread::between_nodes, Thread::always}) {
    ParameterExchange exchange(world(), 8, buckets, {.thread = thread});
    EXPECT_EQ(exchange.wants_progress(), !alone && thread != Thread::always);
    EXPECT_EQ(exchange.has_thread(), !alone && thread == Thread::always);
    ParameterExchange apart(world(), 8, buckets,
                            {.shared_memory = false, .thread = thread, .watched = false});
    EXPECT_EQ(apart.wants_progress(), !alone && thread == Thread::never);
    ParameterExchange small(world(), 8, one_bucket, {.thread = thread, .watched = false});
    EXPECT_FALSE(small.wants_progress());
  }
}

// Parameters of the last elements are there while those of the first still wait for their gradient.
TEST(ParameterExchange, MovesBucketsBeforeTheRestIsFinal) {
  constexpr std::size_t elements = 100'000;
  ParameterExchange exchange(world(), 8, elements, {.buckets = {65536, 65536}});
  std::atomic<std::size_t> moved_from{elements};
  exchange.set_move([&](std::size_t begin, std::span<const float>, std::span<float>, unsigned) {
    if (begin < moved_from) moved_from = begin;
  });
  exchange.begin(std::vector<std::uint8_t>(8, 1), 0);
  exchange.final_from(elements - 20'000);  // all of the first bucket, some of the second
  while (moved_from == elements) exchange.progress();  // every rank has a share of the first bucket
  EXPECT_GE(moved_from, elements - 20'000);
  exchange.final_from(0);
  exchange.finish();
  EXPECT_LT(moved_from, elements - 20'000);
}

// Between groups parameters move while backward still reads the old ones; within a group they wait.
TEST(ParameterExchange, ParametersThatAreReadMoveElsewhereAndLandLater) {
  if (world().size() == 1) return;
  constexpr std::size_t elements = 100'000;
  const std::vector<std::uint8_t> present(8, 1);
  for (Options options : all_options({65536, 65536})) {
    options.replicated_bytes = 0;
    options.always_apart = true;
    ParameterExchange exchange(world(), 8, elements, options);
    const bool between = exchange.describe().find("messages") != std::string::npos;
    std::size_t owned = 0;
    for (const Shard& shard : exchange.owned()) owned += shard.size();
    std::atomic<std::size_t> moved_elements{0};
    exchange.set_move(
        [&](std::size_t begin, std::span<const float> sum, std::span<float> moved, unsigned) {
          std::ranges::copy(sum, moved.subspan(begin).begin());
          moved_elements += sum.size();
        });
    for (std::uint32_t step = 1; step < 4; ++step) {
      const Gradients gradients(8, 999, step);
      const Floats before(exchange.parameters().begin(), exchange.parameters().end());
      for (std::size_t i = 0; i < exchange.subtrees().size(); ++i) {
        const auto sum = serial_sum(exchange.subtrees()[i], gradients.values, present);
        repeat_into(exchange.partial(i), *sum);
      }
      exchange.begin(present, 0);
      exchange.sums_final_from(0);
      while (between && moved_elements < step * owned) exchange.progress();
      for (int i = 0; i < 20; ++i) exchange.progress();
      ASSERT_EQ(moved_elements, (between ? step : step - 1) * owned);
      ASSERT_TRUE(same_bits(exchange.parameters(), before));
      exchange.final_from(0);
      exchange.finish();
      Floats expected(elements);
      repeat_into(expected, *serial_sum({0, 8}, gradients.values, present));
      ASSERT_TRUE(same_bits(exchange.parameters(), expected));
    }
  }
}

TEST(ParameterExchange, WrongArgumentsThrowBeforeAnythingIsSent) {
  EXPECT_THROW(ParameterExchange(world(), 6, 5), std::invalid_argument);
  if (world().size() > 2) {
    EXPECT_THROW(ParameterExchange(world(), 2, 5), std::invalid_argument)
        << "more ranks than leaves";
  }
  EXPECT_THROW(ParameterExchange(world(), 8, 5, {.buckets = {0, 1}}), std::invalid_argument);
  ParameterExchange exchange(world(), 8, 5);
  EXPECT_THROW(exchange.begin(std::vector<std::uint8_t>(7, 1), 0), std::invalid_argument);
}

}  // namespace
}  // namespace lockstep::comm

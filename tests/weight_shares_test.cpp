// Ranks that share a weight gradient out by weights, one after the other in this process: the same
// bits as one rank that sums all by samples, on every instruction set.
#include "nn/weight_shares.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "instruction_sets.hpp"
#include "moving_parameters.hpp"
#include "nn/weight_gradient.hpp"
#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

using test::bytes_of;
using test::Moving;
using test::uniform_matrix;
using test::with_each_instruction_set;

using Rows = SharedWeights::Rows;

// What the ranks have in common: whose leaves are which, and what they show.
struct Ranks {
  explicit Ranks(std::vector<std::vector<std::size_t>> leaf_rows_of_rank)
      : leaf_rows(std::move(leaf_rows_of_rank)), packed(leaf_rows.size()) {
    all_rows.push_back(0);
    for (const auto& rows : leaf_rows) {
      const std::size_t first = all_rows.back();
      for (std::size_t l = 1; l < rows.size(); ++l) all_rows.push_back(first + rows[l]);
    }
  }

  std::vector<std::vector<std::size_t>> leaf_rows;
  std::vector<std::size_t> all_rows;
  std::vector<AlignedBuffer<float>> packed;
};

class OneRank final : public WeightShares {
 public:
  OneRank(Ranks& ranks, std::size_t rank, const Update<float>* update, std::span<float> gradient)
      : ranks_(ranks),
        rank_(rank),
        update_(update),
        gradient_(gradient),
        of_leaf_(ranks.all_rows.size() - 1) {}

  const SharedWeights* find(std::size_t) const override { return nullptr; }
  std::span<float> packed(const SharedWeights& weights) override {
    const std::size_t samples = ranks_.leaf_rows[rank_].back();
    ranks_.packed[rank_] = AlignedBuffer<float>(samples * shared_factors_size(weights));
    return ranks_.packed[rank_].span();
  }
  void post(const SharedWeights&) override {}
  std::span<const Factors> wait(const SharedWeights&) override {
    factors_.clear();
    for (std::size_t r = 0; r < ranks_.packed.size(); ++r) {
      factors_.push_back({ranks_.packed[r].data(), ranks_.leaf_rows[r]});
    }
    return factors_;
  }
  const Update<float>* update() const override { return update_; }
  std::span<float> gradient() override { return gradient_; }
  void before_moving(std::size_t begin, std::size_t end) override {
    before.push_back({begin, end});
  }
  void after_moving(std::size_t begin, std::size_t end) override { after.push_back({begin, end}); }
  std::span<const std::size_t> own_leaf_rows() const override { return ranks_.leaf_rows[rank_]; }
  std::span<const std::size_t> leaf_rows() const override { return ranks_.all_rows; }
  std::span<LeafFactors<float>> of_leaf() override { return of_leaf_; }

  std::vector<std::pair<std::size_t, std::size_t>> before, after;

 private:
  Ranks& ranks_;
  std::size_t rank_;
  const Update<float>* update_;
  std::span<float> gradient_;
  std::vector<Factors> factors_;
  std::vector<LeafFactors<float>> of_leaf_;
};

class Told final : public ParameterFlow {
 public:
  void before_reading(std::size_t) override {}
  void final_from(std::size_t begin, Parameters parameters) override {
    EXPECT_EQ(parameters, Parameters::free);
    EXPECT_LE(begin, last) << "not from the end to the beginning";
    last = begin;
  }
  bool carries_sums_meanwhile() const override { return false; }
  std::size_t last = ~std::size_t{0};
};

// Leaves of each rank, in rows of its pass: one and several, uneven and empty ones, a rank without
// samples, and leaves of more than a block of the depth.
const std::vector<std::vector<std::vector<std::size_t>>> kRanks = {
    {{0, 3, 7}, {0, 4, 8}},
    {{0, 12, 25, 37}, {0, 13, 25, 38}, {0, 12, 25}},
    {{0, 0, 0, 0}, {0, 0, 1, 1}},
    {{0, 300}, {0, 290}},
    {{0, 2, 4}, {0, 2, 4}, {0, 0, 0}, {0, 5, 5}},
};

// Rows that the ranks own in turn; the last two of three share one with their neighbour.
std::vector<Rows> rows_of(std::size_t inputs, std::size_t ranks, std::size_t rank) {
  std::vector<Rows> rows;
  std::size_t begin = 0;
  for (std::size_t i = 0; begin < inputs; ++i) {
    const std::size_t end = std::min(inputs, begin + 16 * (1 + i % 3));
    rows.push_back({begin, end, i % ranks == rank, i % 4 != 3});
    begin = i % 4 == 3 && end < inputs ? end - 1 : end;
  }
  return rows;
}

class WeightSharesTest : public testing::TestWithParam<Precision> {};

TEST_P(WeightSharesTest, RanksTogetherSumWhatOneRankSums) {
  const Precision precision = GetParam();
  for (const auto& leaf_rows : kRanks) {
    for (const auto& [inputs, outputs] :
         {std::pair<std::size_t, std::size_t>{131, 70}, {257, 512}, {16, 33}}) {
      Ranks ranks(leaf_rows);
      const std::size_t samples = ranks.all_rows.back(), count = leaf_rows.size();
      SCOPED_TRACE(testing::Message() << samples << " samples of " << count << " ranks, " << inputs
                                      << " x " << outputs);
      auto x = uniform_matrix<float>(samples, inputs, 1);
      auto d_y = uniform_matrix<float>(samples, outputs, 2);
      with_each_instruction_set([&] {
        if (precision == Precision::bfloat16) {
          kernels<float>().round_to_bfloat16(x.view());
          kernels<float>().round_to_bfloat16(d_y.view());
        }
        const MatrixView<const float> all_x = std::as_const(x).view();
        const MatrixView<const float> all_d_y = std::as_const(d_y).view();
        const auto of_rank = [&](MatrixView<const float> matrix, std::size_t r) {
          std::size_t first = 0;
          for (std::size_t before = 0; before < r; ++before) first += leaf_rows[before].back();
          return MatrixView<const float>{matrix.row(first), leaf_rows[r].back(), matrix.cols,
                                         matrix.stride};
        };
        constexpr std::size_t kOffset = 48;
        const std::size_t size = kOffset + inputs * outputs;
        std::vector<float> expected(size);
        AlignedBuffer<float> scratch(weight_gradient_scratch<float>(samples, inputs, outputs));
        const SubtreeGradient<float> whole{ranks.all_rows, expected};
        weight_gradients<float>(all_x, all_d_y, std::span(&whole, 1), kOffset, scratch.span(),
                                precision);

        // One rank moves all, of which `moved` has what the ranks together are to move.
        Moving<float> alone(UpdateRule::adam, size), together(UpdateRule::adam, size),
            moved(UpdateRule::adam, size);
        const SubtreeGradient<float> moving{ranks.all_rows, {}, &alone.u};
        weight_gradients<float>(all_x, all_d_y, std::span(&moving, 1), kOffset, scratch.span(),
                                precision);
        SharedWeights weights{kOffset, inputs, outputs, 0, {}};
        weights.rows = rows_of(inputs, count, 0);
        for (std::size_t r = 0; r < count; ++r) {
          OneRank rank(ranks, r, nullptr, {});
          share_factors(of_rank(all_x, r), of_rank(all_d_y, r), weights, precision, rank);
        }
        std::vector<float> found(size, -7);
        for (std::size_t r = 0; r < count; ++r) {
          weights.rows = rows_of(inputs, count, r);
          OneRank sums(ranks, r, nullptr, found);
          Told told;
          sum_own_rows(weights, precision, sums, &told);
          EXPECT_TRUE(sums.before.empty());
          OneRank moves(ranks, r, &together.u, found);
          sum_own_rows(weights, precision, moves, nullptr);
          // Pieces from the last to the first, told of before and after, that are what moves.
          EXPECT_EQ(moves.before, moves.after);
          EXPECT_TRUE(std::ranges::is_sorted(moves.before, std::greater()));
          std::size_t told_of = 0, own = 0;
          for (const auto& [begin, end] : moves.before) told_of += end - begin;
          for (const Rows& rows : weights.rows) {
            if (rows.own && rows.moves) own += (rows.end - rows.begin) * outputs;
          }
          EXPECT_EQ(told_of, own);
          for (const Rows& rows : weights.rows) {
            if (!rows.own || !rows.moves) continue;
            const std::size_t begin = kOffset + rows.begin * outputs;
            const std::size_t end = kOffset + rows.end * outputs;
            for (auto part : {&Moving<float>::w, &Moving<float>::m1, &Moving<float>::m2}) {
              std::copy((alone.*part).data() + begin, (alone.*part).data() + end,
                        (moved.*part).data() + begin);
            }
          }
        }
        const auto tail = [](const std::vector<float>& v) {
          return bytes_of(std::span<const float>(v).subspan(kOffset));
        };
        EXPECT_EQ(tail(found), tail(expected));
        EXPECT_EQ(together.bytes(), moved.bytes());
      });
    }
  }
}

// More weights of one rank than are told of at once.
TEST(WeightShares, LargeSharesMoveInPieces) {
  constexpr std::size_t kInputs = 1200, kOutputs = 1024, kSamples = 6;
  Ranks ranks({{0, 3}, {0, 3}});
  const auto x = uniform_matrix<float>(kSamples, kInputs, 1);
  const auto d_y = uniform_matrix<float>(kSamples, kOutputs, 2);
  SharedWeights weights{
      0, kInputs, kOutputs, 0, {{0, 100, false, true}, {100, kInputs, true, true}}};
  for (std::size_t r = 0; r < 2; ++r) {
    OneRank rank(ranks, r, nullptr, {});
    share_factors({x.view().row(3 * r), 3, kInputs, x.view().stride},
                  {d_y.view().row(3 * r), 3, kOutputs, d_y.view().stride}, weights,
                  Precision::float32, rank);
  }
  Moving<float> alone(UpdateRule::momentum, kInputs * kOutputs),
      shared(UpdateRule::momentum, kInputs * kOutputs);
  const std::vector<std::size_t> rows{0, 3, 6};
  const SubtreeGradient<float> whole{rows, {}, &alone.u};
  AlignedBuffer<float> scratch(weight_gradient_scratch<float>(kSamples, kInputs, kOutputs));
  weight_gradients<float>(x.view(), d_y.view(), std::span(&whole, 1), 0, scratch.span());
  OneRank rank(ranks, 1, &shared.u, {});
  Told told;
  sum_own_rows(weights, Precision::float32, rank, &told);
  EXPECT_GT(rank.before.size(), 3U);
  EXPECT_EQ(rank.before.front().second, kInputs * kOutputs);
  EXPECT_EQ(rank.before.back().first, 100 * kOutputs);
  EXPECT_EQ(told.last, rank.before.back().second) << "all but the last piece is final";
  for (auto part : {&Moving<float>::w, &Moving<float>::m1}) {
    const auto own_of = [part](const Moving<float>& moving) {
      return bytes_of(std::span<const float>((moving.*part).span()).subspan(100 * kOutputs));
    };
    EXPECT_EQ(own_of(shared), own_of(alone));
  }
}

// Neither kind of strip is always the one that takes more.
TEST(WeightShares, RoomForFactorsIsEnoughForEveryKindOfStrips) {
  const SharedWeights weights{0, 1024, 32, 0, {{0, 512, true, true}, {512, 1024, false, true}}};
  EXPECT_EQ(inputs_in_strips(weights, 12), 1032U);
  EXPECT_EQ(inputs_in_strips(weights, 32), 1024U);
  with_each_instruction_set([&] {
    const Kernels<float>& kernel = kernels<float>();
    const std::size_t panels = round_up(32, kernel.panel_width);
    EXPECT_GE(shared_factors_size(weights), panels + inputs_in_strips(weights, kernel.tile_inputs));
    if (kernel.pairs == nullptr) return;
    EXPECT_GE(shared_factors_size(weights),
              panels + inputs_in_strips(weights, kernel.pairs->tile_inputs));
  });
}

INSTANTIATE_TEST_SUITE_P(Precisions, WeightSharesTest,
                         testing::Values(Precision::float32, Precision::bfloat16));

}  // namespace
}  // namespace lockstep::nn

// Which pieces a tensor's norms are summed over, and what comes of them.
#include "nn/trust_ratios.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

namespace lockstep::nn {
namespace {

constexpr std::size_t kChunk = 1024;

// Tensors that share chunks, that end with one, and that span several; a statistic behind them.
ParameterLayout layout() {
  ParameterLayout layout;
  layout.add("0.weight", {40, 50}, false);  // 2,000 elements, padded as they stand
  layout.add("0.bias", {40}, true);         // up to 2,048: the end of a chunk
  layout.add("1.weight", {1}, false);
  layout.add("1.bias", {17}, true);
  layout.add("2.weight", {70, 90}, false);
  layout.add_statistic("2.running_mean", {70});
  return layout;
}

TEST(TrustRatios, PiecesCoverTheTensorsAndCrossNoChunk) {
  const ParameterLayout tensors = layout();
  const TrustRatios ratios(tensors, kChunk, false);
  std::size_t end = 0;
  for (const TrustRatios::Piece& piece : ratios.pieces()) {
    EXPECT_EQ(piece.begin, end) << "a gap, or twice the same";
    EXPECT_LT(piece.begin, piece.end);
    EXPECT_EQ(piece.begin / kChunk, (piece.end - 1) / kChunk) << "of two chunks";
    const ParameterTensor& tensor = tensors.tensors()[piece.tensor];
    EXPECT_GE(piece.begin, tensor.offset);
    EXPECT_LE(piece.end, tensor.offset + round_up(tensor.size, kLanes));
    end = piece.end;
  }
  EXPECT_EQ(end, tensors.trained_size());
}

TEST(TrustRatios, PiecesBeforeAChunkAreThoseThatBeginBeforeIt) {
  const ParameterLayout tensors = layout();
  const TrustRatios ratios(tensors, kChunk, false);
  const std::size_t size = tensors.trained_size();
  ASSERT_NE(size % kChunk, 0u) << "the end of a part of a chunk is to be tried too";
  for (std::size_t at = 0; at < size + kChunk; at += kChunk) {
    const std::size_t element = std::min(at, size);
    const auto before = std::ranges::count_if(
        ratios.pieces(), [&](const TrustRatios::Piece& piece) { return piece.begin < element; });
    EXPECT_EQ(ratios.pieces_before(element), static_cast<std::size_t>(before)) << element;
  }
}

// Squares 9 and 4 in every piece: any tensor has the ratio 3/2.
TEST(TrustRatios, AreThoseOfTheNormsButForBiases) {
  const ParameterLayout tensors = layout();
  for (const bool biases_too : {false, true}) {
    TrustRatios ratios(tensors, kChunk, biases_too);
    for (std::size_t i = 0; i < ratios.pieces().size(); ++i) ratios.set(i, {9, 4});
    ratios.update();
    for (std::size_t tensor = 0; tensor < 5; ++tensor) {
      const bool scaled = biases_too || !tensors.tensors()[tensor].is_bias;
      EXPECT_DOUBLE_EQ(ratios[tensor], scaled ? 1.5 : 1) << tensors.tensors()[tensor].name;
    }
  }
}

// Sums that would be others in another order.
TEST(TrustRatios, AddPiecesInTheirOrder) {
  ParameterLayout tensors;
  tensors.add("0.weight", {4 * kChunk}, false);
  TrustRatios ratios(tensors, kChunk, false);
  const double small = std::numeric_limits<double>::epsilon() / 2;
  ASSERT_EQ(1 + small + small, 1);
  ASSERT_NE(small + small + 1, 1);
  const auto ratio_of = [&](std::array<double, 4> squares) {
    for (const std::size_t i : {2u, 0u, 3u, 1u}) ratios.set(i, {squares[i], 1});
    ratios.update();
    return ratios[0];
  };
  EXPECT_EQ(ratio_of({1, small, small, small}), 0.5);
  EXPECT_GT(ratio_of({small, small, small, 1}), 0.5);
}

TEST(TrustRatios, AreOneWhereANormIsZeroOrNoNumber) {
  ParameterLayout tensors;
  tensors.add("0.weight", {2 * kChunk}, false);
  TrustRatios ratios(tensors, kChunk, false);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const SquaredNorms squares :
       {SquaredNorms{0, 4}, SquaredNorms{4, 0}, SquaredNorms{0, 0}, SquaredNorms{nan, 1}}) {
    ratios.set(0, squares);
    ratios.set(1, {0, 0});
    ratios.update();
    EXPECT_EQ(ratios[0], 1) << squares.parameters << " " << squares.direction;
  }
  ratios.set(0, {0, 4});
  ratios.set(1, {4, 0});
  ratios.update();
  EXPECT_EQ(ratios[0], 1);
  ratios.set(1, {16, 0});
  ratios.update();
  EXPECT_EQ(ratios[0], 2) << "what was one must not stay one";
}

// What others have summed comes as numbers.
TEST(TrustRatios, NumbersAreTwoAPiece) {
  ParameterLayout tensors;
  tensors.add("0.weight", {2 * kChunk}, false);
  TrustRatios ratios(tensors, kChunk, false);
  ASSERT_EQ(ratios.squares().size(), 2 * TrustRatios::kNumbers);
  ratios.set(1, {7, 8});
  EXPECT_EQ(ratios.squares()[TrustRatios::kNumbers], 7);
  EXPECT_EQ(ratios.squares()[TrustRatios::kNumbers + 1], 8);
  std::ranges::copy(std::array<double, 4>{30, 1, 6, 3}, ratios.squares().begin());
  ratios.update();
  EXPECT_EQ(ratios[0], 3);
}

}  // namespace
}  // namespace lockstep::nn

// Work that is cut for threads gives the bits of work that is not.
#include "nn/product.hpp"

#include <gtest/gtest.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include "random_matrix.hpp"

namespace lockstep::nn {
namespace {

TEST(Product, SameBitsForAnyNumberOfThreads) {
  const auto a = test::uniform_matrix<float>(400, 300, 1);
  AlignedBuffer<float> b(300 * 200);
  test::fill_uniform(b.span(), 2);
  std::vector<std::size_t> rows;
  for (std::size_t l = 0; l <= 8; ++l) rows.push_back(l * 400 / 8);

  const auto run = [&](int threads) {
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(threads));
    std::vector<float> all;
    tbb::task_arena(threads).execute([&] {
      Matrix<float> c(400, 200);
      multiply<float>({a.view(), b.data(), 300, true, c.view(), nullptr, Activation::tanh, 0.0f});
      AlignedBuffer<float> gradient(200 * 300);
      AlignedBuffer<float> scratch(weight_gradient_scratch<float>(400, 300, 200));
      const SubtreeGradient<float> subtree{rows, gradient.span()};
      weight_gradients<float>(a.view(), std::as_const(c).view(), std::span(&subtree, 1), 0,
                              scratch.span());
      all.assign(gradient.span().begin(), gradient.span().end());
    });
    return all;
  };
  const auto one = run(1);
  for (const int threads : {2, 3, 4}) EXPECT_EQ(run(threads), one) << threads;
}

TEST(RowBlocks, CoverEveryRowOnce) {
  for (const std::size_t rows : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    std::vector<int> seen(rows);
    for_each_row_block(rows, 1e6, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) ++seen[i];
    });
    EXPECT_EQ(std::ranges::count(seen, 1), static_cast<std::ptrdiff_t>(rows));
  }
}

}  // namespace
}  // namespace lockstep::nn

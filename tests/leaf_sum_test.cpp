#include "comm/leaf_sum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "comm_main.hpp"
#include "serial_tree.hpp"

namespace lockstep::comm {
namespace {

using test::Floats;
using test::serial_sum;
using test::world;

void put_partials(LeafSum& sum, const std::vector<Floats>& leaves,
                  std::span<const std::uint8_t> present) {
  for (std::size_t i = 0; i < sum.subtrees().size(); ++i) {
    const auto partial = serial_sum(sum.subtrees()[i], leaves, present);
    if (partial) std::ranges::copy(*partial, sum.partial(i).begin());
  }
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(LeafSum, EqualsTheSerialTree) {
  for (const std::size_t elements : std::initializer_list<std::size_t>{1, 16, 2000, 20'000}) {
    LeafSum sum(world(), 8, elements);
    const auto leaves = test::random_leaves(8, elements, 1);
    for (const auto& present : test::presence_patterns(8)) {
      put_partials(sum, leaves, present);
      const Floats expected = serial_sum({0, 8}, leaves, present).value_or(Floats(elements));
      ASSERT_TRUE(same_bits(sum.sum(present), expected));
    }
  }
}

// As between the buckets of a backward pass.
TEST(LeafSum, AnExchangeUnderWayGoesOn) {
  constexpr std::size_t elements = 500'000;
  const auto gradients = test::random_leaves(8, elements, 2);
  const auto statistics = test::random_leaves(8, 64, 3);
  const std::vector<std::uint8_t> present(8, 1);
  ParameterExchange exchange(world(), 8, elements, {.buckets = {65536, 65536}});
  exchange.set_move([](std::size_t begin, std::span<const float> sum, std::span<float> moved,
                       unsigned) { std::ranges::copy(sum, moved.subspan(begin).begin()); });
  LeafSum sum(world(), 8, 64);
  put_partials(sum, statistics, present);
  for (int step = 0; step < 3; ++step) {
    for (std::size_t i = 0; i < exchange.subtrees().size(); ++i) {
      std::ranges::copy(*serial_sum(exchange.subtrees()[i], gradients, present),
                        exchange.partial(i).begin());
    }
    exchange.begin(present, 0);
    for (std::size_t begin = elements; begin > 0;) {
      begin -= elements / 10;
      exchange.final_from(begin);
      ASSERT_TRUE(same_bits(sum.sum(present), serial_sum({0, 8}, statistics, present).value()));
    }
    exchange.finish();
    ASSERT_TRUE(same_bits(exchange.parameters(), serial_sum({0, 8}, gradients, present).value()));
  }
}

}  // namespace
}  // namespace lockstep::comm

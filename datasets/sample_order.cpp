#include "datasets/sample_order.hpp"

#include <Random123/philox.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "datasets/detail/clones.hpp"

namespace lockstep::datasets {
namespace {

using Philox = r123::Philox4x32;

constexpr std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}
constexpr std::uint32_t high(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}

Philox::key_type key_of(std::uint64_t seed) {
  return {{low(seed), high(seed)}};
}

// Of the first block of words of a position.
Philox::ctr_type counter_of(Purpose purpose, std::uint64_t epoch, std::uint32_t position) {
  return {{position, low(epoch), high(epoch), static_cast<std::uint32_t>(purpose) << 8}};
}

// The 32-bit words that one position may draw, in order.
class Words {
 public:
  Words(std::uint64_t seed, Purpose purpose, std::uint64_t epoch, std::uint32_t position)
      : key_(key_of(seed)), counter_(counter_of(purpose, epoch, position)) {}

  std::uint32_t next() {
    if (used_ == block_.size()) {
      assert((counter_[3] & 0xff) != 0xff);  // 1,024 words rejected: less likely than 2^-1024
      ++counter_[3];
      used_ = 0;
    }
    if (used_ == 0) block_ = Philox()(counter_, key_);
    return block_[used_++];
  }

 private:
  Philox::key_type key_;
  Philox::ctr_type counter_;
  Philox::ctr_type block_{};
  std::size_t used_ = 0;
};

// words[i] = the first word of position begin + i: a loop that goes by vectors.
LOCKSTEP_CLONES void first_words(Philox::key_type key, Philox::ctr_type counter,
                                 std::uint32_t begin, std::span<std::uint32_t> words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    counter[0] = begin + static_cast<std::uint32_t>(i);
    words[i] = Philox()(counter, key)[0];
  }
}

void check_count(std::size_t n) {
  if (n <= std::numeric_limits<std::uint32_t>::max()) return;
  throw std::length_error("a dataset has at most 4,294,967,295 samples, found " +
                          std::to_string(n));
}

}  // namespace

std::uint32_t uniform_below(std::uint32_t bound, std::uint64_t seed, Purpose purpose,
                            std::uint64_t epoch, std::uint32_t position) {
  assert(bound >= 1);
  Words words(seed, purpose, epoch, position);
  // The high half of word * bound is the result. 2^32 words do not share out evenly among `bound`
  // results: the first 2^32 mod bound values of the low half are one too many, and are rejected.
  std::uint64_t product = std::uint64_t{words.next()} * bound;
  if (static_cast<std::uint32_t>(product) < bound) {
    const std::uint32_t surplus = (0u - bound) % bound;  // 2^32 mod bound
    while (static_cast<std::uint32_t>(product) < surplus) {
      product = std::uint64_t{words.next()} * bound;
    }
  }
  return static_cast<std::uint32_t>(product >> 32);
}

void permute(std::span<std::uint32_t> order, std::uint64_t seed, Purpose purpose,
             std::uint64_t epoch) {
  check_count(order.size());
  std::iota(order.begin(), order.end(), 0u);
  const Philox::key_type key = key_of(seed);
  const Philox::ctr_type counter = counter_of(purpose, epoch, 0);
  std::array<std::uint32_t, 256> words;
  for (std::size_t end = order.size(), begin; end > 0; end = begin) {
    begin = (end - 1) / words.size() * words.size();
    first_words(key, counter, static_cast<std::uint32_t>(begin),
                std::span(words).first(end - begin));
    for (std::size_t i = end; i-- > begin;) {
      const auto position = static_cast<std::uint32_t>(i);
      const std::uint64_t bound = i + 1;
      const std::uint64_t product = words[i - begin] * bound;
      // As in uniform_below(), which is asked where the first word may be one to reject.
      const std::uint32_t other = low(product) >= bound
                                      ? high(product)
                                      : uniform_below(position + 1, seed, purpose, epoch, position);
      std::swap(order[i], order[other]);
    }
  }
}

std::vector<std::uint32_t> permutation(std::size_t n, std::uint64_t seed, Purpose purpose,
                                       std::uint64_t epoch) {
  check_count(n);
  std::vector<std::uint32_t> order(n);
  permute(order, seed, purpose, epoch);
  return order;
}

Split split(std::size_t n, double validation_fraction, std::uint64_t seed) {
  if (!(validation_fraction >= 0.0 && validation_fraction < 1.0)) {
    throw std::invalid_argument("validation fraction " + std::to_string(validation_fraction) +
                                "; expected 0 or above and below 1");
  }
  auto held_out =
      static_cast<std::size_t>(std::llround(static_cast<double>(n) * validation_fraction));
  if (validation_fraction > 0.0) held_out = std::max<std::size_t>(held_out, 1);
  held_out = std::min(held_out, n == 0 ? 0 : n - 1);

  const std::vector<std::uint32_t> order = permutation(n, seed, Purpose::split, 0);
  const auto cut = order.begin() + static_cast<std::ptrdiff_t>(held_out);
  Split result{.train = {cut, order.end()}, .validation = {order.begin(), cut}};
  std::sort(result.train.begin(), result.train.end());
  std::sort(result.validation.begin(), result.validation.end());
  return result;
}

}  // namespace lockstep::datasets

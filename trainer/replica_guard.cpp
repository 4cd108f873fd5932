#include "trainer/replica_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace lockstep::trainer {
namespace {

std::uint64_t hash_of(std::span<const float> values) {
  return XXH3_64bits(values.data(), values.size_bytes());
}

// The sum of a chunk's bits as whole numbers: any one that flips shows, and it costs a tenth of a
// hash, which counts for something that is looked at twice a step.
std::uint64_t sum_of_bits(std::span<const float> values) {
  constexpr std::size_t kLine = 16;  // floats
  std::uint64_t sum = 0;
  const auto add_pairs = [&](std::size_t begin, std::size_t pairs) {
    // A count, or no compiler adds several at once.
    for (std::size_t i = 0; i < pairs; ++i) {
      std::uint64_t two;
      std::memcpy(&two, values.data() + begin + 2 * i, sizeof two);
      sum += two;
    }
  };
  const std::size_t lines = values.size() / kLine;
  for (std::size_t line = 0; line < lines; ++line) {
    // The next chunk is most often looked at next, and begins on another page, before which what
    // the processor fetches by itself ends.
    __builtin_prefetch(values.data() + line * kLine + comm::chunk);
    add_pairs(line * kLine, kLine / 2);
  }
  add_pairs(lines * kLine, values.size() % kLine / 2);
  if (values.size() % 2 != 0) sum += std::bit_cast<std::uint32_t>(values.back());
  return sum;
}

// The hash that most ranks have; of as many each, that of the lowest rank.
std::string most_frequent(const std::vector<std::string>& all) {
  return *std::ranges::max_element(
      all, {}, [&](const std::string& one) { return std::ranges::count(all, one); });
}

}  // namespace

ReplicaGuard::ReplicaGuard(const comm::ParameterExchange& exchange,
                           comm::Communicator& communicator)
    : communicator_(communicator),
      buckets_(exchange.buckets()),
      share_(exchange.share_of(communicator.rank())) {
  if (communicator.size() == 1) return;
  const std::size_t elements = buckets_.empty() ? 0 : buckets_.front().end;
  moved_.resize(comm::chunks_in(elements));
  wanted_.resize(moved_.size());
}

void ReplicaGuard::before_change(std::size_t begin, std::span<const float> parameters) {
  const comm::Shard range{begin, begin + parameters.size()};
  for_each_chunk(range, [&](std::size_t at, std::size_t count) {
    if (sum_of_bits(parameters.subspan(at - begin, count)) == wanted_[at / comm::chunk]) return;
    throw ReplicaError(fmt::format(
        "parameters of rank {} changed by themselves before step {}, among elements {} to {} of "
        "{}: its memory may be failing",
        communicator_.rank(), step_, at, at + count - 1, bucket_name(at)));
  });
}

void ReplicaGuard::after_move(std::size_t begin, std::span<const float> moved) {
  const comm::Shard range{begin, begin + moved.size()};
  for_each_chunk(range, [&](std::size_t at, std::size_t count) {
    moved_[at / comm::chunk] = sum_of_bits(moved.subspan(at - begin, count));
  });
}

void ReplicaGuard::hear(std::span<const std::uint64_t> words) {
  std::ranges::copy(words, wanted_.begin());
}

void ReplicaGuard::remember(std::span<const float> parameters) {
  if (moved_.empty()) return;
  for (const comm::Shard& shard : share_) {
    after_move(shard.begin, parameters.subspan(shard.begin, shard.size()));
  }
}

void ReplicaGuard::compare(std::uint64_t step, std::span<const float> parameters) const {
  if (communicator_.size() == 1) return;
  std::string mine;
  for (const comm::Shard& bucket : buckets_) {
    const std::uint64_t hash = hash_of(parameters.subspan(bucket.begin, bucket.size()));
    mine.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  }
  const std::uint64_t hash = hash_of(parameters.subspan(buckets_.front().end));
  mine.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  const auto all = communicator_.gather_strings(mine);
  const std::string right = most_frequent(all);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == right) continue;
    const auto differing = std::ranges::mismatch(all[rank], right).in1 - all[rank].begin();
    const auto bucket = static_cast<std::size_t>(differing) / sizeof(std::uint64_t);
    throw ReplicaError(
        fmt::format("the replica of rank {} differs from the others' after step {}, "
                    "in {}: nothing is saved any more",
                    rank, step,
                    bucket < buckets_.size() ? bucket_name(buckets_[bucket].begin)
                                             : "the statistics behind what is trained"));
  }
}

std::string ReplicaGuard::bucket_name(std::size_t begin) const {
  std::size_t b = 0;
  while (buckets_[b].begin > begin) ++b;
  return fmt::format("bucket {} of {} (elements {} to {})", b + 1, buckets_.size(),
                     buckets_[b].begin, buckets_[b].end - 1);
}

}  // namespace lockstep::trainer

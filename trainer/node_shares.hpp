// Weight gradients that the ranks of one node share out by weights (nn::WeightShares over
// comm::ParameterExchange).
//
// Where all ranks share memory, matrices of many weights go this way. A rank sums and moves the
// rows that it owns in the exchange; of a row that two own each sums the whole, and the exchange
// moves its part, as it does with biases and small matrices. Refers to the exchange; a step
// allocates nothing here. One caller at a time; wait() and make() are collective.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/parameter_exchange.hpp"
#include "nn/parameters.hpp"
#include "nn/weight_shares.hpp"
#include "trainer/config.hpp"
#include "trainer/leaves.hpp"

namespace lockstep::trainer {

class NodeShares final : public nn::WeightShares {
 public:
  // What is to go this way: of batches of up to `largest_batch` samples, cut into `leaves`.
  struct Plan {
    std::vector<nn::ParameterTensor> matrices;  // none: nothing
    std::size_t leaves = 0;
    std::size_t largest_batch = 0;

    // Where the exchange's buckets are to be cut, so that ranks own equally much of each matrix.
    std::vector<std::size_t> cuts() const;
  };

  // Nothing where ranks run on several nodes, are not to share, or have no matrix that is worth it.
  // Local, the same on all ranks.
  static Plan plan(const nn::ParameterLayout& layout, const comm::Communicator& communicator,
                   const CommConfig& config, std::size_t leaves, std::size_t largest_batch);

  // Whether the ranks' kernels can read one another's factors. Collective.
  static bool kernels_agree(comm::Communicator& communicator);

  // None if why_not says why memory for it cannot be had.
  static std::optional<NodeShares> make(comm::ParameterExchange& exchange,
                                        comm::Communicator& communicator,
                                        comm::ParameterWatch& watch, const Plan& plan,
                                        std::string& why_not);

  // The batches that follow are cut like this.
  void set_batch(const LeafBounds& bounds);

  // A step has begun: parameters move by `rule`, where their gradient is summed unless it is null
  // or any rank has raised any of these flags.
  void begin(const nn::Update<float>* rule, unsigned unless_raised);

  // Whether what this rank moves lies in pieces so large that huge pages for what it has of them at
  // most double that memory.
  bool fills_huge_pages() const;

  // For people.
  std::string describe() const;
  std::size_t memory_bytes() const { return board_size_ * sizeof(float); }

  const nn::SharedWeights* find(std::size_t offset) const override;
  std::span<float> packed(const nn::SharedWeights& weights) override;
  void post(const nn::SharedWeights& weights) override { exchange_->post(weights.place); }
  std::span<const Factors> wait(const nn::SharedWeights& weights) override;
  const nn::Update<float>* update() const override { return update_; }
  std::span<float> gradient() override { return exchange_->partial(0); }
  void before_moving(std::size_t begin, std::size_t end) override;
  void after_moving(std::size_t begin, std::size_t end) override;
  std::span<const std::size_t> own_leaf_rows() const override { return leaf_rows_of_rank_[rank_]; }
  std::span<const std::size_t> leaf_rows() const override { return leaf_rows_; }
  std::span<nn::LeafFactors<float>> of_leaf() override { return of_leaf_; }

 private:
  NodeShares(comm::ParameterExchange& exchange, comm::ParameterWatch& watch, std::size_t rank,
             std::size_t ranks, std::size_t leaves);
  void share_out(const nn::ParameterTensor& tensor, std::span<const comm::ParameterExchange::Part>);

  comm::ParameterExchange* exchange_;
  comm::ParameterWatch* watch_;
  std::size_t rank_;
  std::vector<nn::SharedWeights> weights_;
  std::vector<comm::ParameterExchange::OwnSum> own_sums_;
  std::vector<std::size_t> packed_at_;  // by place, on each board
  std::size_t board_size_ = 0;

  // Of the batch.
  std::vector<std::vector<std::size_t>> leaf_rows_of_rank_;
  std::vector<std::size_t> leaf_rows_;
  std::vector<Factors> factors_;
  std::vector<nn::LeafFactors<float>> of_leaf_;

  // Of the step.
  const nn::Update<float>* update_ = nullptr;
  unsigned unless_raised_ = 0;
  bool flags_seen_ = false;
};

}  // namespace lockstep::trainer

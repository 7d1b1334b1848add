// A training step of one rank on the CPU, which a GPU's is compared with: the reference layers,
// attention, head and loss, gradients summed over micro-batches and ranks, AdamW. Parameters are
// read rounded as the GPU reads them (the model's dtype); everything else is computed in S.
//   loss = mean over all tokens of all ranks of ln sum_v exp z_v - z_target
#pragma once

#include <span>
#include <vector>

#include "runtime/step/flat_weights.hpp"
#include "runtime/step/parameters.hpp"
#include "runtime/step/step_order.hpp"
#include "runtime/step/step_tokens.hpp"

namespace headway::runtime {

// [MoE layer][router][source], as layer_routing gives it; empty: the routers choose.
using StepRouting = std::vector<std::vector<std::vector<Assignment>>>;
StepRouting step_routing(const Scenario& scenario, const StepSetup& setup, bool forced);

// Those of the rows that this rank's experts of a layer get from the routers here: one part for EP,
// one for each of head_blocks() for HP; none where the routers choose.
std::vector<std::span<const std::int32_t>> forced_choices(const StepSetup& setup,
                                                          const StepRouting& routing, int layer,
                                                          int rank);

template <class S>
class ReferenceStep {
  public:
    // `setup` and `routing` must outlive this.
    ReferenceStep(RankContext& context, const StepSetup& setup, const StepRouting& routing);

    // `tokens`: of every micro-batch.
    void start(std::vector<StepTokens> tokens);

    void begin_block(const Block& block);
    void before(Pass pass);
    void layer(int index, Pass pass);
    void after();
    void bucket(int layer);
    void update();

    double loss() const { return loss_; }  // this rank's share of the last step's
    const StepParameters& parameters() const { return parameters_; }
    std::vector<S>& values() { return master_; }
    const std::vector<S>& gradients() const { return gradient_; }
    const BlockMarks& marks() const { return marks_; }

  private:
    struct LayerState {
        BlockWeights<S> weights;
        HalfState<S> half;
        EpState<S> ep;
        HpState<S> hp;
        FfnState<S> ffn;
    };
    AttentionDims attention() const;
    void forward(int index);
    void backward(int index);
    void drop(Again again, LayerState& state);
    void compute_again(int index, LayerState& state);
    Matrix<S> feed_forward(int index, LayerState& state);
    Matrix<S> feed_backward(int index, const LayerState& state, BlockWeights<S>& gradients);
    void reduce(const Section& section);
    void adamw();

    RankContext& context_;
    const StepSetup& setup_;
    const StepRouting& routing_;
    StepParameters parameters_;
    std::vector<S> master_, read_, gradient_, first_, second_;
    int step_ = 0;  // AdamW's t
    std::vector<StepTokens> tokens_;
    std::size_t micro_batch_ = 0;  // of tokens_, the block in work is of
    double loss_ = 0.0;
    std::vector<LayerState> layers_;
    Matrix<S> x_, delta_, dy_;  // the residual stream and what is to be added, its gradient
    BlockMarks marks_;
};

}  // namespace headway::runtime

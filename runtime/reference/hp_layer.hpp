// HP: the head-parallel MoE layer (Multi-Head LatentMoE) of one rank, forward and backward. Tokens
// are projected to H heads of width d_h; sub-tokens of a head travel to the rank(s) that own it, by
// an all-to-all whose sizes do not depend on routing; each head has its own router and experts. For
// N > H ranks a head is shared by N / H consecutive ranks, which run EP among themselves.
//   y = sum_h [sum over chosen e of g_he FFN_he(x P_h)] M_h
// With Summation::fixed_order and N <= H, N ranks equal one rank bit for bit.
#pragma once

#include <optional>

#include "runtime/reference/sparse_experts.hpp"

namespace headway::runtime {

struct HpShape {
    int num_heads = 0;
    int head_width = 0;
    std::vector<std::int64_t> tokens;  // by rank
    // Gradients of the projections are summed over these runs of own tokens, one after the other:
    // with the tokens of N ranks as runs, one rank adds up like N. Empty: one run.
    std::vector<std::int64_t> runs;
    SparseShape sparse;
    RoutingRule routing;

    int num_ranks() const { return static_cast<int>(tokens.size()); }
    int sharers() const { return num_ranks() > num_heads ? num_ranks() / num_heads : 1; }
    int heads_per_rank() const { return num_ranks() > num_heads ? 1 : num_heads / num_ranks(); }
    int first_head(int rank) const {
        return num_ranks() > num_heads ? rank / sharers() : rank * heads_per_rank();
    }
};

// Group sizes that H heads with E experts can be laid over, up to `limit`.
std::vector<int> valid_head_parallel_ranks(int num_heads, int num_experts, int limit);
// InputError that lists them, unless the shape's number of ranks is one.
void check_ranks(const HpShape& shape);

template <class S>
struct HpWeights {
    Matrix<S> project;                       // [d, H d_h], replicated
    Matrix<S> merge;                         // [H d_h, d], replicated
    std::vector<RouterWeights<S>> routers;   // [own heads]
    std::vector<ExpertWeights<S>> experts;   // [own heads * E / sharers]
    std::optional<ExpertWeights<S>> shared;  // shared experts, on whole tokens; replicated
};

// Sub-tokens of one own head from one source rank.
struct HeadBlock {
    RowBlock rows;   // rows.head is the index among the own heads
    int source = 0;  // rank whose tokens these are
};
// What `rank` holds after the scatter, in order.
std::vector<HeadBlock> head_blocks(const HpShape& shape, int rank);

template <class S>
struct HpState {
    std::vector<RowBlock> blocks;
    Matrix<S> sub_tokens;  // after the scatter
    Routed<S> routed;
    SparseState<S> sparse;
    Matrix<S> gathered;  // head outputs of the own tokens [H tokens, d_h]
    FfnState<S> shared;
};

// `peers`: the ranks that share this rank's head (split by rank / sharers()), null for one.
// `forced`: chosen experts for each of head_blocks(), or empty.
template <class S>
Matrix<S> hp_forward(RankContext& context, Communicator* peers, const HpShape& shape,
                     const HpWeights<S>& weights, ConstMatrixView<S> x, HpState<S>& state,
                     std::span<const std::span<const std::int32_t>> forced = {});

template <class S>
Matrix<S> hp_backward(RankContext& context, Communicator* peers, const HpShape& shape,
                      const HpWeights<S>& weights, ConstMatrixView<S> x, const HpState<S>& state,
                      ConstMatrixView<S> dout, HpWeights<S>& gradients);

}  // namespace headway::runtime

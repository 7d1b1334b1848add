// Mesh: the ranks as two grids that share the pipeline axis, dense [pp][dp][cp][tp] and expert
// [pp][edp][ep][etp], the last axis with stride 1 (Megatron-LM's order tp-cp-ep-dp-pp,
// core/parallel_state.py). Head Parallel takes EP's place in the expert grid.
#pragma once

#include "models/vocab/plan.hpp"

namespace headway {

// Ranks first, first + stride, ..., `size` of them.
struct RankGroup {
    int first = 0;
    int size = 1;
    int stride = 1;

    int rank(int i) const { return first + i * stride; }
    friend bool operator==(const RankGroup&, const RankGroup&) = default;
};

struct Mesh {
    int world = 1;
    int tp = 1, cp = 1, dp = 1, pp = 1;
    int etp = 1, ep = 1, edp = 1;
    int cp_inner = 1;  // of cp: Parallel::heads_for_tokens

    // The groups of rank 0; those of the other ranks have the same size and stride.
    RankGroup tp_group() const { return {0, tp, 1}; }
    RankGroup cp_group() const { return {0, cp, tp}; }
    // Its two levels: neighbours, and every cp_inner-th.
    RankGroup cp_inner_group() const { return {0, cp_inner, tp}; }
    RankGroup cp_outer_group() const { return {0, cp / cp_inner, tp * cp_inner}; }
    RankGroup dp_cp_group() const { return {0, dp * cp, tp}; }
    RankGroup pp_group() const { return {0, pp, ranks_of_stage()}; }
    // The embedding on the first pipeline rank and its copy on another.
    RankGroup embedding_group(int copy) const {
        return {0, copy > 0 ? 2 : 1, copy * ranks_of_stage()};
    }
    RankGroup etp_group() const { return {0, etp, 1}; }
    RankGroup ep_group() const { return {0, ep, etp}; }
    RankGroup edp_group() const { return {0, edp, ep * etp}; }

    // A pipeline stage is a block of consecutive ranks.
    int ranks_of_stage() const { return world / pp; }
    int stage_rank_of(int rank) const { return rank / ranks_of_stage(); }
};

// The sizes must divide the world: check_parallel.cpp has the rules.
constexpr Mesh mesh_of(int world, const Plan& plan) {
    const Parallel& p = plan.parallel;
    const int tp = p.tensor_model_parallel_size, cp = p.context_parallel_size,
              pp = p.pipeline_model_parallel_size, etp = p.expert_tensor_parallel_size;
    return {.world = world,
            .tp = tp,
            .cp = cp,
            .dp = world / (tp * cp * pp),
            .pp = pp,
            .etp = etp,
            .ep = plan.group_size,
            .edp = world / (etp * plan.group_size * pp),
            .cp_inner = p.heads_for_tokens()};
}

}  // namespace headway

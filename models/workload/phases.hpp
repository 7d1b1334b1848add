// The phases of the parts of a transformer step. Each function appends what one rank does for its T
// tokens; docs/model.md derives the counts. Private to models/workload.
#pragma once

#include <vector>

#include "models/workload/layout.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {

// What the phase builders need, computed once per plan.
struct StepShape {
    const Scenario& scenario;
    const Plan& plan;
    ExpertLayout layout;
    double tokens = 0;   // T, per rank and micro-batch
    double hidden = 0;   // d
    double element = 2;  // b, bytes per element of activations and weights in compute
};

PhaseWork compute_phase(Phase phase, Pass pass, std::initializer_list<KernelWork> kernels);

// C[m, n] = A[m, k] B[k, n], `count` of them.
KernelWork gemm(double m, double n, double k, double element, int count = 1);
// `bytes` through memory in `launches` kernels.
KernelWork move(Kernel kernel, double bytes, int launches = 1);

void add_embedding(const StepShape& s, std::vector<PhaseWork>& phases);
void add_head_and_loss(const StepShape& s, std::vector<PhaseWork>& phases);
void add_attention(const StepShape& s, int layer, Pass pass, std::vector<PhaseWork>& phases);
void add_dense_mlp(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases);

// MoE layers. They set the pipeline range to [in exchange, out exchange].
void add_ep_forward(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void add_ep_backward(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void add_hp_forward(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void add_hp_backward(const StepShape& s, const GroupLoad& load, LayerWork& layer);

// Rows that the routed path handles on the busiest rank, and whether received rows must be put into
// expert order: with one expert a rank and one copy a choice they arrive in it. A rank alone sends
// itself its experts' rows.
struct MoeRows {
    double expert, arrived, sent;
    bool regrouped;
};
MoeRows moe_rows(const StepShape& s, const GroupLoad& load);
double experts_on_rank(const StepShape& s);
double sub_tokens(const StepShape& s);  // HP: tokens x heads

// Gives the phases of one pass of an MoE layer what they work on (phase_shapes.cpp).
void set_phase_shapes(const StepShape& s, const GroupLoad& load, std::vector<PhaseWork>& phases);

// What the code released with arXiv 2602.04870 does beyond the phases above (unfused.cpp).
void add_unfused_ep(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void add_unfused_hp(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void widen_residual_stream(const StepShape& s, LayerWork& layer);
void widen_head(const StepShape& s, std::vector<PhaseWork>& phases);

// Forward FLOPs per token of one layer's parts, as published "model FLOPs" count them.
double attention_flops_per_token(const Scenario& scenario, int layer);
double moe_flops_per_token(const Scenario& scenario, const Plan& plan);

}  // namespace headway::inline workload

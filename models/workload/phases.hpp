// The phases of the parts of a transformer step. Each function appends what one rank does for its T
// tokens; docs/reference/model.md derives the counts. Private to models/workload.
#pragma once

#include <span>
#include <vector>

#include "models/vocab/mesh.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/stages.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {

// What the phase builders need, computed once per plan.
struct StepShape {
    const Scenario& scenario;
    const Plan& plan;
    ExpertLayout layout;
    // Per micro-batch, of the rank itself, and of the tensor-parallel group that shares heads and
    // widths (rank_tokens). T is the latter in attention and dense feed-forward, else the former.
    double tokens = 0, group_tokens = 0;
    double hidden = 0;   // d
    double element = 2;  // b, bytes per element of activations and weights in compute
    Mesh mesh{};
};
StepShape step_shape(const Scenario& scenario, const Plan& plan);

PhaseWork compute_phase(Phase phase, Pass pass, std::initializer_list<KernelWork> kernels);

// A collective over a group of ranks; `bytes` of the whole buffer.
PhaseWork reduce_phase(Phase phase, Pass pass, Collective collective, const RankGroup& group,
                       double bytes, Beside beside = Beside::nothing);

// C[m, n] = A[m, k] B[k, n], `count` of them; two are the backward of one with the weights B.
KernelWork gemm(double m, double n, double k, double element, int count = 1);
// `bytes` through memory in `launches` kernels.
KernelWork move(Kernel kernel, double bytes, int launches = 1);

// Tensor parallelism (mesh_phases.cpp): rows of `width` of the group's tokens on every rank of the
// group, from those of each rank; and the sum over the group, of which each rank keeps its tokens.
// Without sequence parallelism all ranks have all rows, and the sum stays with all. `buffered`: of
// linear layers that have user buffers, so that tp_comm_overlap hides them behind the GEMMs.
double gathered_width(const ModelSpec& model);  // of the rows that enter attention
bool overlaps_tp(const StepShape& s);
void gather_rows(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                 bool buffered = false);
void scatter_sum(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                 bool buffered = false);
// Both around a phase whose weights the group cuts by columns, then by rows.
void add_cut_phase(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                   PhaseWork cut, bool buffered = false);
// The three small all-reduces of a loss over a cut vocabulary.
void add_loss_sums(const StepShape& s, std::vector<PhaseWork>& phases);

// Context parallelism: what attention exchanges before and after its core. Widths per token, of one
// tensor-parallel rank.
struct CoreWidths {
    double query = 0, key_value = 0, out = 0;
};
void exchange_into_core(const StepShape& s, Pass pass, const CoreWidths& widths,
                        std::vector<PhaseWork>& phases);
void exchange_out_of_core(const StepShape& s, Pass pass, const CoreWidths& widths,
                          std::vector<PhaseWork>& phases);

// What sharded data parallelism moves in every micro-batch (update.cpp).
void gather_parameters(const StepShape& s, const RankParameters& parameters, Pass pass,
                       Beside beside, std::vector<PhaseWork>& phases);
void scatter_gradients(const StepShape& s, const RankParameters& parameters, Beside beside,
                       std::vector<PhaseWork>& phases);
// The end of a step on a rank that holds these stages.
void add_update(const StepShape& s, std::span<const PipelineStage> stages,
                std::vector<PhaseWork>& update);

// Bytes that a rank sends each of the others of a group in which every `stride`-th exchange.
ExchangeWork equal_exchange(const Cluster& cluster, int group_size, int stride, Bytes a_peer);

void add_embedding(const StepShape& s, std::vector<PhaseWork>& phases);
void add_head_and_loss(const StepShape& s, std::vector<PhaseWork>& phases);
void add_attention(const StepShape& s, int layer, Pass pass, std::vector<PhaseWork>& phases);
void add_dense_mlp(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases);
// Around the transformer layer of multi-token prediction (mtp_phases.cpp): the next token's
// embedding joined to the hidden row, and a norm of its own before the head.
void add_mtp_input(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases);
void add_mtp_output(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases);

// Rows that the routed path handles on the busiest rank, and whether received rows must be put into
// expert order: with one expert a rank and one copy a choice they arrive in it. A rank alone, or
// with all tokens, makes its experts' rows itself.
struct MoeRows {
    double expert, arrived, sent;
    bool regrouped;
};
MoeRows moe_rows(const StepShape& s, const GroupLoad& load);
// Whether rows are moved at their source by passes of their own.
bool moves_rows(const StepShape& s);
double experts_on_rank(const StepShape& s);

// Gives the phases of one pass of an MoE layer what they work on (phase_shapes.cpp).
void set_phase_shapes(const StepShape& s, const GroupLoad& load, std::vector<PhaseWork>& phases);

// Whether the phase's GEMMs are of a type below the model's.
bool computes_narrow(const Plan& plan, Phase phase);
// Gives the GEMMs of linear layers and experts the type that the plan's precision computes in, and
// pads the experts' rows to its alignment (precision.cpp).
void set_linear_types(const StepShape& s, LayerWork& layer);

// What the plan's framework moves besides, of these routed rows (framework_operators.cpp), for the
// clamps of so many elements of hidden rows, and in an update, of the gradients that the rank holds
// and of its own share of them.
void add_framework_operators(const StepShape& s, const MoeRows& rows, std::span<PhaseWork> phases);
double clamp_bytes(const StepShape& s, Pass pass, double hidden);
double framework_update_bytes(const StepShape& s, double held, double own);
// What the host of the plan's implementation does for them, in order (host_work.cpp).
void set_host_work(const StepShape& s, std::span<PhaseWork> phases);
// Gives the backward phases what gradients move to be accumulated (gradients.cpp).
void add_gradient_traffic(const StepShape& s, std::span<PhaseWork> phases);

// What the code released with arXiv 2602.04870 does beyond the phases above (unfused.cpp).
void add_unfused_ep(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void add_unfused_hp(const StepShape& s, const GroupLoad& load, LayerWork& layer);
void widen_residual_stream(const StepShape& s, LayerWork& layer);
void widen_head(const StepShape& s, std::vector<PhaseWork>& phases);

// Forward FLOPs per token of one layer's parts, as published "model FLOPs" count them.
double attention_flops_per_token(const Scenario& scenario, int layer);
double moe_flops_per_token(const Scenario& scenario, const Plan& plan);

}  // namespace headway::inline workload

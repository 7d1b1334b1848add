// Expert parallelism: the experts of a layer are shared out to the ranks of a group, and tokens
// travel to them.
#include <fmt/format.h>

#include <algorithm>
#include <variant>

#include "models/workload/moe_layer.hpp"
#include "models/workload/moe_parts.hpp"

namespace headway::inline workload {
namespace expert_parallel {
namespace {

const ExpertParallel& keys(const Plan& plan) {
    return std::get<ExpertParallel>(plan.layer);
}

std::string why_not(const ModelSpec& model, const Plan&, int group_size) {
    if (model.moe.num_experts % group_size == 0) return "";
    return fmt::format("{} experts do not spread evenly over {} ranks", model.moe.num_experts,
                       group_size);
}

ExpertLayout layout(const Scenario& scenario, const Plan& plan) {
    const ExpertParallel& ep = keys(plan);
    const Moe& moe = scenario.model.moe;
    ExpertLayout layout{
        .router = router_shape(moe),
        .group_size = plan.group_size,
        .expert_tensor = plan.parallel.expert_tensor_parallel_size,
        .tokens_per_rank = static_cast<double>(rank_tokens(scenario, plan).own),
        .width = ep.latent_width.value_or(scenario.model.hidden),
        .expert_width = moe.expert_width / plan.parallel.expert_tensor_parallel_size,
        .dedup = ep.dedup,
        .gathers_tokens = ep.dispatcher == TokenDispatcher::allgather,
        .capacity_factor = moe.capacity_factor};
    const int islands = layout.ranks() / std::min(layout.ranks(), scenario.cluster.island_size());
    if (ep.node_limit && islands > *ep.node_limit) {
        layout.router.num_groups = islands;
        layout.router.top_groups = *ep.node_limit;
    }
    return layout;
}

MoeParameters parameters(const ModelSpec& model, const Plan& plan) {
    const Moe& moe = model.moe;
    const double d = model.hidden, matrices = matrices_per_expert(moe.activation);
    const auto& latent = keys(plan).latent_width;
    const double width = latent.value_or(model.hidden);
    return {.router = d * moe.num_experts,
            .experts =
                moe.num_experts * (matrices * width * moe.expert_width + expert_biases(moe, width)),
            .projections = latent ? 2.0 * d * width : 0.0,
            .chosen = static_cast<double>(moe.top_k) / moe.num_experts};
}

double flops_per_token(const ModelSpec& model, const Plan& plan) {
    const Moe& moe = model.moe;
    const double d = model.hidden, matrices = matrices_per_expert(moe.activation);
    const auto& latent = keys(plan).latent_width;
    const double width = latent.value_or(model.hidden);
    return (latent ? 4.0 * d * width : 0.0) + 2.0 * d * moe.num_experts +
           2.0 * matrices * width * moe.top_k * moe.expert_width;
}

void set_shape(const StepShape& s, PhaseShape& shape) {
    const bool deduplicated = s.layout.dedup != Dedup::none && s.layout.ranks() > 1;
    shape.layer = deduplicated ? LayerKind::ep_rank : LayerKind::ep;
}

void add_latent(const StepShape& s, Phase phase, Pass pass, std::vector<PhaseWork>& phases) {
    if (s.layout.width == s.scenario.model.hidden) return;
    phases.push_back(compute_phase(
        phase, pass,
        {gemm(s.tokens, s.layout.width, s.hidden, s.element, pass == Pass::forward ? 1 : 2)}));
}

// Megatron-LM's allgather: all tokens of the group on all its ranks, with their probabilities and
// the map of their experts, a byte each, of which the probabilities' gradients come back; and the
// sums of what became of them.
PhaseWork token_exchange(const StepShape& s, Phase phase, Pass pass) {
    const bool inputs = phase == Phase::dispatch, gather = inputs == (pass == Pass::forward);
    const double experts = s.layout.router.num_experts,
                 probability = bytes_per_element(s.scenario.model.moe.router_dtype),
                 row = inputs ? s.layout.width * s.element +
                                    experts * (probability + (gather ? 1.0 : 0.0))
                              : s.layout.width * summed_element(s.scenario.model, s.plan);
    return reduce_phase(phase, pass, gather ? Collective::all_gather : Collective::reduce_scatter,
                        {0, s.layout.ranks(), 1}, s.layout.ranks() * s.tokens * row);
}

// Expert tensor parallelism: all ranks of a part get the rows that came to each of them, and each
// the sums of what became of its own.
void exchange_in_part(const StepShape& s, Phase phase, Pass pass, double rows,
                      std::vector<PhaseWork>& phases) {
    if (!s.layout.gathers_rows()) return;
    const bool gather = phase == Phase::etp_all_gather, inputs = gather == (pass == Pass::forward);
    const double element = inputs ? s.element : summed_element(s.scenario.model, s.plan);
    phases.push_back(reduce_phase(phase, pass,
                                  gather ? Collective::all_gather : Collective::reduce_scatter,
                                  s.mesh.etp_group(), rows * s.layout.width * element));
}

// Dispatch or combine.
void add_exchange(const StepShape& s, Phase phase, Pass pass, const GroupLoad& load,
                  std::vector<PhaseWork>& phases) {
    if (!s.layout.exchanges()) return;
    phases.push_back(s.layout.gathers_tokens ? token_exchange(s, phase, pass)
                                             : exchange_phase(s, phase, pass, load));
}

// Permute or unpermute: of own tokens, outside of the exchanges, or of all that came, inside.
void add_row_move(const StepShape& s, Phase phase, Pass pass, const MoeRows& rows, bool inside,
                  std::vector<PhaseWork>& phases) {
    if (!moves_rows(s) || inside != s.layout.gathers_tokens) return;
    const double tokens = inside ? s.layout.ranks() * s.tokens : s.tokens;
    phases.push_back(permute_phase(s, phase, pass, tokens, rows.sent));
}

// Behind gathered tokens every rank counts the rows of its experts itself.
void add_counts(const StepShape& s, Pass pass, const GroupLoad& load, bool inside,
                std::vector<PhaseWork>& phases) {
    if (s.layout.ranks() == 1 || inside != s.layout.gathers_tokens) return;
    const bool hidden = keys(s.plan).hide_count_exchange;
    phases.push_back({Phase::count_exchange, pass,
                      CountExchangeWork{.group_size = s.layout.ranks(),
                                        .hidden = hidden || inside,
                                        .num_stages = load.forwarded ? 2 : 1}});
    if (!hidden) add_records(s, pass, load, phases);
}

void forward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.forward;
    const Pass pass = Pass::forward;
    const MoeRows rows = moe_rows(s, load);
    add_shared_expert(s, pass, p);
    p.push_back(compute_phase(Phase::route, pass, {router(s, pass, s.tokens, s.hidden, 1)}));
    add_latent(s, Phase::latent_down, pass, p);
    add_row_move(s, Phase::permute, pass, rows, false, p);
    add_counts(s, pass, load, false, p);
    add_exchange(s, Phase::dispatch, pass, load, p);
    add_counts(s, pass, load, true, p);
    add_row_move(s, Phase::permute, pass, rows, true, p);
    exchange_in_part(s, Phase::etp_all_gather, pass, rows.expert, p);
    add_regroup(s, Phase::regroup, pass, rows, p);
    p.push_back(experts(s, pass, rows.expert, Kernel::grouped_gemm));
    add_regroup(s, Phase::ungroup, pass, rows, p);
    exchange_in_part(s, Phase::etp_reduce_scatter, pass, rows.expert, p);
    add_row_move(s, Phase::unpermute, pass, rows, true, p);
    add_exchange(s, Phase::combine, pass, load, p);
    add_row_move(s, Phase::unpermute, pass, rows, false, p);
    add_latent(s, Phase::latent_up, pass, p);
    if (s.layout.exchanges())
        mark_pipeline(p, Phase::dispatch, Phase::combine, layer.forward_pipelines);
    set_phase_shapes(s, load, p);
}

void backward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.backward;
    const Pass pass = Pass::backward;
    const MoeRows rows = moe_rows(s, load);
    add_latent(s, Phase::latent_up, pass, p);
    add_row_move(s, Phase::unpermute, pass, rows, false, p);
    add_exchange(s, Phase::combine, pass, load, p);
    add_row_move(s, Phase::unpermute, pass, rows, true, p);
    exchange_in_part(s, Phase::etp_all_gather, pass, rows.expert, p);
    add_regroup(s, Phase::ungroup, pass, rows, p);
    p.push_back(experts(s, pass, rows.expert, Kernel::grouped_gemm));
    add_regroup(s, Phase::regroup, pass, rows, p);
    exchange_in_part(s, Phase::etp_reduce_scatter, pass, rows.expert, p);
    add_row_move(s, Phase::permute, pass, rows, true, p);
    add_exchange(s, Phase::dispatch, pass, load, p);
    if (s.layout.exchanges() && !keys(s.plan).hide_count_exchange) add_records(s, pass, load, p);
    add_row_move(s, Phase::permute, pass, rows, false, p);
    add_latent(s, Phase::latent_down, pass, p);
    p.push_back(compute_phase(Phase::route, pass, {router(s, pass, s.tokens, s.hidden, 1)}));
    add_shared_expert(s, pass, p);
    if (s.layout.exchanges())
        mark_pipeline(p, Phase::combine, Phase::dispatch, layer.backward_pipelines);
    set_phase_shapes(s, load, p);
}

}  // namespace
}  // namespace expert_parallel

const MoeLayerKind kExpertParallelLayer = {.why_not = expert_parallel::why_not,
                                           .layout = expert_parallel::layout,
                                           .parameters = expert_parallel::parameters,
                                           .flops_per_token = expert_parallel::flops_per_token,
                                           .forward = expert_parallel::forward,
                                           .backward = expert_parallel::backward,
                                           .add_unfused = add_unfused_ep,
                                           .set_shape = expert_parallel::set_shape};

}  // namespace headway::inline workload

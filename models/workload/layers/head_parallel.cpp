// Multi-Head LatentMoE: the heads of a layer are shared out to the ranks of a group by an equal
// exchange; where there are more ranks than heads, the sharers of a head run expert parallelism on
// its sub-tokens (HP x EP).
#include <fmt/format.h>

#include <algorithm>
#include <variant>

#include "models/workload/moe_layer.hpp"
#include "models/workload/moe_parts.hpp"

namespace headway::inline workload {
namespace head_parallel {
namespace {

const HeadParallel& keys(const Plan& plan) {
    return std::get<HeadParallel>(plan.layer);
}

double all_columns(const HeadParallel& hp) {
    return double{1} * hp.num_heads * hp.head_width;
}

std::string why_not(const ModelSpec&, const Plan& plan, int group_size) {
    const HeadParallel& hp = keys(plan);
    const int sharers = std::max(1, group_size / hp.num_heads);
    if (group_size <= hp.num_heads && hp.num_heads % group_size != 0)
        return fmt::format("{} heads do not spread evenly over {} ranks", hp.num_heads, group_size);
    if (group_size > hp.num_heads && group_size % hp.num_heads != 0)
        return fmt::format("{} ranks are not a multiple of {} heads", group_size, hp.num_heads);
    if (hp.num_experts % sharers == 0) return "";
    return fmt::format("{} experts of a head do not spread evenly over its {} ranks",
                       hp.num_experts, sharers);
}

ExpertLayout layout(const Scenario& scenario, const Plan& plan) {
    const HeadParallel& hp = keys(plan);
    return {.router = {.num_experts = hp.num_experts, .top_k = hp.top_k},
            .group_size = std::max(1, plan.group_size / hp.num_heads),
            // T N tokens times H / N heads: T H sub-tokens on every rank, for any N.
            .tokens_per_rank = static_cast<double>(rank_tokens(scenario, plan).own) * hp.num_heads,
            .routers_per_rank = std::max(1, hp.num_heads / plan.group_size),
            .num_heads = hp.num_heads,
            .width = hp.head_width,
            .expert_width = hp.expert_width,
            .dedup = hp.dedup,
            .capacity_factor = std::nullopt};
}

MoeParameters parameters(const ModelSpec& model, const Plan& plan) {
    const HeadParallel& hp = keys(plan);
    const double width = all_columns(hp), matrices = matrices_per_expert(model.moe.activation);
    return {.router = width * hp.num_experts,
            .experts = matrices * width * hp.num_experts * hp.expert_width,
            .projections = 2.0 * model.hidden * width,
            .chosen = static_cast<double>(hp.top_k) / hp.num_experts};
}

double flops_per_token(const ModelSpec& model, const Plan& plan) {
    const HeadParallel& hp = keys(plan);
    const double width = all_columns(hp), matrices = matrices_per_expert(model.moe.activation);
    return 2.0 * width * hp.num_experts + 2.0 * matrices * width * hp.top_k * hp.expert_width;
}

double sub_tokens(const StepShape& s) {
    return s.tokens * keys(s.plan).num_heads;
}

void set_shape(const StepShape& s, PhaseShape& shape) {
    shape.layer = LayerKind::hp;
    shape.tokens = sub_tokens(s);
    shape.columns = all_columns(keys(s.plan));
}

// A rank that owns several heads gets them by source and keeps them by head: a kernel of headway's
// runtime moves all of them, around an exchange of one block a rank.
KernelWork planes_of(const StepShape& s, double element) {
    const int n = s.plan.group_size, heads = keys(s.plan).num_heads;
    if (s.plan.implementation != Implementation::headway || heads <= n) return {};
    return move(Kernel::streaming, 2.0 * s.tokens * heads * s.layout.width * element);
}

// HP's equal all-to-all of sub-tokens.
PhaseWork head_exchange(const StepShape& s, Phase phase, Pass pass) {
    const bool to_experts = (phase == Phase::head_scatter) == (pass == Pass::forward);
    const double element = wire_element(s, to_experts, pass);
    const int n = s.plan.group_size, heads = keys(s.plan).num_heads;
    const double bytes = s.tokens * s.layout.width * element;  // one head of all own tokens
    // N <= H sends H/N heads to every peer; N > H sends one head to each c-th rank.
    ExchangeWork work = equal_exchange(s.scenario.cluster, n, std::max(1, n / heads),
                                       bytes * (n <= heads ? heads / n : 1) * byte);
    work.element = element;
    work.planes = planes_of(s, element);
    return {phase, pass, work};
}

PhaseWork head_gemm(const StepShape& s, Phase phase, Pass pass) {
    const auto& hp = keys(s.plan);
    const double width = double{1} * hp.num_heads * hp.head_width;
    return compute_phase(
        phase, pass, {gemm(s.tokens, width, s.hidden, s.element, pass == Pass::forward ? 1 : 2)});
}

void forward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.forward;
    const Pass pass = Pass::forward;
    const bool split = s.layout.group_size > 1, alone = s.plan.group_size == 1;
    const MoeRows rows = moe_rows(s, load);
    add_shared_expert(s, pass, p);
    p.push_back(head_gemm(s, Phase::head_project, pass));
    if (!alone) p.push_back(head_exchange(s, Phase::head_scatter, pass));
    p.push_back(
        compute_phase(Phase::route, pass,
                      {router(s, pass, sub_tokens(s), s.layout.width, s.layout.routers_per_rank)}));
    if (split) {
        p.push_back(permute_phase(s, Phase::permute, pass, sub_tokens(s), rows.sent));
        p.push_back({Phase::count_exchange, pass, CountExchangeWork{s.layout.group_size, false}});
        add_records(s, pass, load, p);
        p.push_back(exchange_phase(s, Phase::dispatch, pass, load));
        add_regroup(s, Phase::regroup, pass, rows, p);
    } else {
        // The fused kernel gathers the sub-tokens itself, so no copy is made when they stay on the
        // rank.
        p.push_back(compute_phase(Phase::permute, pass, {group_choices(rows.expert)}));
    }
    p.push_back(experts(s, pass, rows.expert, Kernel::fused_expert));
    if (split) {
        add_regroup(s, Phase::ungroup, pass, rows, p);
        p.push_back(exchange_phase(s, Phase::combine, pass, load));
    }
    p.push_back(permute_phase(s, Phase::unpermute, pass, sub_tokens(s), rows.sent));
    if (!alone) p.push_back(head_exchange(s, Phase::head_gather, pass));
    p.push_back(head_gemm(s, Phase::head_merge, pass));
    if (!alone && !split)
        mark_pipeline(p, Phase::head_scatter, Phase::head_gather, layer.forward_pipelines);
    set_phase_shapes(s, load, p);
}

void backward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.backward;
    const Pass pass = Pass::backward;
    const bool split = s.layout.group_size > 1, alone = s.plan.group_size == 1;
    const MoeRows rows = moe_rows(s, load);
    p.push_back(head_gemm(s, Phase::head_merge, pass));
    if (!alone) p.push_back(head_exchange(s, Phase::head_gather, pass));
    // The fused backward reads the output's gradient by row itself; only HP x EP lays copies of it
    // out.
    if (split) p.push_back(permute_phase(s, Phase::unpermute, pass, sub_tokens(s), rows.sent));
    if (split) {
        p.push_back(exchange_phase(s, Phase::combine, pass, load));
        add_regroup(s, Phase::ungroup, pass, rows, p);
    }
    p.push_back(experts(s, pass, rows.expert, Kernel::fused_expert));
    if (split) {
        add_regroup(s, Phase::regroup, pass, rows, p);
        p.push_back(exchange_phase(s, Phase::dispatch, pass, load));
        add_records(s, pass, load, p);
    }
    p.push_back(permute_phase(s, Phase::permute, pass, sub_tokens(s), rows.sent));
    p.push_back(
        compute_phase(Phase::route, pass,
                      {router(s, pass, sub_tokens(s), s.layout.width, s.layout.routers_per_rank)}));
    if (!alone) p.push_back(head_exchange(s, Phase::head_scatter, pass));
    p.push_back(head_gemm(s, Phase::head_project, pass));
    add_shared_expert(s, pass, p);
    if (!alone && !split)
        mark_pipeline(p, Phase::head_gather, Phase::head_scatter, layer.backward_pipelines);
    set_phase_shapes(s, load, p);
}

}  // namespace
}  // namespace head_parallel

const MoeLayerKind kHeadParallelLayer = {.why_not = head_parallel::why_not,
                                         .layout = head_parallel::layout,
                                         .parameters = head_parallel::parameters,
                                         .flops_per_token = head_parallel::flops_per_token,
                                         .forward = head_parallel::forward,
                                         .backward = head_parallel::backward,
                                         .add_unfused = add_unfused_hp,
                                         .set_shape = head_parallel::set_shape};

}  // namespace headway::inline workload

// What the host does for each phase, one by one, and where it waits: that of an eager framework
// enqueues operations, of which one is what one PyTorch operator with one kernel costs; headway's
// own, kernels and exchanges. docs/reference/model.md, "The host", says where the numbers come
// from.
#include <algorithm>
#include <span>
#include <utility>
#include <variant>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

struct Operations {
    double forward = 0.0, backward = 0.0;
};

// Plain PyTorch 2.11, counted in scripts/torch_step by its profiler
// (docs/results/validation_host.csv): norms and rope operator by operator, a router in fp32, rows
// moved by index, experts as grouped products.
Operations of_torch(Phase phase) {
    switch (phase) {
        case Phase::norm:
            return {4, 6};
        case Phase::attention_qkv:
            return {13, 19};
        case Phase::attention_core:
            return {1, 5};
        case Phase::route:
            return {11, 15};
        case Phase::permute:
            return {8, 4};
        case Phase::count_exchange:
            return {5, 0};
        case Phase::regroup:
            return {12, 2};
        case Phase::expert:
            return {10, 12};
        case Phase::ungroup:
            return {3, 2};
        case Phase::unpermute:
            return {5, 6};
        case Phase::loss:
            return {3, 4};
        // A gate, an activation and the two other products, as the experts have them.
        case Phase::dense_mlp:
        case Phase::shared_expert:
            return {5, 9};
        // A copy into the order of the exchange, and the exchange.
        case Phase::head_scatter:
        case Phase::head_gather:
            return {2, 2};
        case Phase::dispatch:
        case Phase::combine:
            return {1, 1};
        default:
            return {1, 2};
    }
}

// Megatron-LM (d98e8a6) with TransformerEngine. Attention and shared experts: counted from the
// code, a module of TransformerEngine as 2.7 operations (its issue 2053). The MoE layer: in all
// what 9.0 ms of a DGX H100 hold, the least of the published layers whose time does not fall with
// their size; its parts are shares of the launches in the code.
Operations of_megatron(Phase phase) {
    switch (phase) {
        case Phase::norm:
            return {6, 6};
        case Phase::attention_qkv:
            return {12, 10};
        case Phase::attention_core:
            return {11, 11};
        case Phase::dense_mlp:
        case Phase::shared_expert:
            return {8, 10};
        case Phase::route:
            return {70, 60};
        case Phase::permute:
            return {35, 45};
        case Phase::count_exchange:
            return {35, 0};
        case Phase::dispatch:
            return {25, 35};
        case Phase::regroup:
            return {30, 45};
        case Phase::expert:
            return {50, 85};
        case Phase::ungroup:
            return {15, 30};
        case Phase::combine:
        case Phase::unpermute:
            return {20, 35};
        case Phase::head_scatter:
        case Phase::head_gather:
            return {20, 30};
        default:
            return {3, 4};
    }
}

struct Calls {
    PerHostCall<double> forward, backward;
};
using CallCount = std::pair<HostCall, double>;

Calls calls(std::initializer_list<CallCount> forward, std::initializer_list<CallCount> backward) {
    Calls c;
    for (const auto& [call, count] : forward) c.forward[call] += count;
    for (const auto& [call, count] : backward) c.backward[call] += count;
    return c;
}

// What EP and HP do alike, and what is a kernel each way.
Calls calls_of_phase(Phase phase) {
    using enum HostCall;
    switch (phase) {
        case Phase::norm:  // backward: and the sum of its parts
            return calls({{kernel, 1}}, {{kernel, 2}});
        case Phase::attention_qkv:
        case Phase::attention_out:
        case Phase::lm_head:
            return calls({{product, 1}}, {{product, 2}});
        case Phase::attention_core:
            return calls({{attention, 1}}, {{attention_backward, 1}});
        case Phase::dense_mlp:
            return calls({{grouped, 2}}, {{grouped, 4}});
        case Phase::embed:  // backward: of a table that is zeroed
        case Phase::loss:   // backward: and the sum over the tokens
            return calls({{kernel, 1}}, {{kernel, 2}});
        default:
            return calls({{kernel, 1}}, {{kernel, 1}});
    }
}

Calls calls_of_experts(Phase phase, bool by_copy) {
    using enum HostCall;
    switch (phase) {
        case Phase::route:
            return calls({{product, 1}, {kernel, 1}}, {{kernel, 1}, {product, 2}});
        case Phase::permute:  // a sort of choices, of four kernels, and the copies of rows
            return calls({{kernel, by_copy ? 5 : 6}}, {{kernel, 1}});
        case Phase::expert:
            return calls({{grouped, 2}}, {{grouped, 4}});
        case Phase::count_exchange:  // counts, their exchange, their copy to the host
            return calls({{kernel, 2}, {all_to_all, 1}}, {});
        case Phase::dispatch:  // forward: the map of rows, which needs the counts, before it
            return calls({{exchange, 1}, {kernel, by_copy ? 1 : 0}}, {{exchange, 1}});
        case Phase::combine:
            return calls({{exchange, 1}}, {{exchange, 1}});
        default:
            return calls_of_phase(phase);
    }
}

// Records of copies: two exchanges, with a kernel before and a sort behind both; backward one.
Calls calls_of_records() {
    using enum HostCall;
    return calls({{exchange, 1}, {kernel, 2.5}}, {{exchange, 1}, {kernel, 1}});
}

Calls calls_of_heads(Phase phase, bool moves_planes) {
    using enum HostCall;
    switch (phase) {
        case Phase::head_project:
        case Phase::head_merge:  // weights: a product and the sum of its parts
            return calls({{grouped, 1}}, {{grouped, 2}, {kernel, 1}});
        case Phase::head_scatter:
        case Phase::head_gather: {
            const double planes = moves_planes ? 1 : 0;
            return calls({{all_to_all, 1}, {kernel, planes}}, {{all_to_all, 1}, {kernel, planes}});
        }
        case Phase::route:
            return calls({{kernel, 2}}, {{kernel, 2}});
        case Phase::permute:
            return calls({{kernel, 2}}, {{kernel, 1}});
        case Phase::expert:  // rows; backward: rows, their shares, weights, and their sums
            return calls({{grouped, 1}}, {{grouped, 1}, {kernel, 3}});
        default:
            return calls_of_phase(phase);
    }
}

// Biases of experts, one expert after the other (the code of kExpertBias): a product and a sum;
// backward a cast, two products and two sums.
Operations of_biases(const StepShape& s) {
    const bool apart = s.plan.implementation == Implementation::megatron &&
                       s.scenario.model.moe.add_bias_linear && !s.plan.is_head_parallel() &&
                       !fuses_expert_operators(s.plan);
    if (!apart) return {};
    const double experts = experts_on_rank(s);
    return {2.0 * experts + 2.0, 5.0 * experts + 2.0};
}

Operations operations_of(const StepShape& s, Phase phase) {
    const Plan& plan = s.plan;
    const auto of = [&](Phase p) {
        return plan.implementation == Implementation::torch ? of_torch(p) : of_megatron(p);
    };
    Operations o = of(phase);
    // What prepares rows for an exchange that moves them is the exchange's, unless a graph holds
    // it.
    const bool moves = moves_rows(s);
    const auto add = [&](Operations more) {
        o = {o.forward + more.forward, o.backward + more.backward};
    };
    if (!moves && phase == Phase::dispatch &&
        !has_scope(plan.cuda_graph_scope, GraphScope::moe_preprocess))
        add(of(Phase::permute));
    if (!moves && phase == Phase::combine) add(of(Phase::unpermute));
    if (phase == Phase::expert) add(of_biases(s));
    // A module of TransformerEngine takes its host twice as long in FP8 as in BF16 (its issue 761).
    const bool modules =
        plan.implementation == Implementation::megatron && computes_narrow(plan, phase);
    if (modules) add(o);
    return o;
}

// The graph that holds the phase; none: it is launched.
std::optional<GraphScope> scope_of(Phase phase) {
    switch (phase) {
        case Phase::norm:
        case Phase::attention_qkv:
        case Phase::attention_core:
        case Phase::attention_out:
            return GraphScope::attn;
        case Phase::dense_mlp:
            return GraphScope::mlp;
        case Phase::route:
        case Phase::shared_expert:
            return GraphScope::moe_router;
        case Phase::permute:
        case Phase::count_exchange:
            return GraphScope::moe_preprocess;
        default:
            return std::nullopt;
    }
}

// A step that is one graph: one launch, which its first phase has, in equal shares of the
// micro-batches.
void set_launch_of_step(const StepShape& s, std::span<PhaseWork> phases) {
    for (PhaseWork& phase : phases) {
        if (phase.phase == Phase::embed && phase.pass == Pass::forward)
            phase.calls[HostCall::kernel] = 1.0 / num_micro_batches(s.scenario, s.plan);
    }
}

void set_own_host_work(const StepShape& s, std::span<PhaseWork> phases) {
    if (has_scope(s.plan.cuda_graph_scope, GraphScope::full_iteration))
        return set_launch_of_step(s, phases);
    for (PhaseWork& phase : phases) {
        phase.calls = own_host_calls(s.plan, phase);
        phase.host_waits = std::holds_alternative<CountExchangeWork>(phase.work);
    }
}

}  // namespace

PerHostCall<double> own_host_calls(const Plan& plan, const PhaseWork& work) {
    if (std::holds_alternative<ReduceWork>(work.work))
        return calls({{HostCall::reduction, 1}}, {}).forward;
    const auto* heads = std::get_if<HeadParallel>(&plan.layer);
    const auto* experts = std::get_if<ExpertParallel>(&plan.layer);
    const Calls c =
        is_records(work) ? calls_of_records()
        : heads != nullptr
            ? calls_of_heads(work.phase, heads->num_heads > plan.group_size)
            : calls_of_experts(work.phase, experts == nullptr || experts->dedup == Dedup::none);
    PerHostCall<double> all = work.kernel_pass() == Pass::backward ? c.backward : c.forward;
    // A layer has two norms in one phase.
    const auto* compute = std::get_if<ComputeWork>(&work.work);
    if (work.phase == Phase::norm && compute != nullptr && compute->num_launches() > 1)
        for (double& count : all.values) count *= 2.0;
    return all;
}

void set_host_work(const StepShape& s, std::span<PhaseWork> phases) {
    const Plan& plan = s.plan;
    if (plan.implementation == Implementation::headway) return set_own_host_work(s, phases);
    if (!launches_eagerly(plan.implementation) ||
        has_scope(plan.cuda_graph_scope, GraphScope::full_iteration))
        return;
    std::optional<GraphScope> open;
    for (PhaseWork& phase : phases) {
        const std::optional<GraphScope> scope = scope_of(phase.phase);
        const bool in_graph = scope && has_scope(plan.cuda_graph_scope, *scope);
        const Operations operations = operations_of(s, phase.phase);
        phase.launches =
            phase.kernel_pass() == Pass::forward ? operations.forward : operations.backward;
        // A graph is one operation, which its first phase launches.
        if (in_graph) phase.launches = open == scope ? 0.0 : 1.0;
        open = in_graph ? scope : std::nullopt;
        phase.host_waits = phase.phase == Phase::count_exchange;
    }
}

}  // namespace headway::inline workload

// Scenario and plan -> Workload.
#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <variant>

#include "models/workload/moe_layer.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/phases.hpp"
#include "models/workload/recompute.hpp"
#include "models/workload/saved_tensors.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {
namespace {

constexpr std::size_t kPhasesOfALayer = 24;  // enough for most layers

// Parameters of a layer are gathered beside the pass of the layer before, gradients scattered
// beside that of the layer after: beside its own here, which is as long.
void add_shards(const StepShape& s, LayerWork& layer) {
    const RankParameters own = layer_parameters(s.scenario.model, s.plan, layer.first_layer);
    gather_parameters(s, own, Pass::forward, Beside::pass, layer.forward);
    gather_parameters(s, own, Pass::backward, Beside::pass, layer.backward);
    scatter_gradients(s, own, Beside::pass, layer.backward);
    if (!s.scenario.model.is_mtp_layer(layer.first_layer)) return;
    // The embedding once more; in a pipeline it is a copy with gradients of its own.
    const RankParameters table = vocabulary_parameters(s.scenario.model, s.plan);
    gather_parameters(s, table, Pass::forward, Beside::pass, layer.forward);
    if (s.mesh.pp > 1) scatter_gradients(s, table, Beside::pass, layer.backward);
}

// Tokens whose FLOPs are a rank's part: those of its tensor-parallel group over the ranks of it.
double own_tokens(const StepShape& s) {
    return s.group_tokens / s.mesh.tp;
}

// All but the feed-forward part, around it.
ForwardParts begin_layer(const StepShape& s, LayerWork& layer) {
    ForwardParts parts;
    if (s.scenario.model.is_mtp_layer(layer.first_layer)) {
        add_mtp_input(s, Pass::forward, layer.forward);
        parts.input = static_cast<std::size_t>(
            std::ranges::find(layer.forward, Phase::norm, &PhaseWork::phase) -
            layer.forward.begin());
    }
    add_attention(s, layer.first_layer, Pass::forward, layer.forward);
    parts.feed_forward = layer.forward.size();
    return parts;
}

void end_forward(const StepShape& s, ForwardParts& parts, LayerWork& layer) {
    if (!s.scenario.model.is_mtp_layer(layer.first_layer)) return;
    const std::size_t before = layer.forward.size();
    add_mtp_output(s, Pass::forward, layer.forward);
    add_mtp_output(s, Pass::backward, layer.backward);
    parts.behind = layer.forward.size() - before;
}

void end_backward(const StepShape& s, LayerWork& layer) {
    add_attention(s, layer.first_layer, Pass::backward, layer.backward);
    if (s.scenario.model.is_mtp_layer(layer.first_layer))
        add_mtp_input(s, Pass::backward, layer.backward);
}

// Forward, of a token; of the feed-forward part `feed_forward`.
Flops model_flops(const StepShape& s, int layer, double feed_forward) {
    const ModelSpec& model = s.scenario.model;
    const double joined = model.is_mtp_layer(layer) ? 4.0 * s.hidden * s.hidden : 0.0;
    return own_tokens(s) * (attention_flops_per_token(s.scenario, layer) + feed_forward + joined) *
           flop;
}

// Inputs of modules go down beside the layer behind and come up beside the one before, in backward:
// beside its own here, which is as long.
void add_offload(const StepShape& s, const GroupLoad* load, LayerWork& layer) {
    if (!s.plan.offload.has_activations()) return;
    const bool mtp = s.scenario.model.is_mtp_layer(layer.first_layer);
    if (mtp && s.plan.offload.cpu_offloading_num_layers > 0) return;  // the first L - 1 at most
    const double bytes = offloaded_by_layer(saved_tensors(s.scenario, s.plan, load, mtp),
                                            s.scenario.model, s.plan, layer.is_moe);
    if (!(bytes > 0.0)) return;
    const auto copy = [&](Phase phase, Pass pass, HostPart part) {
        return PhaseWork{.phase = phase,
                         .pass = pass,
                         .work = HostWork{part, bytes * byte},
                         .beside = Beside::pass};
    };
    layer.forward.push_back(copy(Phase::offload, Pass::forward, HostPart::down));
    layer.backward.push_back(copy(Phase::reload, Pass::backward, HostPart::up));
}

// All that comes of the phases of both passes, in order; `load` is that of an MoE layer.
void finish_layer(const StepShape& s, const GroupLoad* load, const ForwardParts& parts,
                  LayerWork& layer) {
    const MoeRows rows = load != nullptr ? moe_rows(s, *load) : MoeRows{};
    for (auto* phases : {&layer.forward, &layer.backward})
        add_framework_operators(s, rows, *phases);
    add_recompute(s, load, layer.first_layer, parts, layer);
    set_linear_types(s, layer);
    add_gradient_traffic(s, layer.backward);
    add_shards(s, layer);
    add_offload(s, load, layer);
    for (auto* phases : {&layer.forward, &layer.backward}) set_host_work(s, *phases);
}

LayerWork dense_layer(const StepShape& s, int index, int count) {
    LayerWork layer{.first_layer = index, .count = count};
    ForwardParts parts = begin_layer(s, layer);
    add_dense_mlp(s, Pass::forward, layer.forward);
    end_forward(s, parts, layer);
    add_dense_mlp(s, Pass::backward, layer.backward);
    end_backward(s, layer);
    finish_layer(s, nullptr, parts, layer);
    const ModelSpec& model = s.scenario.model;
    layer.model_flops = model_flops(
        s, index,
        2.0 * matrices_per_expert(model.dense_activation) * model.hidden * model.dense_width);
    return layer;
}

// Model FLOPs are the baseline's under every plan: what a plan computes besides is its own affair.
const Plan& baseline_of(const Scenario& scenario, const Plan& otherwise) {
    for (const Plan& plan : scenario.plans) {
        if (plan.name == scenario.baseline) return plan;
    }
    return otherwise;
}

LayerWork moe_layer(const StepShape& s, const GroupLoad& load, int index, int count) {
    LayerWork layer{.first_layer = index, .count = count, .is_moe = true};
    const MoeLayerKind& kind = moe_layer_kind(s.plan);
    for (auto* phases : {&layer.forward, &layer.backward}) phases->reserve(kPhasesOfALayer);
    ForwardParts parts = begin_layer(s, layer);
    kind.forward(s, load, layer);
    end_forward(s, parts, layer);
    kind.backward(s, load, layer);
    const bool unfused = s.plan.implementation == Implementation::unfused;
    if (unfused) kind.add_unfused(s, load, layer);
    end_backward(s, layer);
    if (unfused) widen_residual_stream(s, layer);
    finish_layer(s, &load, parts, layer);
    layer.imbalance = load.rows_max / load.rows_mean;
    layer.noise = load.rows_sigma / load.rows_mean;
    layer.model_flops =
        model_flops(s, index, moe_flops_per_token(s.scenario, baseline_of(s.scenario, s.plan)));
    return layer;
}

// The embedding has nothing before it to hide its parameters behind, nor its gradients after. The
// head keeps its parameters for the backward pass that follows at once.
void add_outer(const StepShape& s, Workload& workload) {
    const RankParameters table = vocabulary_parameters(s.scenario.model, s.plan);
    gather_parameters(s, table, Pass::forward, Beside::nothing, workload.before);
    add_embedding(s, workload.before);
    scatter_gradients(s, table, Beside::nothing, workload.before);
    std::vector<PhaseWork> head;
    add_head_and_loss(s, head);
    if (s.plan.implementation == Implementation::unfused) widen_head(s, head);
    add_gradient_traffic(s, head);
    const auto backward = std::ranges::find(head, Pass::backward, &PhaseWork::pass);
    workload.after.assign(head.begin(), backward);
    gather_parameters(s, table, Pass::forward, Beside::pass, workload.after);
    workload.after.insert(workload.after.end(), backward, head.end());
    scatter_gradients(s, table, Beside::pass, workload.after);
    for (auto* phases : {&workload.before, &workload.after}) {
        add_framework_operators(s, {}, *phases);
        set_host_work(s, *phases);
    }
}

}  // namespace

StepShape step_shape(const Scenario& scenario, const Plan& plan) {
    const RankTokens tokens = rank_tokens(scenario, plan);
    return {.scenario = scenario,
            .plan = plan,
            .layout = expert_layout(scenario, plan),
            .tokens = static_cast<double>(tokens.own),
            .group_tokens = static_cast<double>(tokens.group),
            .hidden = static_cast<double>(scenario.model.hidden),
            .element = bytes_per_element(scenario.model.dtype),
            .mesh = mesh_of(scenario, plan)};
}

std::span<const PhaseWork> of_pass(const std::vector<PhaseWork>& phases, Pass pass) {
    const auto backward = std::ranges::find(phases, Pass::backward, &PhaseWork::pass);
    if (pass == Pass::forward) return {phases.begin(), backward};
    return {backward, phases.end()};
}

std::size_t layer_kind(const ModelSpec& model, int layer) {
    return (model.is_mtp_layer(layer) ? 4u : 0u) + (model.is_moe_layer(layer) ? 2u : 0u) +
           (model.has_window(layer) ? 1u : 0u);
}

bool layers_differ(const Scenario& scenario, const Plan& plan) {
    const Routing& r = scenario.routing;
    if (expert_layout(scenario, plan).group_size == 1 || r.skew == Skew::none ||
        r.skew == Skew::histogram)
        return false;
    return r.per_layer || r.skew == Skew::trace;
}

LayerWork build_moe_layer(const Scenario& scenario, const Plan& plan, const GroupLoad& load,
                          int layer) {
    return moe_layer(step_shape(scenario, plan), load, layer, 1);
}

Workload build_workload(const Scenario& scenario, const Plan& plan) {
    std::vector<GroupLoad> loads;
    const ModelSpec& model = scenario.model;
    const int distinct = layers_differ(scenario, plan) ? model.num_moe_layers() : 1;
    for (int i = 0; i < distinct; ++i)
        loads.push_back(expected_load(scenario, plan, model.moe_layer(i)));
    return build_workload(scenario, plan, loads);
}

Workload build_workload(const Scenario& scenario, const Plan& plan,
                        const std::vector<GroupLoad>& loads) {
    const ModelSpec& model = scenario.model;
    const StepShape s = step_shape(scenario, plan);
    Workload workload{.num_ranks = scenario.cluster.num_ranks(),
                      .num_micro_batches = num_micro_batches(scenario, plan),
                      .overlap_chunks = plan.overlap_chunks,
                      .runs_free = plan.implementation == Implementation::headway};
    add_outer(s, workload);
    workload.model_flops =
        own_tokens(s) * 2.0 * model.hidden * model.vocab_size * (1 + model.mtp_num_layers) * flop;
    // Equal layers are one entry with a count, where the first of them is; MoE layers with loads of
    // their own are an entry each.
    std::array<int, 16> entry_of_kind;
    entry_of_kind.fill(-1);
    int moe_index = 0;
    for (int layer = 0; layer < model.all_layers(); ++layer) {
        const bool moe = model.is_moe_layer(layer);
        int& entry = entry_of_kind[layer_kind(model, layer) +
                                   (recomputes_layer(model, plan, layer) ? 8u : 0u)];
        if (entry >= 0 && (!moe || loads.size() == 1)) {
            ++workload.layers[static_cast<std::size_t>(entry)].count;
            workload.entry_of_layer.push_back(entry);
            continue;
        }
        entry = static_cast<int>(workload.layers.size());
        workload.entry_of_layer.push_back(entry);
        workload.layers.push_back(
            moe ? moe_layer(s, loads[static_cast<std::size_t>(moe_index++) % loads.size()], layer,
                            1)
                : dense_layer(s, layer, 1));
    }
    for (const LayerWork& layer : workload.layers)
        workload.model_flops += layer.count * layer.model_flops;
    if (plan.parallel.executes_order())
        workload.pipeline = build_pipeline(scenario, plan);
    else
        add_update(s, stages_of_rank(model, plan.parallel, 0), workload.update);
    if (workload.runs_free) set_host_work(s, workload.update);
    return workload;
}

}  // namespace headway::inline workload

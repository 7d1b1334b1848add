// Scenario and plan -> Workload.
#include <array>
#include <cstddef>
#include <utility>
#include <variant>

#include "models/workload/parameters.hpp"
#include "models/workload/phases.hpp"
#include "models/workload/recompute.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {
namespace {

constexpr std::size_t kPhasesOfALayer = 24;  // enough for most layers

LayerWork dense_layer(const StepShape& s, int index, int count) {
    LayerWork layer{.first_layer = index, .count = count};
    add_attention(s, index, Pass::forward, layer.forward);
    const std::size_t feed_forward = layer.forward.size();
    add_dense_mlp(s, Pass::forward, layer.forward);
    add_dense_mlp(s, Pass::backward, layer.backward);
    add_attention(s, index, Pass::backward, layer.backward);
    add_recompute(s, nullptr, index, feed_forward, layer);
    const ModelSpec& model = s.scenario.model;
    const double mlp =
        2.0 * matrices_per_expert(model.dense_activation) * model.hidden * model.dense_width;
    layer.model_flops = s.tokens * (attention_flops_per_token(s.scenario, index) + mlp) * flop;
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
    const bool heads = s.plan.is_head_parallel();
    for (auto* phases : {&layer.forward, &layer.backward}) phases->reserve(kPhasesOfALayer);
    add_attention(s, index, Pass::forward, layer.forward);
    const std::size_t feed_forward = layer.forward.size();
    (heads ? add_hp_forward : add_ep_forward)(s, load, layer);
    (heads ? add_hp_backward : add_ep_backward)(s, load, layer);
    const bool unfused = s.plan.implementation == Implementation::unfused;
    if (unfused) (heads ? add_unfused_hp : add_unfused_ep)(s, load, layer);
    add_attention(s, index, Pass::backward, layer.backward);
    if (unfused) widen_residual_stream(s, layer);
    add_recompute(s, &load, index, feed_forward, layer);
    layer.imbalance = load.rows_max / load.rows_mean;
    layer.noise = load.rows_sigma / load.rows_mean;
    layer.model_flops = s.tokens *
                        (attention_flops_per_token(s.scenario, index) +
                         moe_flops_per_token(s.scenario, baseline_of(s.scenario, s.plan))) *
                        flop;
    return layer;
}

// AdamW bytes per parameter: gradient read; master and both moments read and written; bf16
// parameter written, and read where the master is its remainder.
double optimizer_bytes(const Plan& plan) {
    return bytes_per_element(plan.main_grads_dtype) +
           2.0 * (master_bytes(plan) + moment_bytes(plan)) +
           2.0 * (plan.store_param_remainders ? 2.0 : 1.0);
}

void add_update(const StepShape& s, Workload& workload) {
    const ParameterCount count = count_parameters(s.scenario.model, s.plan);
    const int world = workload.num_ranks, group = s.plan.group_size, replicas = world / group;
    const double experts = count.experts / group;  // on one rank
    const int buckets = s.scenario.model.num_layers;
    const bool overlap = s.plan.overlap_grad_all_reduce;
    const double gradient = bytes_per_element(s.plan.main_grads_dtype);
    // Gradients are reduced in the type they are accumulated in. ZeRO-1 reduces to shards and
    // gathers the bf16 parameters afterwards.
    const Collective reduce = s.plan.zero1 ? Collective::reduce_scatter : Collective::all_reduce;
    const auto add = [&](Phase phase, Collective collective, int size, int stride, double bytes,
                         bool overlapped) {
        if (size <= 1 || bytes <= 0.0) return;
        workload.update.push_back({phase, Pass::update,
                                   ReduceWork{.collective = collective,
                                              .group_size = size,
                                              .stride = stride,
                                              .bytes = bytes * byte,
                                              .overlaps_backward = overlapped,
                                              .num_buckets = buckets}});
    };
    add(Phase::grad_all_reduce, reduce, world, 1, gradient * count.replicated(), overlap);
    add(Phase::expert_grad_all_reduce, reduce, replicas, group, gradient * experts, overlap);
    const double own = s.plan.zero1 ? count.replicated() / world + experts / replicas
                                    : count.replicated() + experts;
    // Unfused: a pass of its own divides the gradients by the number of micro-batches.
    const double divide = s.plan.implementation == Implementation::unfused ? 2.0 * gradient : 0.0;
    workload.update.push_back(
        compute_phase(Phase::optimizer, Pass::update,
                      {move(Kernel::optimizer, own * (optimizer_bytes(s.plan) + divide))}));
    if (s.plan.zero1) {
        add(Phase::param_all_gather, Collective::all_gather, world, 1,
            s.element * count.replicated(), false);
        add(Phase::param_all_gather, Collective::all_gather, replicas, group, s.element * experts,
            false);
    }
}

StepShape step_shape(const Scenario& scenario, const Plan& plan) {
    return {.scenario = scenario,
            .plan = plan,
            .layout = expert_layout(scenario, plan),
            .tokens = static_cast<double>(scenario.batch.tokens_per_rank()),
            .hidden = static_cast<double>(scenario.model.hidden),
            .element = bytes_per_element(scenario.model.dtype)};
}

}  // namespace

std::size_t layer_kind(const ModelSpec& model, int layer) {
    return (model.is_moe_layer(layer) ? 2u : 0u) + (model.attention.has_window(layer) ? 1u : 0u);
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
                      .num_micro_batches = scenario.batch.num_micro_batches,
                      .overlap_chunks = plan.overlap_chunks};
    add_embedding(s, workload.before);
    add_head_and_loss(s, workload.after);
    if (plan.implementation == Implementation::unfused) widen_head(s, workload.after);
    workload.model_flops = s.tokens * 2.0 * model.hidden * model.vocab_size * flop;
    // Equal layers are one entry with a count, where the first of them is; MoE layers with loads of
    // their own are an entry each.
    std::array<int, 8> entry_of_kind;
    entry_of_kind.fill(-1);
    int moe_index = 0;
    for (int layer = 0; layer < model.num_layers; ++layer) {
        const bool moe = model.is_moe_layer(layer);
        int& entry = entry_of_kind[layer_kind(model, layer) +
                                   (recomputes_layer(model, plan, layer) ? 4u : 0u)];
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
    add_update(s, workload);
    return workload;
}

}  // namespace headway::inline workload

#include "runtime/step/step_setup.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "models/vocab/error.hpp"
#include "models/workload/recompute.hpp"

namespace headway::runtime {
namespace {

// Settings of the model that no run of a step has.
std::vector<std::string> unknown_to_a_step(const ModelSpec& model, const LayerSetup& moe) {
    std::vector<std::string> settings;
    const auto set = [&](bool differs, std::string text) {
        if (differs) settings.push_back(std::move(text));
    };
    const Attention& a = model.attention;
    set(a.latent.has_value(), "attention.latent");
    set(a.output_gate, "attention.output_gate: true");
    set(a.window.has_value(), "attention.window");
    set(model.mtp_num_layers > 0, fmt::format("mtp_num_layers: {}", model.mtp_num_layers));
    set(model.tied_embeddings, "tied_embeddings: true");
    set(model.moe.add_bias_linear, "add_bias_linear: true");
    set(moe.dims.shared_width > 0, "shared experts");
    set(moe.dims.aux_free_bias, "aux_free_bias: true");
    set(moe.dims.latent_width > 0, fmt::format("latent_width: {}", moe.dims.latent_width));
    const RoutingRule& rule = moe.head_parallel ? moe.hp.routing : moe.ep.routing;
    set(rule.capacity_factor.has_value(), "capacity_factor");
    set(model.moe.num_expert_groups > 1,
        fmt::format("num_expert_groups: {}", model.moe.num_expert_groups));
    return settings;
}

[[noreturn]] void refuse(const Plan& plan, const std::string& found, const std::string& accepted,
                         const std::string& hint = "") {
    throw InputError({.where = "plan " + plan.name + " as a whole step",
                      .found = found,
                      .accepted = accepted,
                      .hint = hint});
}

// What of the plan's recompute the layers of the runtime cannot.
std::vector<std::string> recompute_not_executed(const Plan& plan) {
    using enum RecomputeModule;
    const Recompute& recompute = plan.recompute;
    std::vector<std::string> settings;
    if (recompute.is_full() && recompute.method == RecomputeMethod::uniform &&
        recompute.num_layers > 1)
        settings.push_back(
            fmt::format("recompute_num_layers: {} of uniform", recompute.num_layers));
    RecomputeModules executed = modules(moe, mlp, experts);
    // Hidden rows go with the experts that make them, and HP's fused experts keep none.
    if (recompute.has(moe) || recompute.has(experts) || plan.is_head_parallel())
        executed |= modules(moe_act);
    for (std::size_t m = 0; m < kRecomputeModuleNames.size(); ++m) {
        const auto module = static_cast<RecomputeModule>(m);
        if (recompute.has(module) && (executed & modules(module)) == 0u)
            settings.push_back(fmt::format("recompute_modules: {}", kRecomputeModuleNames[m]));
    }
    return settings;
}

Again again_of(const ModelSpec& model, const Plan& plan, int layer) {
    const bool moe = model.is_moe_layer(layer);
    if (recomputes_layer(model, plan, layer)) return Again::layer;
    if (plan.recompute.has(moe ? RecomputeModule::moe : RecomputeModule::mlp))
        return Again::feed_forward;
    return moe && !plan.is_head_parallel() && plan.recompute.has(RecomputeModule::experts)
               ? Again::experts
               : Again::nothing;
}

// (Which graphs a plan may ask for is the scenario's matter; --ranks changes the group.)
void check_graph(const Plan& plan, const StepRun& run) {
    if (plan.cuda_graph_scope == 0) return;
    if (waits_for_counts(plan))
        refuse(plan, fmt::format("cuda_graph_scope of EP on {} ranks", plan.group_size),
               "HP, or EP on one rank", "a host that waits for counts can launch no whole step");
    if (run.check)
        refuse(plan, "cuda_graph_scope with --check", "the plan without it",
               "steps replayed as a graph have the losses of enqueued ones, bit for bit");
}

void check_settings(const Scenario& scenario, const Plan& plan, const StepRun& run) {
    std::vector<std::string> settings = settings_not_executed(plan);
    if (launches_eagerly(plan.implementation))
        settings.push_back(
            fmt::format("implementation: {}",
                        kImplementationNames[static_cast<std::size_t>(plan.implementation)]));
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    if (ep != nullptr && ep->dispatcher == TokenDispatcher::flex)
        settings.emplace_back("dispatcher: flex");
    if (ep != nullptr && ep->node_limit) settings.emplace_back("node_limit");
    std::ranges::copy(recompute_not_executed(plan), std::back_inserter(settings));
    if (!plan.gradient_accumulation_fusion)
        settings.emplace_back("gradient_accumulation_fusion: false");
    if (plan.attention_backend == AttentionBackend::flash)
        settings.emplace_back("attention_backend: flash");
    if (!settings.empty())
        refuse(plan, fmt::format("{}", fmt::join(settings, ", ")), "plans without it",
               "a run of a step does not execute it");
    check_graph(plan, run);
    const Routing& routing = scenario.routing;
    if (!run.forced && routing.skew != Skew::none)
        refuse(plan, fmt::format("skew: {}", kSkewNames[static_cast<std::size_t>(routing.skew)]),
               "none: a step routes by its own routers",
               "--force-routing lays the scenario's routing over their choice");
}

int micro_batches_to_run(const Scenario& scenario, const Plan& plan) {
    const Batch& batch = scenario.batch;
    const int sequences = batch.sequences_per_rank * plan.group_size;
    if (batch.global_batch_size && *batch.global_batch_size % sequences != 0)
        refuse(plan,
               fmt::format("global_batch_size: {} of micro-batches of {} sequences on {} ranks",
                           *batch.global_batch_size, sequences, plan.group_size),
               fmt::format("multiples of {}", sequences));
    return num_micro_batches(scenario, plan);
}

}  // namespace

void check_steps(const Scenario& whole, const std::vector<Plan>& chosen, const StepRun& run) {
    for (const Plan& plan : whole.plans) {
        if (std::ranges::find(chosen, plan.name, &Plan::name) != chosen.end())
            check_settings(whole, plan, run);
    }
}

StepSetup step_setup(const Scenario& scenario, const Plan& plan, const StepRun& run) {
    check_settings(scenario, plan, run);
    const int ranks = scenario.cluster.num_ranks();
    if (ranks != plan.group_size)
        refuse(plan, fmt::format("a group of {} on a cluster of {} ranks", plan.group_size, ranks),
               "one group on all ranks", "cluster.nodes, cluster.gpus_per_node or group_size");
    StepSetup setup{.model = scenario.model,
                    .moe = layer_setup(scenario, plan),
                    .num_ranks = plan.group_size,
                    .sequence_length = scenario.batch.sequence_length,
                    .num_sequences = scenario.batch.sequences_per_rank,
                    .num_micro_batches = micro_batches_to_run(scenario, plan),
                    .overlap_reductions = plan.overlap_grad_all_reduce};
    for (int layer = 0; layer < setup.model.num_layers; ++layer)
        setup.again.push_back(again_of(setup.model, plan, layer));
    setup.moe.ep.sparse.experts_again = std::ranges::count(setup.again, Again::experts) > 0;
    setup.optimizer.learning_rate = run.learning_rate;
    const std::vector<std::string> settings = unknown_to_a_step(setup.model, setup.moe);
    if (!settings.empty())
        refuse(plan, fmt::format("{}", fmt::join(settings, ", ")), "models without it");
    if (setup.moe.head_parallel && setup.moe.hp.sharers() > 1)
        refuse(plan, fmt::format("{} ranks for {} heads", plan.group_size, setup.moe.hp.num_heads),
               "at most as many ranks as heads", "HP x EP runs as layers, without --steps");
    if (!run.data.empty() && scenario.model.vocab_size != 256)
        refuse(plan, fmt::format("vocab_size: {} with --data", scenario.model.vocab_size),
               "256: tokens are bytes");
    return setup;
}

}  // namespace headway::runtime

#include "models/cost/unused_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <variant>

#include "models/schedule/pipeline_order.hpp"
#include "models/vocab/links.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/saved_tensors.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {
namespace {

class Notes {
  public:
    template <class... Args>
    void add_if(bool unused, fmt::format_string<Args...> format, Args&&... args) {
        if (unused) notes_.push_back(fmt::format(format, std::forward<Args>(args)...));
    }
    std::vector<std::string> take() { return std::move(notes_); }

  private:
    std::vector<std::string> notes_;
};

void note_model(const Scenario& s, Notes& notes) {
    const ModelSpec &m = s.model, usual;
    const bool dense = m.dense_width != 0 || m.dense_activation != usual.dense_activation;
    notes.add_if(m.num_dense_layers == 0 && dense,
                 "model.dense_width and dense_activation have no effect: no dense layers");
    const Attention& a = m.attention;
    notes.add_if(a.latent.has_value(),
                 "model.attention.num_kv_heads and head_width have no effect: latent attention has "
                 "widths of its own");
    notes.add_if(!a.window && a.window_every != 1,
                 "model.attention.window_every has no effect: no window");
    notes.add_if(a.window && *a.window >= s.batch.sequence_length,
                 "model.attention.window has no effect: no sequence is longer");
    notes.add_if(m.moe.num_shared_experts == 0 && m.moe.shared_expert_width != 0,
                 "model.moe.shared_expert_width has no effect: no shared experts");
}

bool has_ecmp(const Cluster& c) {
    return c.fabric && c.fabric->spraying == Spraying::ecmp;
}

void note_routing(const Scenario& s, const std::vector<Plan>& plans, Notes& notes) {
    const Routing &r = s.routing, usual;
    const bool routed = std::ranges::any_of(
        plans, [&](const Plan& plan) { return expert_layout(s, plan).group_size > 1; });
    const bool seeded = r.seed != usual.seed && !has_ecmp(s.cluster);
    if (!routed) {
        notes.add_if(r.noise != usual.noise || r.skew != usual.skew || r.scope != usual.scope ||
                         r.per_layer != usual.per_layer || seeded,
                     "routing (noise, skew, scope, per_layer, seed) has no effect: whatever "
                     "experts tokens choose, a rank has as many rows");
        return;
    }
    const bool drawn =
        r.skew == Skew::zipf || r.skew == Skew::power_law || r.skew == Skew::dirichlet;
    notes.add_if(!drawn && r.scope != usual.scope,
                 "routing.scope has no effect: no popularity is drawn");
    notes.add_if(!drawn && r.per_layer != usual.per_layer,
                 "routing.per_layer has no effect: no popularity is drawn");
    notes.add_if(!drawn && !r.noise && seeded, "routing.seed has no effect: nothing is drawn");
}

void note_groups(const Scenario& s, const std::vector<Plan>& plans, Notes& notes) {
    const bool limited = std::ranges::any_of(plans, [&](const Plan& plan) {
        const ExpertLayout layout = expert_layout(s, plan);
        return layout.group_size > 1 && layout.router.top_groups < layout.router.num_groups;
    });
    const Moe usual;
    notes.add_if(
        !limited && s.model.moe.group_score != usual.group_score,
        "model.moe.group_score has no effect: no exchange is limited to groups of experts");
}

void note_fabric(const Cluster& c, const Fabric& fabric, Notes& notes) {
    const Fabric usual;
    notes.add_if(fabric.planes > 1 && fabric.spraying == Spraying::ecmp,
                 "cluster.fabric.planes: the prediction is of flows that all planes share; headway "
                 "simulate hashes each to one (spraying: ecmp)");
    const bool one_leaf = fabric.nodes_per_leaf == 0 || fabric.nodes_per_leaf >= c.num_nodes;
    notes.add_if(
        one_leaf,
        "cluster.fabric.spine_latency, oversubscription{} uplinks_per_leaf have no effect: "
        "one leaf",
        fabric.planes > 1 ? " and" : ", spraying and");
    const bool one_way = fabric.planes == 1 && fabric.uplinks_per_leaf == 1 &&
                         (!fabric.core || fabric.core->uplinks_per_pod == 1);
    notes.add_if(!one_leaf && one_way && fabric.spraying == Spraying::ecmp,
                 "cluster.fabric.spraying: ecmp has no effect: one plane and one uplink");
    notes.add_if(!one_leaf && fabric.uplinks_per_leaf != usual.uplinks_per_leaf &&
                     fabric.spraying != Spraying::ecmp,
                 "cluster.fabric.uplinks_per_leaf has no effect without spraying: ecmp");
    if (!fabric.core) return;
    const bool one_pod = tiers_of(c).end()[-1].nodes >= c.num_nodes;
    notes.add_if(one_pod, "cluster.fabric.core has no effect: one pod");
    notes.add_if(!one_pod && fabric.core->uplinks_per_pod != 1 && fabric.spraying != Spraying::ecmp,
                 "cluster.fabric.core.uplinks_per_pod has no effect without spraying: ecmp");
    notes.add_if(
        !one_pod && fabric.core->uplinks_per_pod != 1 && c.has_pod_pairs(),
        "cluster.fabric.core.uplinks_per_pod has no effect: pair_bandwidth is of all links "
        "between two pods");
}

void note_links(const Cluster& c, Notes& notes) {
    const bool alone = c.num_ranks() == 1;
    notes.add_if(c.nvlink && (alone || c.nvlink->domain == 1),
                 "cluster.nvlink has no effect: it joins no two GPUs");
    notes.add_if(
        c.pcie && (c.gpus_per_node == 1 || (c.nvlink && c.nvlink->domain >= c.gpus_per_node)),
        "cluster.pcie has no effect: no two GPUs use it");
    const bool inside = c.num_nodes == 1 || (c.nvlink && c.nvlink->domain >= c.num_ranks());
    notes.add_if(c.fabric && inside, "cluster.fabric has no effect: no two ranks use it");
    if (c.fabric && !inside) note_fabric(c, *c.fabric, notes);
}

void note_overrides(const Cluster& c, Notes& notes) {
    for (const LinkOverride& o : c.link_overrides) {
        const std::vector<NamedLink> links = links_named(c, o.link);
        if (links.empty()) continue;
        const PathClass path = path_of(links.front().kind);
        notes.add_if(o.bandwidth_factor == 0.0,
                     "cluster.link_overrides: {} is dead, and the prediction is of a cluster where "
                     "it is not; headway simulate says who cannot be reached",
                     o.link);
        notes.add_if(o.bandwidth_factor > 1.0 && least_link_factor(c, path) <= 1.0,
                     "cluster.link_overrides: a faster {} has no effect: all wait for the others",
                     o.link);
        notes.add_if(o.bandwidth_factor > 0.0 && o.bandwidth_factor != 1.0 && path > PathClass::nic,
                     "cluster.link_overrides: {} is priced for all-to-all exchanges, not for "
                     "reductions; headway simulate has both",
                     o.link);
    }
    bool slower = false;
    for (const RankOverride& o : c.rank_overrides) slower = slower || o.compute_factor < 1.0;
    const bool all = c.rank_overrides.size() == static_cast<std::size_t>(c.num_ranks());
    for (const RankOverride& o : c.rank_overrides) {
        notes.add_if(o.compute_factor > 1.0 && (slower || !all),
                     "cluster.rank_overrides: a faster rank {} has no effect: it waits for the "
                     "others",
                     o.rank);
    }
}

void note_expert_parallel(const Scenario& s, const Plan& plan, const ExpertParallel& ep,
                          Notes& notes) {
    const bool alone = plan.group_size == 1, quiet = expert_layout(s, plan).ranks() == 1;
    notes.add_if(quiet && ep.dedup != Dedup::none,
                 "plan {}: expert_parallel.dedup has no effect: nothing is exchanged", plan.name);
    const bool gathers = ep.dispatcher == TokenDispatcher::allgather;
    notes.add_if((quiet || gathers) && ep.hide_count_exchange,
                 "plan {}: expert_parallel.hide_count_exchange has no effect: {}", plan.name,
                 quiet ? "nothing is exchanged" : "every rank counts its rows itself");
    notes.add_if(quiet && gathers,
                 "plan {}: expert_parallel.moe_token_dispatcher_type allgather has no effect: "
                 "nothing is exchanged",
                 plan.name);
    notes.add_if(alone && s.model.moe.capacity_factor.has_value(),
                 "plan {}: model.moe.capacity_factor is not applied: a rank with all experts keeps "
                 "the rows of its tokens",
                 plan.name);
    notes.add_if(alone && s.model.moe.num_expert_groups > 1,
                 "plan {}: model.moe.num_expert_groups and top_groups have no effect: nothing is "
                 "exchanged",
                 plan.name);
    notes.add_if(ep.node_limit && s.model.moe.top_groups < s.model.moe.num_expert_groups,
                 "plan {}: expert_parallel.node_limit takes the place of model.moe.top_groups and "
                 "num_expert_groups",
                 plan.name);
}

void note_head_parallel(const Scenario& s, const Plan& plan, const HeadParallel& hp, Notes& notes) {
    const Moe& moe = s.model.moe;
    const bool split = plan.group_size > hp.num_heads;
    notes.add_if(moe.capacity_factor.has_value(),
                 "plan {}: model.moe.capacity_factor has no effect: head_parallel drops no tokens",
                 plan.name);
    notes.add_if(moe.num_expert_groups > 1,
                 "plan {}: model.moe.num_expert_groups and top_groups have no effect: the routers "
                 "of heads have no groups",
                 plan.name);
    notes.add_if(!split && hp.dedup != HeadParallel{}.dedup,
                 "plan {}: head_parallel.dedup has no effect: no head spans ranks", plan.name);
    notes.add_if(split && plan.overlap_chunks > 1,
                 "plan {}: overlap_chunks has no effect: where heads span ranks nothing is chunked",
                 plan.name);
}

void note_recompute(const ModelSpec& model, const Plan& plan, Notes& notes) {
    const Recompute& r = plan.recompute;
    const bool shared = model.moe.num_shared_experts > 0, heads = plan.is_head_parallel();
    const auto add_if = [&](bool unused, RecomputeModule m, std::string_view because) {
        notes.add_if(unused && r.has(m),
                     "plan {}: recompute_modules {} (recompute) has no effect: {}", plan.name,
                     kRecomputeModuleNames[static_cast<std::size_t>(m)], because);
    };
    constexpr std::string_view no_hidden = "the fused experts of heads keep no hidden rows anyway";
    add_if(!model.attention.latent, RecomputeModule::mla_up_proj, "no latent attention");
    add_if(!model.has_dense_layers(), RecomputeModule::mlp, "no dense layers");
    add_if(!shared, RecomputeModule::shared_experts, "no shared experts");
    add_if(heads && !shared, RecomputeModule::moe_act, no_hidden);
    add_if(heads, RecomputeModule::experts, no_hidden);
    for (const RecomputeModule m :
         {RecomputeModule::moe_act, RecomputeModule::experts, RecomputeModule::shared_experts})
        add_if(r.has(RecomputeModule::moe), m, "moe computes it again");
}

// Modules of which no layer keeps a tensor on the GPU anyway.
void note_offload(const Scenario& s, const Plan& plan, Notes& notes) {
    if (plan.offload.modules == 0) return;
    OffloadModules moved = 0;
    const auto look = [&](const std::vector<SavedTensor>& tensors) {
        for (const SavedTensor& tensor : tensors)
            if (is_offloaded(tensor, plan, false)) moved |= tensor.by;
    };
    if (s.model.has_dense_layers()) look(saved_tensors(s, plan, nullptr));
    if (s.model.num_moe_layers() > 0) {
        const GroupLoad load = expected_load(s, plan, s.model.moe_layer(0));
        look(saved_tensors(s, plan, &load));
    }
    for (std::size_t m = 0; m < kOffloadModuleNames.size(); ++m) {
        const OffloadModules bit = 1u << m;
        notes.add_if((plan.offload.modules & ~moved & bit) != 0,
                     "plan {}: offload_modules {} has no effect: no layer keeps its input",
                     plan.name, kOffloadModuleNames[m]);
    }
}

void note_parallel(const Scenario& s, const Plan& plan, Notes& notes) {
    const Parallel &p = plan.parallel, usual;
    notes.add_if(
        p.tensor_model_parallel_size == 1 && p.sequence_parallel,
        "plan {}: parallel.sequence_parallel has no effect: tensor_model_parallel_size is 1",
        plan.name);
    const bool no_buffers = !s.model.attention.has_user_buffers();
    notes.add_if(p.tp_comm_overlap && (p.tensor_model_parallel_size == 1 || no_buffers),
                 "plan {}: parallel.tp_comm_overlap has no effect: {}", plan.name,
                 no_buffers ? "latent attention has no user buffers, and Megatron turns it off"
                            : "tensor_model_parallel_size is 1");
    notes.add_if(p.context_parallel_size == 1 && p.cp_comm_type != usual.cp_comm_type,
                 "plan {}: parallel.cp_comm_type has no effect: context_parallel_size is 1",
                 plan.name);
    const PipelineSchedule schedule = p.schedule();
    const bool combined = schedule == PipelineSchedule::combined_1f1b,
               groups = combined || schedule == PipelineSchedule::interleaved;
    notes.add_if(!p.has_pipeline() && p.pipeline_schedule && !combined,
                 "plan {}: parallel.pipeline_schedule has no effect: no pipeline", plan.name);
    notes.add_if(!p.has_pipeline() && !p.pipeline_model_parallel_layout.empty(),
                 "plan {}: parallel.pipeline_model_parallel_layout has no effect: no pipeline",
                 plan.name);
    notes.add_if(p.microbatch_group_size_per_vp_stage != 0 && !(p.has_pipeline() && groups),
                 "plan {}: parallel.microbatch_group_size_per_vp_stage has no effect: no "
                 "interleaved pipeline",
                 plan.name);
    notes.add_if(p.delay_wgrad_compute && !has_pairs(schedule),
                 "plan {}: parallel.delay_wgrad_compute has no effect: no pairs of a forward and a "
                 "backward",
                 plan.name);
    const Mesh mesh = mesh_of(s, plan);
    notes.add_if(shards_optimizer(plan) && s.cluster.num_ranks() > 1 && mesh.dp * mesh.cp == 1 &&
                     mesh.edp == 1,
                 "plan {}: zero1 (parallel.data_parallel_sharding_strategy) has no effect: no "
                 "data-parallel ranks",
                 plan.name);
}

void note_plan(const Scenario& s, const Plan& plan, Notes& notes) {
    if (const auto* ep = std::get_if<ExpertParallel>(&plan.layer))
        note_expert_parallel(s, plan, *ep, notes);
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer))
        note_head_parallel(s, plan, *hp, notes);
    note_recompute(s.model, plan, notes);
    note_offload(s, plan, notes);
    note_parallel(s, plan, notes);
    notes.add_if(
        plan.group_size == 1 && !expert_layout(s, plan).exchanges() && plan.overlap_chunks > 1,
        "plan {}: overlap_chunks has no effect: nothing is exchanged", plan.name);
    notes.add_if(
        !plan.gradient_accumulation_fusion && plan.implementation == Implementation::unfused,
        "plan {}: gradient_accumulation_fusion has no effect: the unfused implementation "
        "has passes of its own",
        plan.name);
    const bool megatron = plan.implementation == Implementation::megatron;
    notes.add_if(plan.use_transformer_engine_op_fuser && (!megatron || plan.is_head_parallel()),
                 "plan {}: use_transformer_engine_op_fuser has no effect: its experts are not "
                 "Megatron's",
                 plan.name);
    notes.add_if(
        s.model.moe.add_bias_linear && plan.is_head_parallel(),
        "plan {}: model.moe.add_bias_linear has no effect: experts of heads have no biases",
        plan.name);
    notes.add_if(s.model.moe.add_bias_linear && !plan.is_head_parallel() && !megatron,
                 "plan {}: the time of model.moe.add_bias_linear is priced under implementation: "
                 "megatron alone",
                 plan.name);
    const bool alone = s.cluster.num_ranks() == 1;
    notes.add_if(
        alone && shards_optimizer(plan),
        "plan {}: zero1 (parallel.data_parallel_sharding_strategy) has no effect: one rank",
        plan.name);
    notes.add_if(plan.overlap_param_gather &&
                     (alone || !gathers_once(plan.parallel.data_parallel_sharding_strategy)),
                 "plan {}: overlap_param_gather has no effect: no update gathers parameters",
                 plan.name);
    notes.add_if(alone && !plan.overlap_grad_all_reduce,
                 "plan {}: overlap_grad_all_reduce has no effect: one rank", plan.name);
}

}  // namespace

std::vector<std::string> unused_keys(const Scenario& scenario, const std::vector<Plan>& plans) {
    Notes notes;
    note_model(scenario, notes);
    note_routing(scenario, plans, notes);
    note_groups(scenario, plans, notes);
    note_links(scenario.cluster, notes);
    note_overrides(scenario.cluster, notes);
    for (const Plan& plan : plans) note_plan(scenario, plan, notes);
    return notes.take();
}

}  // namespace headway::inline cost

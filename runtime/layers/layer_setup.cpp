#include "runtime/layers/layer_setup.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <variant>

#include "models/vocab/error.hpp"
#include "models/vocab/jobs.hpp"
#include "models/workload/layout.hpp"
#include "runtime/host.hpp"

namespace headway::runtime {

namespace {

std::string numbers(const std::vector<int>& values) {
    return fmt::format("{} ranks", fmt::join(values, ", "));
}

void check_expert_parallel(const Plan& plan, const ExpertParallel& ep, int num_experts,
                           int island) {
    const int n = plan.group_size;
    std::vector<int> valid, whole_nodes;
    for (int size = 1; size <= num_experts; ++size) {
        if (num_experts % size == 0) valid.push_back(size);
    }
    if (num_experts % n != 0) {
        throw InputError(
            {.where = "plan " + plan.name,
             .found = fmt::format("{} experts do not spread evenly over {} ranks", num_experts, n),
             .accepted = numbers(valid)});
    }
    if (ep.dedup != Dedup::node || n <= island || n % island == 0) return;
    std::copy_if(valid.begin(), valid.end(), std::back_inserter(whole_nodes),
                 [&](int size) { return size <= island || size % island == 0; });
    throw InputError(
        {.where = "plan " + plan.name,
         .found = fmt::format("dedup: node, and {} ranks do not fill nodes of {}", n, island),
         .accepted = numbers(whole_nodes)});
}

}  // namespace

LayerSetup layer_setup(const Scenario& scenario, const Plan& plan) {
    const Moe& moe = scenario.model.moe;
    const ExpertLayout layout = expert_layout(scenario, plan);
    LayerSetup setup{.head_parallel = plan.is_head_parallel(), .num_ranks = plan.group_size};
    setup.router = layout.router;
    setup.dims = {.hidden = scenario.model.hidden,
                  .expert_width = layout.expert_width,
                  .shared_width = moe.num_shared_experts * moe.shared_expert_width,
                  .aux_free_bias = moe.aux_free_bias};
    SparseShape sparse{.num_experts = layout.router.num_experts,
                       .activation = moe.activation,
                       .dedup = layout.dedup,
                       .fused = setup.head_parallel};
    const RoutingRule rule{.top_k = layout.router.top_k, .capacity_factor = layout.capacity_factor};
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        setup.num_routers = hp->num_heads;
        setup.hp = {.num_heads = hp->num_heads,
                    .head_width = hp->head_width,
                    .tokens = std::vector<std::int64_t>(static_cast<std::size_t>(plan.group_size),
                                                        scenario.batch.tokens_per_rank()),
                    .sparse = sparse,
                    .routing = rule};
        check_ranks(setup.hp);
        return setup;
    }
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    if (ep == nullptr)
        throw InputError({.where = "plan " + plan.name,
                          .found = fmt::format("{}, which no rank executes", plan.layer_split()),
                          .accepted = "expert_parallel or head_parallel"});
    const int island = scenario.cluster.island_size();
    check_expert_parallel(plan, *ep, layout.router.num_experts, island);
    sparse.ranks_per_node = std::min(island, plan.group_size);
    setup.dims.latent_width = ep->latent_width.value_or(0);
    setup.ep = {.sparse = sparse, .routing = rule};
    return setup;
}

Scenario scenario_to_run(const Scenario& scenario, int num_ranks, std::int64_t tokens,
                         RunKind kind) {
    Scenario result = scenario;
    const bool as_planned =
        std::all_of(result.plans.begin(), result.plans.end(),
                    [&](const Plan& plan) { return plan.group_size == num_ranks; });
    if (tokens > 0) {
        result.batch.sequence_length = static_cast<int>(tokens);
        result.batch.sequences_per_rank = 1;
    }
    if (kind == RunKind::layers) {
        result.batch.num_micro_batches = 1;
        result.batch.global_batch_size.reset();
    }
    if (num_ranks > 0 && !as_planned) {
        Cluster& cluster = result.cluster;
        cluster.num_nodes = 1;
        cluster.gpus_per_node = num_ranks;
        cluster.fabric.reset();
        if (cluster.nvlink) cluster.nvlink->domain = num_ranks;
        for (Plan& plan : result.plans) plan.group_size = num_ranks;
    }
    for (Plan& plan : result.plans) {
        if (kind == RunKind::layers) plan.recompute = {};
        plan.overlap_chunks = 1;
        plan.parallel = {};
        if (plan.implementation != Implementation::headway)
            plan.implementation = Implementation::fused;
        auto* ep = std::get_if<ExpertParallel>(&plan.layer);
        if (ep == nullptr) continue;
        ep->hide_count_exchange = false;
        if (ep->dispatcher == TokenDispatcher::allgather)
            ep->dispatcher = TokenDispatcher::alltoall;
    }
    return result;
}

std::vector<std::string> settings_not_executed(const Plan& plan) {
    std::vector<std::string> settings;
    const auto set = [&](bool differs, std::string text) {
        if (differs) settings.push_back(std::move(text));
    };
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    set(plan.overlap_chunks > 1, fmt::format("overlap_chunks: {}", plan.overlap_chunks));
    set(ep != nullptr && ep->hide_count_exchange, "hide_count_exchange: true");
    set(ep != nullptr && ep->dispatcher == TokenDispatcher::allgather,
        "moe_token_dispatcher_type: allgather");
    set(plan.implementation == Implementation::unfused, "implementation: unfused");
    const Parallel& p = plan.parallel;
    set(shards_optimizer(plan), fmt::format("data_parallel_sharding_strategy: {}",
                                            kDataParallelShardingNames[static_cast<std::size_t>(
                                                p.data_parallel_sharding_strategy)]));
    const auto axis = [&](const char* key, int size) {
        set(size > 1, fmt::format("{}: {}", key, size));
    };
    axis("tensor_model_parallel_size", p.tensor_model_parallel_size);
    axis("context_parallel_size", p.context_parallel_size);
    axis("pipeline_model_parallel_size", p.pipeline_model_parallel_size);
    axis("expert_tensor_parallel_size", p.expert_tensor_parallel_size);
    set(plan.optimizer == Optimizer::adamw_8bit, "optimizer: adamw_8bit");
    const auto set_dtype = [&](const char* key, Dtype value) {
        set(value != Dtype::fp32,
            fmt::format("{}: {}", key, kDtypeNames[static_cast<std::size_t>(value)]));
    };
    set_dtype("main_grads_dtype", plan.main_grads_dtype);
    set_dtype("main_params_dtype", plan.main_params_dtype);
    set_dtype("exp_avg_dtype", plan.exp_avg_dtype);
    set_dtype("exp_avg_sq_dtype", plan.exp_avg_sq_dtype);
    set(plan.store_param_remainders, "store_param_remainders: true");
    set(plan.offload.optimizer_cpu_offload, "optimizer_cpu_offload: true");
    set(plan.offload.modules != 0, "fine_grained_activation_offloading: true");
    set(plan.offload.cpu_offloading_num_layers > 0,
        fmt::format("cpu_offloading_num_layers: {}", plan.offload.cpu_offloading_num_layers));
    set(plan.precision.recipe != Recipe::none,
        fmt::format("precision.recipe: {}",
                    kRecipeNames[static_cast<std::size_t>(plan.precision.recipe)]));
    return settings;
}

std::vector<std::string> not_executed(const Scenario& scenario) {
    std::vector<std::string> sentences;
    for (const Plan& plan : scenario.plans) {
        std::vector<std::string> settings = settings_not_executed(plan);
        if (plan.recompute != Recompute{})
            settings.insert(settings.begin(), "recompute: " + recompute_text(plan.recompute));
        if (const int micro_batches = num_micro_batches(scenario, plan); micro_batches > 1)
            settings.push_back(fmt::format("num_micro_batches: {}", micro_batches));
        if (settings.empty()) continue;
        sentences.push_back(fmt::format(
            "plan {}: {} is not executed: the MoE layers run alone, one micro-batch, phase after "
            "phase",
            plan.name, fmt::join(settings, ", ")));
    }
    return sentences;
}

std::vector<std::vector<Assignment>> layer_routing(const Scenario& scenario,
                                                   const LayerSetup& setup, int layer) {
    const auto num_ranks = static_cast<std::size_t>(setup.num_ranks);
    const auto num_draws = static_cast<std::size_t>(setup.num_routers) * num_ranks;
    std::vector<std::vector<Assignment>> routing(static_cast<std::size_t>(setup.num_routers),
                                                 std::vector<Assignment>(num_ranks));
    for_each_job(num_draws, num_cores(), [&](std::size_t i) {
        routing[i / num_ranks][i % num_ranks] =
            sample_assignment(scenario.routing, setup.router,
                              {.layer = layer,
                               .head = static_cast<int>(i / num_ranks),
                               .source_rank = static_cast<int>(i % num_ranks)},
                              scenario.batch.tokens_per_rank());
    });
    return routing;
}

}  // namespace headway::runtime

#include "models/workload/layout.hpp"

#include <algorithm>
#include <variant>

namespace headway::inline workload {
namespace {

ExpertLayout ep_layout(const Scenario& scenario, const Plan& plan, const ExpertParallel& ep) {
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

}  // namespace

double summed_element(const ModelSpec& model, const Plan& plan) {
    return bytes_per_element(
        plan.implementation == Implementation::megatron ? model.moe.router_dtype : model.dtype);
}

ExpertLayout expert_layout(const Scenario& scenario, const Plan& plan) {
    if (const auto* ep = std::get_if<ExpertParallel>(&plan.layer))
        return ep_layout(scenario, plan, *ep);
    const auto& hp = std::get<HeadParallel>(plan.layer);
    const int sharers = std::max(1, plan.group_size / hp.num_heads);
    return {.router = router_shape(hp),
            .group_size = sharers,
            // T N tokens times H / N heads: T H sub-tokens on every rank, for any N.
            .tokens_per_rank = static_cast<double>(rank_tokens(scenario, plan).own) * hp.num_heads,
            .routers_per_rank = std::max(1, hp.num_heads / plan.group_size),
            .num_heads = hp.num_heads,
            .width = hp.head_width,
            .expert_width = hp.expert_width,
            .dedup = hp.dedup,
            .capacity_factor = std::nullopt};
}

}  // namespace headway::inline workload

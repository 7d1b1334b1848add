#include "models/scenario/resolve.hpp"

#include "models/scenario/head_parallel_twin.hpp"

namespace headway::inline scenario {

void resolve(Cluster& cluster) {
    if (cluster.nvlink && cluster.nvlink->domain == 0) {
        cluster.nvlink->domain = cluster.gpus_per_node;
    }
}

void resolve(Scenario& scenario) {
    resolve(scenario.cluster);
    if (scenario.baseline.empty() && !scenario.plans.empty()) {
        scenario.baseline = scenario.plans.front().name;
    }
    for (Plan& plan : scenario.plans) {
        auto* hp = std::get_if<HeadParallel>(&plan.layer);
        if (!hp || hp->num_heads == 0) continue;
        const bool is_explicit =
            hp->head_width > 0 && hp->num_experts > 0 && hp->top_k > 0 && hp->expert_width > 0;
        if (is_explicit) continue;
        if (hp->head_width == 0 && scenario.model.hidden % hp->num_heads != 0) continue;
        *hp = head_parallel_twin(scenario.model, *hp);
        scenario.notes.push_back(describe_twin(scenario.model, *hp, plan.name));
    }
}

}  // namespace headway::inline scenario

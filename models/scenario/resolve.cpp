#include "models/scenario/resolve.hpp"

#include <cmath>

#include "models/scenario/head_parallel_twin.hpp"

namespace headway::inline scenario {
namespace {

// A table of counts with the number of the layer before each row: no model has so many experts.
void drop_layer_numbers(Scenario& scenario) {
    std::vector<std::vector<double>>& rows = scenario.routing.weights;
    const auto wide = static_cast<std::size_t>(scenario.model.moe.num_experts) + 1;
    if (rows.empty()) return;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const bool is_numbered = rows[i].size() == wide &&
                                 rows[i][0] == rows[0][0] + static_cast<double>(i) &&
                                 rows[i][0] == std::floor(rows[i][0]);
        if (!is_numbered || (rows.size() == 1 && rows[0][0] > 1.0)) return;
    }
    for (std::vector<double>& row : rows) row.erase(row.begin());
    scenario.notes.push_back(
        "routing.skew: the first column counts up by one beside a column for "
        "each expert: taken as the numbers of the layers");
}

}  // namespace

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
    drop_layer_numbers(scenario);
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

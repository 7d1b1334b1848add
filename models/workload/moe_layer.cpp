#include "models/workload/moe_layer.hpp"

namespace headway::inline workload {

ExpertLayout expert_layout(const Scenario& scenario, const Plan& plan) {
    return moe_layer_kind(plan).layout(scenario, plan);
}

double moe_flops_per_token(const Scenario& scenario, const Plan& plan) {
    const Moe& moe = scenario.model.moe;
    return 2.0 * matrices_per_expert(moe.activation) * scenario.model.hidden *
               moe.num_shared_experts * moe.shared_expert_width +
           moe_layer_kind(plan).flops_per_token(scenario.model, plan);
}

}  // namespace headway::inline workload

#include "models/report/step_order.hpp"

#include <array>

namespace headway::inline report {
namespace {

constexpr std::array kForwardOrder = {Phase::embed,
                                      Phase::norm,
                                      Phase::mtp_project,
                                      Phase::tp_all_gather,
                                      Phase::attention_qkv,
                                      Phase::cp_exchange,
                                      Phase::attention_core,
                                      Phase::attention_out,
                                      Phase::tp_reduce_scatter,
                                      Phase::tp_all_reduce,
                                      Phase::dense_mlp,
                                      Phase::latent_down,
                                      Phase::head_project,
                                      Phase::head_scatter,
                                      Phase::route,
                                      Phase::shared_expert,
                                      Phase::permute,
                                      Phase::count_exchange,
                                      Phase::dispatch,
                                      Phase::etp_all_gather,
                                      Phase::regroup,
                                      Phase::expert,
                                      Phase::ungroup,
                                      Phase::etp_reduce_scatter,
                                      Phase::combine,
                                      Phase::unpermute,
                                      Phase::latent_up,
                                      Phase::head_gather,
                                      Phase::head_merge,
                                      Phase::lm_head,
                                      Phase::loss,
                                      Phase::pipeline_stage,
                                      Phase::pipeline_weight,
                                      Phase::pipeline_p2p,
                                      Phase::pipeline_bubble,
                                      Phase::grad_all_reduce,
                                      Phase::expert_grad_all_reduce,
                                      Phase::offload,
                                      Phase::host_optimizer,
                                      Phase::optimizer,
                                      Phase::reload,
                                      Phase::param_all_gather};
static_assert(static_cast<int>(kForwardOrder.size()) == kNumPhases);

}  // namespace

std::vector<PhaseKey> step_order(const std::vector<PlanPrediction>& plans) {
    std::vector<PhaseKey> order;
    for (const Pass pass : {Pass::forward, Pass::backward, Pass::update}) {
        for (const Phase phase : kForwardOrder) {
            for (const PlanPrediction& plan : plans) {
                if (find_phase(plan, {pass, phase}) == nullptr) continue;
                order.emplace_back(pass, phase);
                break;
            }
        }
    }
    return order;
}

const PhaseCost* find_phase(const PlanPrediction& plan, PhaseKey key) {
    for (const PhaseCost& cost : plan.phases) {
        if (PhaseKey{cost.pass, cost.phase} == key) return &cost;
    }
    return nullptr;
}

}  // namespace headway::inline report

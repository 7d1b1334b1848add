#include "models/report/step_order.hpp"

namespace headway::inline report {
std::vector<PhaseKey> step_order(const std::vector<PlanPrediction>& plans) {
    std::vector<PhaseKey> order;
    for (const Pass pass : {Pass::forward, Pass::backward, Pass::update}) {
        for (const PhaseFacts& facts : kPhaseTable) {
            for (const PlanPrediction& plan : plans) {
                if (find_phase(plan, {pass, facts.phase}) == nullptr) continue;
                order.emplace_back(pass, facts.phase);
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

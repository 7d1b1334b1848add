#include "models/report/step_order.hpp"

#include <algorithm>

namespace headway {

std::vector<PhaseKey> step_order(const std::vector<PlanPrediction>& plans) {
    std::vector<PhaseKey> order;
    for (const PlanPrediction& plan : plans) {
        auto after = order.begin();  // where a new phase goes
        for (const PhaseCost& cost : plan.phases) {
            const PhaseKey key{cost.pass, cost.phase};
            const auto known = std::find(order.begin(), order.end(), key);
            after = std::next(known == order.end() ? order.insert(after, key) : known);
        }
    }
    // Passes follow each other in a step, whatever the plans' own order said.
    std::stable_sort(order.begin(), order.end(),
                     [](PhaseKey a, PhaseKey b) { return a.first < b.first; });
    return order;
}

const PhaseCost* find_phase(const PlanPrediction& plan, PhaseKey key) {
    for (const PhaseCost& cost : plan.phases) {
        if (PhaseKey{cost.pass, cost.phase} == key) return &cost;
    }
    return nullptr;
}

}  // namespace headway

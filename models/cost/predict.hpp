// predict: Scenario and Profile in, step time, phases, traffic and memory of every plan out.
// Deterministic for a seed, on any number of threads.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/prediction.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

struct PredictOptions {
    int samples =
        0;  // > 0: loads are counted from this many sampled routings instead of closed form
    bool strict = false;                  // a look-up outside a measured range is an InputError
    std::vector<std::string> only_plans;  // empty: all
    int threads = 1;                      // over plans and the loads of their layers
    bool timeline = true;                 // fill PlanPrediction::timeline
    bool software = true;                 // intervals hold how far other software lies
};

Prediction predict(const Scenario& scenario, const Profile& profile,
                   const PredictOptions& options = {});

// One plan; `speedup` is left at 1.
PlanPrediction predict_plan(const Scenario& scenario, const Plan& plan, const Profile& profile,
                            const PredictOptions& options = {});

// What was assumed, and what of the scenario no number depends on; each once. Of `plans`.
std::vector<std::string> notes_of(const Scenario& scenario, const std::vector<Plan>& plans,
                                  const Profile& profile);

// The two halves of it. Loads are a function of the layer, its group and the tokens of a
// micro-batch: plans that differ in recomputation, overlap or sharding alone share them.
std::vector<GroupLoad> plan_loads(const Scenario& scenario, const Plan& plan,
                                  const PredictOptions& options = {});
PlanPrediction predict_plan(const Scenario& scenario, const Plan& plan, const Profile& profile,
                            const PredictOptions& options, const std::vector<GroupLoad>& loads);

}  // namespace headway::inline cost

// The loads of several plans, drawn on several threads: every load is a function of (plan, layer,
// sample) alone, so the result does not depend on the order in which threads take them.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// Runs job(0) .. job(count - 1) on at most `threads` threads, the caller's among them. All jobs
// run; then what the lowest of those that threw had thrown reaches the caller.
void for_each_job(std::size_t count, int threads, const std::function<void(std::size_t)>& job);

// [plan][layer]; one load where the layers of a plan do not differ (layers_differ).
std::vector<std::vector<GroupLoad>> loads_of_plans(const Scenario& scenario,
                                                   const std::vector<Plan>& plans,
                                                   const PredictOptions& options);

}  // namespace headway::inline cost

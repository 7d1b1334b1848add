#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "models/scenario/check_scenario.hpp"

namespace headway::inline scenario {
namespace {

// Popularity of each expert: as many weights as experts, and at least k that are not zero.
void check_weights(const Scenario& scenario, const std::vector<double>& weights,
                   const std::string& where, const std::string& row,
                   std::vector<InputProblem>& problems) {
    const auto wanted = static_cast<std::size_t>(scenario.model.moe.num_experts);
    if (weights.size() != wanted) {
        problems.push_back({where, fmt::format("{} values{}", weights.size(), row),
                            fmt::format("{}, one per expert", wanted), ""});
        return;
    }
    const auto positive =
        std::count_if(weights.begin(), weights.end(), [](double w) { return w > 0; });
    if (positive < scenario.model.moe.top_k) {
        problems.push_back(
            {where, fmt::format("{} values above 0{}", positive, row),
             fmt::format("at least top_k = {}, since every token takes as many experts",
                         scenario.model.moe.top_k),
             ""});
    }
}

// A token takes an expert at most once: no expert has more than 1 / k of a trace's counts.
void check_shares(const Scenario& scenario, const std::vector<double>& counts,
                  const std::string& row, std::vector<InputProblem>& problems) {
    int top_k = scenario.model.moe.top_k;
    for (const Plan& plan : scenario.plans) {
        if (const auto* hp = std::get_if<HeadParallel>(&plan.layer))
            top_k = std::max(top_k, hp->top_k);
    }
    const double sum = std::accumulate(counts.begin(), counts.end(), 0.0);
    const double most = *std::max_element(counts.begin(), counts.end());
    if (most * top_k <= sum * (1.0 + 1e-9)) return;
    problems.push_back(
        {"routing.skew",
         fmt::format("an expert with {:.6g} of {:.6g} choices{}, which at top_k {} are of {:.6g} "
                     "tokens",
                     most, sum, row, top_k, sum / top_k),
         fmt::format("counts of at most 1/{} of their sum", top_k),
         "kind: histogram takes weights that were not recorded behind top-k"});
}

// Given weights are of the model's experts; a router with another number of them has no weights.
void check_heads(const Scenario& scenario, std::vector<InputProblem>& problems) {
    for (std::size_t i = 0; i < scenario.plans.size(); ++i) {
        const auto* hp = std::get_if<HeadParallel>(&scenario.plans[i].layer);
        if (!hp || hp->num_experts == 0 || hp->num_experts == scenario.model.moe.num_experts) {
            continue;
        }
        problems.push_back({fmt::format("plans[{}].head_parallel.num_experts", i),
                            fmt::format("{} experts a head with weights for {}", hp->num_experts,
                                        scenario.model.moe.num_experts),
                            fmt::format("num_experts {}, or a skew without weights",
                                        scenario.model.moe.num_experts),
                            ""});
    }
}

}  // namespace

std::vector<InputProblem> check_routing(const Scenario& scenario) {
    std::vector<InputProblem> problems;
    const Routing& routing = scenario.routing;
    const bool is_given = routing.skew == Skew::histogram || routing.skew == Skew::trace;
    if (routing.skew == Skew::power_law && routing.parameter == 1.0) {
        problems.push_back({"routing.skew.exponent", "a power law with exponent 1",
                            "any other exponent above 0, such as 1.01", ""});
    }
    const bool is_shaped = routing.skew == Skew::zipf || routing.skew == Skew::power_law ||
                           routing.skew == Skew::dirichlet;
    if (is_shaped && !(routing.parameter > 0.0)) {
        problems.push_back(
            {"routing.skew", "a skew without its exponent or concentration", "above 0", ""});
    }
    if (routing.skew == Skew::histogram && routing.weights.size() != 1) {
        problems.push_back({"routing.skew",
                            fmt::format("a histogram of {} rows", routing.weights.size()),
                            "one row of weights", "kind: trace takes a row per layer"});
        return problems;
    }
    if (routing.skew == Skew::trace && routing.weights.empty()) {
        problems.push_back({"routing.skew", "a trace without rows", "a row per layer", ""});
    }
    if (is_given) check_heads(scenario, problems);
    for (std::size_t i = 0; is_given && i < routing.weights.size() && problems.size() < 10; ++i) {
        const bool is_trace = routing.skew == Skew::trace;
        const std::string row = is_trace ? fmt::format(" in row {}", i + 1) : "";
        const std::size_t before = problems.size();
        check_weights(scenario, routing.weights[i], "routing.skew", row, problems);
        if (is_trace && problems.size() == before)
            check_shares(scenario, routing.weights[i], row, problems);
    }
    return problems;
}

}  // namespace headway::inline scenario

#include "models/cost/loads.hpp"

#include <algorithm>
#include <cmath>

#include "models/vocab/jobs.hpp"

namespace headway::inline cost {
namespace {

// Mean over sampled routings, field by field; the spread of the busiest rank's rows becomes its
// sigma.
GroupLoad mean_load(const std::vector<GroupLoad>& samples) {
    GroupLoad mean = samples.front();
    const double n = static_cast<double>(samples.size());
    const auto average = [&](auto field) {
        double sum = 0.0;
        for (const GroupLoad& s : samples) sum += field(s);
        return sum / n;
    };
    mean.rows_max = average([](const GroupLoad& s) { return s.rows_max; });
    mean.copies_sent = average([](const GroupLoad& s) { return s.copies_sent; });
    mean.copies_received = average([](const GroupLoad& s) { return s.copies_received; });
    mean.copies_forwarded = average([](const GroupLoad& s) { return s.copies_forwarded; });
    for (std::size_t c = 0; c < mean.copies_mean.size(); ++c) {
        mean.copies_mean[c] = average([c](const GroupLoad& s) { return s.copies_mean[c]; });
        mean.copies_max[c] = average([c](const GroupLoad& s) { return s.copies_max[c]; });
        mean.forward_mean[c] = average([c](const GroupLoad& s) { return s.forward_mean[c]; });
        mean.copies_on_curve[c] = average([c](const GroupLoad& s) { return s.copies_on_curve[c]; });
        mean.forward_on_curve[c] =
            average([c](const GroupLoad& s) { return s.forward_on_curve[c]; });
        mean.copies_links[c] = average([c](const GroupLoad& s) { return s.copies_links[c]; });
        mean.forward_links[c] = average([c](const GroupLoad& s) { return s.forward_links[c]; });
        mean.forward_max[c] = average([c](const GroupLoad& s) { return s.forward_max[c]; });
    }
    const double square = average([](const GroupLoad& s) { return s.rows_max * s.rows_max; });
    mean.rows_sigma = std::sqrt(std::max(0.0, square - mean.rows_max * mean.rows_max));
    return mean;
}

// One load to be found: of a layer under a plan, and of one of its samples.
struct LoadJob {
    std::size_t plan;
    int layer;
    int sample;
};

}  // namespace

std::vector<std::vector<GroupLoad>> loads_of_plans(const Scenario& scenario,
                                                   const std::vector<Plan>& plans,
                                                   const PredictOptions& options) {
    const int sparse = scenario.model.num_moe_layers();
    const int draws = std::max(1, options.samples);
    std::vector<LoadJob> jobs;
    for (std::size_t p = 0; p < plans.size(); ++p) {
        const int distinct = layers_differ(scenario, plans[p]) ? std::max(1, sparse) : 1;
        for (int i = 0; i < distinct * draws; ++i) jobs.push_back({p, i / draws, i % draws});
    }
    std::vector<GroupLoad> drawn(jobs.size());
    for_each_job(jobs.size(), options.threads, [&](std::size_t i) {
        const LoadJob& job = jobs[i];
        const int layer = scenario.model.moe_layer(job.layer);
        drawn[i] = options.samples > 0 ? sampled_load(scenario, plans[job.plan], layer, job.sample)
                                       : expected_load(scenario, plans[job.plan], layer);
    });
    std::vector<std::vector<GroupLoad>> loads(plans.size());
    for (std::size_t i = 0; i < jobs.size(); i += static_cast<std::size_t>(draws)) {
        const auto begin = drawn.begin() + static_cast<std::ptrdiff_t>(i);
        loads[jobs[i].plan].push_back(options.samples > 0 ? mean_load({begin, begin + draws})
                                                          : drawn[i]);
    }
    return loads;
}

std::vector<GroupLoad> plan_loads(const Scenario& scenario, const Plan& plan,
                                  const PredictOptions& options) {
    return loads_of_plans(scenario, {plan}, options).front();
}

}  // namespace headway::inline cost

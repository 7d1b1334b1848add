// Pipelined steps: what the simulator executes is what the prediction says, where nothing contends;
// and what contends.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/vocab/error.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

using enum PipelineSchedule;

struct Layout {
    PipelineSchedule schedule = one_f_one_b;
    int p = 4, v = 1, m = 8;
    std::string stages;  // of 16 layers; empty: evenly
    int group = 2;       // EP
    bool delay_wgrad = false;
    double nic = 1.0;  // times its bandwidth

    std::string text() const {
        return std::string(name(schedule)) + " p " + std::to_string(p) + " v " + std::to_string(v) +
               " m " + std::to_string(m) + " " + stages;
    }
};

// Two nodes of one GPU a stage, so that a message has two NICs to itself; experts drawn evenly.
Scenario scenario_of(const Layout& layout) {
    Scenario s = toy::scenario(2 * layout.p, 1);
    s.model.num_layers = 16;
    s.model.vocab_size = 4000;
    s.batch.num_micro_batches = layout.m;
    s.cluster.fabric->nic = layout.nic * s.cluster.fabric->nic;
    Plan plan = toy::ep(Dedup::none, layout.group);
    plan.parallel.pipeline_model_parallel_size = layout.p;
    plan.parallel.virtual_pipeline_model_parallel_size = layout.v;
    plan.parallel.pipeline_schedule = layout.schedule;
    plan.parallel.pipeline_model_parallel_layout = layout.stages;
    plan.parallel.delay_wgrad_compute = layout.delay_wgrad;
    s.plans = {plan};
    return s;
}

sim::SimulationResult simulated(const Scenario& s, sim::SimulateOptions options = {}) {
    return sim::simulate(build_program(s, s.plans[0], toy::profile()), sim::Topology(s.cluster),
                         options);
}

double difference(const Scenario& s) {
    const PlanPrediction predicted = predict_plan(s, s.plans[0], toy::profile(), {});
    return simulated(s).step / predicted.step - 1.0;
}

// p, v, m and uneven stages (embedding and head apart, a long first stage) of every order.
const std::vector<Layout>& layouts() {
    static const std::vector<Layout> all = {
        {gpipe, 4, 1, 8},
        {one_f_one_b, 2, 1, 4},
        {one_f_one_b, 4, 1, 8},
        {one_f_one_b, 8, 1, 16},
        {one_f_one_b, 4, 1, 5, "Et*6|t*4|t*4|ttL"},
        {one_f_one_b, 4, 1, 8, "E|t*8|t*8|L"},
        {interleaved, 4, 2, 8},
        {interleaved, 2, 4, 6},
        {interleaved, 4, 2, 8, "Et|ttt|tt|tt|tt|tt|tt|ttL"},
        {combined_1f1b, 4, 2, 8},
        {combined_1f1b, 2, 2, 4},
        {.schedule = combined_1f1b, .p = 4, .v = 2, .m = 8, .delay_wgrad = true},
        {zb_h1, 4, 1, 8},
        {zb_h2, 4, 1, 8},
        {zb_v, 4, 2, 8},
        {.schedule = dualpipe, .p = 4, .m = 8, .nic = 1000.0},  // see below
        {dualpipe_v, 4, 2, 8},
    };
    return all;
}

TEST(PipelineSimulation, TakesThePredictedTimeWhereNothingContends) {
    for (const Layout& layout : layouts())
        EXPECT_LT(std::abs(difference(scenario_of(layout))), 0.01) << layout.text();
}

}  // namespace
}  // namespace headway

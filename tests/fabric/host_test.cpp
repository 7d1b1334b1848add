// The same launches in the model and in the engine.
#include <gtest/gtest.h>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

Profile host_profile(Seconds launch) {
    Profile p = toy::profile();
    p.overheads.host_launch = launch;
    toy::set_own_host(p, 0.1 * launch, launch);
    return p;
}

// The engine runs the same launches: nothing contends, so that it ends when the model says.
TEST(Host, TheSimulatorLaunchesAsTheModelDoes) {
    for (const Implementation i :
         {Implementation::torch, Implementation::megatron, Implementation::headway}) {
        for (const double launch : {2.0, 20.0, 200.0}) {
            for (const Plan& plan : {toy::ep(Dedup::none, 8), toy::ep(Dedup::rank, 8),
                                     toy::hp(16, toy::scenario().model, 8)}) {
                Scenario s = toy::scenario();
                s.plans = {plan};
                s.plans[0].implementation = i;
                s.baseline = plan.name;
                s.batch.num_micro_batches = 3;
                const Profile p = host_profile(launch * us);
                const Seconds predicted = predict_plan(s, s.plans[0], p).step;
                const Program program = build_program(s, s.plans[0], p, {});
                const Seconds simulated = sim::simulate(program, sim::Topology(s.cluster), {}).step;
                EXPECT_NEAR(simulated / predicted, 1.0, 0.01) << launch << " us, " << plan.name;
            }
        }
    }
}

// A step that is one graph.
TEST(Host, TheSimulatorLaunchesAGraphAsTheModelDoes) {
    Scenario s = toy::scenario();
    s.plans = {toy::hp(16, toy::scenario().model, 8)};
    s.plans[0].implementation = Implementation::headway;
    s.plans[0].cuda_graph_scope = 1U << static_cast<unsigned>(GraphScope::full_iteration);
    s.baseline = s.plans[0].name;
    s.batch.num_micro_batches = 3;
    const Profile slow = host_profile(200.0 * us), quick = host_profile(ns);
    const auto simulated = [&](const Profile& p) {
        const Program program = build_program(s, s.plans[0], p, {});
        return sim::simulate(program, sim::Topology(s.cluster), {}).step;
    };
    EXPECT_NEAR(simulated(slow) / predict_plan(s, s.plans[0], slow).step, 1.0, 0.01);
    EXPECT_NEAR(simulated(slow) / simulated(quick), 1.0, 1e-3);
}

}  // namespace
}  // namespace headway

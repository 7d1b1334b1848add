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

}  // namespace
}  // namespace headway

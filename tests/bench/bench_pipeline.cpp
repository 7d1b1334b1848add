// Cost of a pipelined step in the simulator: DeepSeek-V3 on 2,048 GPUs of 256 DGX nodes, PP 16, EP
// 64 in each stage, the skewed router of scenarios/deepseek_v3_256.yaml.
//   usage: bench_pipeline [PLAN [MICRO_BATCHES [SCHEDULE [EPSILON]]]]   ep_node 120 1f1b 0.01
// prints a CSV row: the program's building, and its simulation, on one core.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/scenario/read_scenario.hpp"
#include "sim/simulate.hpp"

namespace {

using namespace headway;

rusage usage() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return u;
}

double cpu_seconds() {
    const rusage u = usage();
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string plan_name = argc > 1 ? argv[1] : "ep_node";
    Scenario s = read_scenario(std::string(HEADWAY_SOURCE_DIR) + "/scenarios/deepseek_v3_256.yaml");
    s.cluster.num_nodes = 256;
    s.batch.num_micro_batches = argc > 2 ? std::atoi(argv[2]) : 120;
    Plan plan = *std::ranges::find(s.plans, plan_name, &Plan::name);
    plan.group_size = 64;
    plan.recompute = RecomputeLevel::none;
    plan.parallel.pipeline_model_parallel_size = 16;
    plan.parallel.pipeline_model_parallel_layout = "Ettt|(tttt|)*14ttL";  // 61 layers
    const std::string schedule = argc > 3 ? argv[3] : "1f1b";
    for (std::size_t i = 0; i < kPipelineScheduleNames.size(); ++i)
        if (kPipelineScheduleNames[i] == schedule)
            plan.parallel.pipeline_schedule = static_cast<PipelineSchedule>(i);
    const double epsilon = argc > 4 ? std::atof(argv[4]) : 0.01;
    s.plans = {plan};
    const PlanPrediction predicted = predict_plan(s, plan, *s.profile, {});
    const double start = cpu_seconds();
    const Program program = build_program(s, plan, *s.profile, {.num_draws = 1});
    const double built = cpu_seconds();
    const sim::Topology topology(s.cluster, s.routing.seed);
    const sim::SimulationResult r =
        sim::simulate(program, topology, {.epsilon = epsilon, .timeline = false});
    fmt::print(
        "plan,schedule,micro_batches,epsilon,tasks,messages,instants,step_s,error_bound_s,"
        "predicted_s,build_cpu_s,simulate_cpu_s,peak_rss_bytes\n"
        "{},{},{},{},{},{},{},{:.6f},{:.6f},{:.6f},{:.2f},{:.2f},{}\n",
        plan_name, schedule, s.batch.num_micro_batches, epsilon, program.tasks.size(), r.messages,
        r.instants, r.step.in(second), r.error_bound.in(second), predicted.step.in(second),
        built - start, cpu_seconds() - built, usage().ru_maxrss * 1024L);
}

#include "cli/verify_job.hpp"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cli/job_arguments.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "cli/verdict.hpp"
#include "models/cost/predict.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/trace/attribution.hpp"
#include "models/trace/gpu_time.hpp"
#include "models/trace/gzip_file.hpp"
#include "models/trace/host_tree.hpp"
#include "models/trace/job_log.hpp"
#include "models/trace/log_check.hpp"
#include "models/trace/torch_trace.hpp"
#include "models/trace/trace_check.hpp"

namespace headway::cli {
namespace {

// With the plans that it is compared with: model FLOPs are the baseline's.
PlanPrediction predict_job(const Scenario& scenario, const Plan& plan) {
    Prediction prediction =
        predict(scenario, profile_of(scenario), {.only_plans = {plan.name}, .timeline = false});
    for (const std::string& warning : prediction.plans.front().warnings) warn(warning);
    return std::move(prediction.plans.front());
}

}  // namespace

int verify_log(const po::variables_map& values, double tolerance) {
    const std::string file = required(values, "megatron-log", "verify");
    const int warm_up = whole_number(values, "warmup", 0, 1 << 30);
    const Scenario scenario = load_scenario(values, "verify");
    const Plan& plan = plan_named(scenario, values, "verify");
    const auto stream = open_maybe_gzip(file, "the log of a training job");
    const JobLog log = read_job_log(*stream, file);
    const SteadyIterations steady = steady_iterations(log, warm_up);
    const ArgumentCheck arguments = check_arguments(scenario, plan, log, read_options(values));
    for (const std::string& difference : arguments.contradictions) warn(difference);
    const LogCheck check = check_log(predict_job(scenario, plan), log, steady);
    const bool passed = std::abs(check.step_error) <= tolerance;
    write_stdout(fmt::format("{}{}\nplan {}: step {}\n", check.table, arguments.summary, plan.name,
                             passed ? "within tolerance" : "BEYOND TOLERANCE"));
    return passed ? kDone : kNegative;
}

int verify_trace(const po::variables_map& values, double tolerance) {
    const Scenario scenario = load_scenario(values, "verify");
    const Plan& plan = plan_named(scenario, values, "verify");
    const Profile& profile = profile_of(scenario);
    const Seconds min_time = real_number(values, "min-time", 0.0, 1e12) * ms;
    const PlanPrediction prediction = predict_job(scenario, plan);
    std::vector<RankTrace> ranks;
    for (const std::string& file : values["torch-trace"].as<std::vector<std::string>>()) {
        const TorchTrace trace = read_torch_trace(file);
        const HostTree host(trace);
        const auto joined = attribute(trace, host, scenario.model, plan, prediction);
        ranks.push_back(rank_trace(trace, gpu_steps(trace, host, joined)));
    }
    const RankTrace& first = ranks.front();
    if (contradicts(profile.provenance.device, first.device)) {
        warn(fmt::format("profile {} is of {}, the trace is of {}", profile.name,
                         profile.provenance.device, first.device));
    }
    if (first.world_size == 0 && prediction.num_ranks > 1)
        warn(fmt::format("{} does not say of how many ranks its run was; {} are predicted",
                         first.file, prediction.num_ranks));
    TraceCheck check = check_trace(prediction, ranks);
    const Verdict verdict = judge(check.comparison, tolerance, min_time);
    write_stdout(check.text + verdict.text);
    if (const auto csv = optional_text(values, "csv")) {
        std::vector<Timeline> both = {std::move(check.predicted), std::move(check.measured)};
        for (Timeline& timeline : both) {
            timeline.scenario = scenario.name;
            timeline.profile = profile.name;
            timeline.version = version();
            timeline.seed = scenario.routing.seed;
        }
        write_result(timelines_to_csv(both), csv);
    }
    return verdict.passed ? kDone : kNegative;
}

}  // namespace headway::cli

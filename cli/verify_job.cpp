#include "cli/verify_job.hpp"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <string>

#include "cli/job_arguments.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/cost/predict.hpp"
#include "models/report/input_file.hpp"
#include "models/trace/job_log.hpp"
#include "models/trace/log_check.hpp"

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
    std::ifstream stream = open_input_file(file, "the log of a training job");
    const JobLog log = read_job_log(stream, file);
    const SteadyIterations steady = steady_iterations(log, warm_up);
    const ArgumentCheck arguments = check_arguments(scenario, plan, log, read_options(values));
    for (const std::string& difference : arguments.contradictions) warn(difference);
    const LogCheck check = check_log(predict_job(scenario, plan), log, steady);
    const bool passed = std::abs(check.step_error) <= tolerance;
    write_stdout(fmt::format("{}{}\nplan {}: step {}\n", check.table, arguments.summary, plan.name,
                             passed ? "within tolerance" : "BEYOND TOLERANCE"));
    return passed ? kDone : kNegative;
}

}  // namespace headway::cli

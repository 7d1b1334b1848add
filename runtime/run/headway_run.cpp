// headway-run: executes the MoE layers of a scenario's plans on real ranks, times every phase on
// every rank, and writes the measured Timeline in the schema of `headway predict`.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "models/report/matrix_file.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "runtime/layers/layer_setup.hpp"
#include "runtime/process/program.hpp"
#include "runtime/run/device_run.hpp"
#include "runtime/run/headway_run_options.hpp"
#include "runtime/run/headway_run_threads.hpp"
#include "runtime/step/measure_step.hpp"
#include "runtime/step/step_options.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

void write_timelines(std::vector<Timeline> timelines, const std::string& file) {
    for (Timeline& timeline : timelines) timeline.version = version();
    write_file_atomically(file, timelines_to_csv(timelines));
}

void write_steps(const std::vector<StepMeasurement>& steps, const StepRun& run,
                 const std::string& file) {
    std::vector<Timeline> timelines;
    for (const StepMeasurement& m : steps) timelines.push_back(m.timeline);
    write_timelines(std::move(timelines), file);
    if (!run.losses.empty()) write_file_atomically(run.losses, losses_csv(steps));
}

// The bytes between the ranks in one pass of a layer, a file for every exchange.
void write_matrices(const Measurement& m, const std::string& prefix) {
    if (prefix.empty()) return;
    for (const auto& [site, matrix] : m.traffic) {
        write_file_atomically(fmt::format("{}_{}_{}_{}.csv", prefix, m.timeline.plan,
                                          name(site.phase), name(site.pass)),
                              to_text(matrix, MatrixFormat::csv));
    }
}

// What must be the same on all ranks: the scenario's text and every option that shapes the run.
std::string configuration_of(const po::variables_map& values, const std::vector<Plan>& plans) {
    std::ifstream file(values["scenario"].as<std::string>());
    std::ostringstream text;
    text << file.rdbuf();
    for (const char* option : {"ranks", "tokens", "layers", "warmup", "repeats"})
        text << option << "=" << values[option].as<int>() << "\n";
    text << "exchange=" << values["exchange"].as<std::string>() << "\n";
    text << "timing=" << values["timing"].as<std::string>() << "\n";
    text << "forward-only=" << values.count("forward-only") << "\n";
    if (const auto steps = step_options(values))
        text << "steps=" << steps->num_steps << steps->forced << steps->check << " "
             << steps->learning_rate << " " << steps->data << "\n";
    for (const Plan& plan : plans) text << plan.name << "\n";
    return text.str();
}

// Once, from the first of the ranks that are processes.
void warn_of_settings(Scenario whole, const std::vector<Plan>& chosen,
                      const std::optional<RankIdentity>& identity) {
    if (identity && identity->rank != 0) return;
    std::erase_if(whole.plans, [&](const Plan& plan) {
        return std::none_of(chosen.begin(), chosen.end(),
                            [&](const Plan& c) { return c.name == plan.name; });
    });
    for (const std::string& sentence : not_executed(whole))
        std::fputs(("headway-run: warning: " + sentence + "\n").c_str(), stderr);
}

DeviceRun device_run(const po::variables_map& values, const Launch& launch,
                     const std::optional<RankIdentity>& identity, const Scenario& scenario,
                     const std::vector<Plan>& plans, const MeasureOptions& options) {
    const int num_ranks = plans.front().group_size;
    for (const Plan& plan : plans) {
        if (plan.group_size == num_ranks && (!identity || identity->size == num_ranks)) continue;
        throw InputError({.where = "plan " + plan.name,
                          .found = fmt::format("{} ranks, but {} run", plan.group_size,
                                               identity ? identity->size : num_ranks),
                          .hint = "--ranks N runs all plans on N ranks"});
    }
    DeviceRun run{.identity = identity,
                  .num_ranks = num_ranks,
                  .arguments = launch.arguments,
                  .environment = launch.environment,
                  .scenario = scenario,
                  .plans = plans,
                  .options = options,
                  .configuration = configuration_of(values, plans)};
    const double memory = values["device-memory"].as<double>();
    if (memory > 0.0) run.memory = memory * GiB;
    run.report = [prefix = values["matrices"].as<std::string>()](const Measurement& measurement) {
        print_summary(measurement);
        write_matrices(measurement, prefix);
    };
    run.steps = step_options(values);
    const std::string out = values.count("out") != 0 ? values["out"].as<std::string>() : "";
    run.finish = [out](const std::vector<Timeline>& timelines) { write_timelines(timelines, out); };
    run.finish_steps = [out, steps = run.steps](const std::vector<StepMeasurement>& all) {
        write_steps(all, *steps, out);
    };
    return run;
}

int run(const po::variables_map& values, const Launch& launch) {
    const auto steps = step_options(values);
    required(values, "scenario", "headway-run");
    if (!steps || !steps->check) required(values, "out", "headway-run");
    const bool gpus = on_gpus(values);
    auto identity = rank_identity(launch.environment, values["rendezvous"].as<std::string>());
    if (!gpus && identity && identity->size == 1) identity.reset();  // its ranks are threads
    const MeasureOptions options = measure_options(values, gpus || identity);
    const int asked = at_least(values, "ranks", 0);
    const int ranks = asked == 0 && identity ? identity->size : asked;
    const Scenario whole = read_scenario(values["scenario"].as<std::string>());
    const Scenario scenario = scenario_to_run(whole, ranks, at_least(values, "tokens", 0),
                                              steps ? RunKind::steps : RunKind::layers);
    const int num_moe_layers = scenario.model.num_moe_layers();
    if (options.num_layers > num_moe_layers) {
        throw InputError({.where = "--layers",
                          .found = std::to_string(options.num_layers),
                          .accepted = fmt::format("1 to {}", num_moe_layers)});
    }
    const std::vector<Plan> plans = chosen_plans(scenario, values);
    if (steps)
        check_steps(whole, plans, *steps);
    else
        warn_of_settings(whole, plans, identity);
    if (gpus) return run_on_devices(device_run(values, launch, identity, scenario, plans, options));
    if (steps) {
        if (identity)
            throw InputError(
                {.where = "--steps",
                 .found = "CPU ranks that are processes",
                 .accepted = "ranks that are threads, without a launcher, or --device cuda"});
        write_steps(
            steps_on_threads(scenario, plans, *steps, options, values["max-time"].as<double>()),
            *steps, values["out"].as<std::string>());
        return 0;
    }
    if (identity)
        return run_over_network(device_run(values, launch, identity, scenario, plans, options));
    std::vector<Timeline> timelines;
    for (Measurement& m :
         measure_on_threads(scenario, plans, options, values["max-time"].as<double>())) {
        write_matrices(m, values["matrices"].as<std::string>());
        timelines.push_back(std::move(m.timeline));
    }
    write_timelines(std::move(timelines), values["out"].as<std::string>());
    return 0;
}

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto options = declare_options();
    return run_program({.name = "headway-run",
                        .version = headway::version(),
                        .options = options,
                        .positional = {"scenario"},
                        .run = run},
                       argc, argv, environ);
}

// headway-run: executes the MoE layers of a scenario's plans on real ranks, times every phase on
// every rank, and writes the measured Timeline in the schema of `headway predict`.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "models/report/atomic_file.hpp"
#include "models/report/human.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/vocab/error.hpp"
#include "runtime/device_run.hpp"
#include "runtime/host.hpp"
#include "runtime/layer_setup.hpp"
#include "runtime/measure.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kUsage = R"(headway-run SCENARIO.yaml -o measured.csv [options]

Runs the MoE layers of the scenario, forward and backward, on real ranks and writes how long each
phase took on every rank: the same CSV as a prediction, to be compared by `headway verify`. One group
of the plan is run. With --device cpu ranks are threads; with --device cuda they are processes, one
per rank: started here (--ranks N), or this program is started by torchrun, mpirun or srun. Ranks
that share a GPU get MPS and an equal share of it.
Exit codes: 0 done, 2 bad input, 4 a rank failed or stalled (no file is written).

Options)";

// How this process was started.
struct Launch {
    Environment environment;
    std::vector<std::string> arguments;  // without the program's name
};

po::options_description declare_options() {
    po::options_description options{std::string(kUsage)};
    auto add = options.add_options();
    add("help,h", "this text");
    add("version", "version of the build");
    add("scenario", po::value<std::string>(), "scenario file");
    add("out,o", po::value<std::string>(), "measured Timeline CSV, written whole or not at all");
    add("device", po::value<std::string>()->default_value("cpu"), "cpu or cuda");
    add("rendezvous", po::value<std::string>()->default_value(""),
        "cuda: HOST:PORT of rank 0 (default: from the launcher)");
    add("device-memory", po::value<double>()->default_value(0.0),
        "cuda: GiB for each rank's layers (default: its share of 85 % of the GPU)");
    add("plan", po::value<std::vector<std::string>>(), "run this plan only; may be repeated");
    add("ranks", po::value<int>()->default_value(0), "ranks of the group (default: group_size)");
    add("tokens", po::value<int>()->default_value(0),
        "tokens per rank (default: the scenario's batch)");
    add("layers", po::value<int>()->default_value(1), "MoE layers to run, from the first");
    add("warmup", po::value<int>()->default_value(2), "repeats before timing");
    add("repeats", po::value<int>()->default_value(9), "timed repeats");
    add("forward-only", "no backward pass");
    add("deadline", po::value<double>()->default_value(60.0),
        "seconds after which a rank without progress is declared stalled");
    add("max-time", po::value<double>()->default_value(1800.0),
        "refuse runs estimated to take longer (seconds)");
    add("inject-fault", po::value<std::string>(),
        "KIND:RANK:PHASE with KIND throw or stall, with cuda also kill or stop, to see how a "
        "failing "
        "rank is reported");
    return options;
}

int at_least(const po::variables_map& values, const std::string& name, int minimum) {
    const int value = values[name].as<int>();
    if (value >= minimum) return value;
    throw InputError({.where = "--" + name,
                      .found = std::to_string(value),
                      .accepted = fmt::format("a whole number from {}", minimum)});
}

InjectedFault parse_fault(const std::string& text, bool processes) {
    using Kind = InjectedFault::Kind;
    const std::size_t first = text.find(':'), last = text.rfind(':');
    std::map<std::string, Kind> kinds{{"throw", Kind::throws}, {"stall", Kind::stalls}};
    if (processes) kinds.insert({{"kill", Kind::is_killed}, {"stop", Kind::is_stopped}});
    const auto kind = kinds.find(text.substr(0, first));
    const auto phase = phase_from_name(std::string_view(text).substr(last + 1));
    if (first == std::string::npos || first == last || kind == kinds.end() || !phase) {
        throw InputError({.where = "--inject-fault",
                          .found = "'" + text + "'",
                          .accepted = "KIND:RANK:PHASE, e.g. throw:1:expert or stall:0:dispatch"});
    }
    return {.kind = kind->second,
            .rank = std::atoi(text.substr(first + 1, last - first - 1).c_str()),
            .phase = *phase};
}

bool on_gpus(const po::variables_map& values) {
    const std::string device = values["device"].as<std::string>();
    if (device == "cpu" || device == "cuda") return device == "cuda";
    throw InputError({.where = "--device", .found = "'" + device + "'", .accepted = "cpu, cuda"});
}

void check_size(const Scenario& scenario, const Plan& plan, const MeasureOptions& options,
                double max_time) {
    const RunEstimate estimate = estimate_run(scenario, plan, options);
    const Bytes available = 0.7 * physical_memory();
    if (estimate.memory <= available && estimate.time.in(second) <= max_time) return;
    throw InputError(
        {.where = "plan " + plan.name,
         .found = fmt::format("too large for this CPU: about {} of memory ({} may be used) and {} "
                              "on {} cores (--max-time {} s)",
                              human(estimate.memory), human(available), human(estimate.time),
                              num_cores(), max_time),
         .hint = "fewer --tokens, --layers, --repeats or --ranks, or a smaller model"});
}

// Progress on a terminal only.
std::function<void(int, int)> progress_of(const std::string& plan) {
    if (isatty(STDERR_FILENO) == 0) return {};
    return [plan](int done, int total) {
        std::fputs(
            fmt::format("\r{}: {} / {} {}", plan, done, total, done == total ? "\n" : "").c_str(),
            stderr);
    };
}

// Busiest rank's median by phase, and the arrival skew of the exchanges.
void print_summary(const Measurement& m) {
    fmt::print("plan {} on {} ranks\n  {:<9} {:<16} {:>10} {:>10} {:>10} {:>12}\n", m.timeline.plan,
               m.timeline.spans.empty() ? 0 : m.timeline.spans.back().rank + 1, "pass", "phase",
               "median", "p10", "p90", "arrival skew");
    std::vector<const Span*> slowest;
    for (const Span& span : m.timeline.spans) {
        auto it = std::find_if(slowest.begin(), slowest.end(), [&](const Span* s) {
            return s->layer == span.layer && s->pass == span.pass && s->phase == span.phase;
        });
        if (it == slowest.end()) {
            slowest.push_back(&span);
        } else if ((*it)->duration < span.duration) {
            *it = &span;
        }
    }
    for (const Span* s : slowest) {
        std::string skew;
        for (const ArrivalSkew& a : m.skews) {
            if (a.layer == s->layer && a.site == CallSite{s->phase, s->pass}) skew = human(a.skew);
        }
        fmt::print("  {:<9} {:<16} {:>10} {:>10} {:>10} {:>12}\n", name(s->pass), name(s->phase),
                   human(s->duration), human(s->low), human(s->high), skew);
    }
}

std::vector<Plan> chosen_plans(const Scenario& scenario, const po::variables_map& values) {
    if (!values.count("plan")) return scenario.plans;
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    std::vector<Plan> plans;
    for (const std::string& wanted : values["plan"].as<std::vector<std::string>>()) {
        const auto it = std::find(names.begin(), names.end(), wanted);
        if (it == names.end()) {
            const std::string near = did_you_mean(wanted, names);
            throw InputError({.where = "--plan",
                              .found = "'" + wanted + "'",
                              .accepted = fmt::format("{}", fmt::join(names, ", ")),
                              .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
        }
        plans.push_back(scenario.plans[static_cast<std::size_t>(it - names.begin())]);
    }
    return plans;
}

MeasureOptions measure_options(const po::variables_map& values) {
    MeasureOptions options{.num_layers = at_least(values, "layers", 1),
                           .num_warmups = at_least(values, "warmup", 0),
                           .num_repeats = at_least(values, "repeats", 1),
                           .backward = values.count("forward-only") == 0};
    const double deadline = values["deadline"].as<double>();
    if (!(deadline > 0.0)) {
        throw InputError(
            {.where = "--deadline", .found = "not above 0", .accepted = "seconds above 0"});
    }
    options.threads.deadline = std::chrono::milliseconds(static_cast<long>(deadline * 1e3) + 1);
    if (values.count("inject-fault"))
        options.fault = parse_fault(values["inject-fault"].as<std::string>(), on_gpus(values));
    return options;
}

std::vector<Timeline> measure_on_threads(const Scenario& scenario, const std::vector<Plan>& plans,
                                         MeasureOptions options, double max_time) {
    for (const Plan& plan : plans) check_size(scenario, plan, options, max_time);
    keep_freed_memory();
    std::vector<Timeline> timelines;
    for (const Plan& plan : plans) {
        if (plan.group_size > num_cores()) {
            fmt::print(stderr,
                       "headway-run: warning: {} ranks on {} cores take turns; times are "
                       "not those of separate devices\n",
                       plan.group_size, num_cores());
        }
        options.progress = progress_of(plan.name);
        Measurement measurement = measure_plan(scenario, plan, options);
        print_summary(measurement);
        timelines.push_back(std::move(measurement.timeline));
    }
    return timelines;
}

void write_timelines(std::vector<Timeline> timelines, const std::string& file) {
    for (Timeline& timeline : timelines) timeline.version = version();
    write_file_atomically(file, timelines_to_csv(timelines));
}

// What must be the same on all ranks: the scenario's text and every option that shapes the run.
std::string configuration_of(const po::variables_map& values, const std::vector<Plan>& plans) {
    std::ifstream file(values["scenario"].as<std::string>());
    std::ostringstream text;
    text << file.rdbuf();
    for (const char* option : {"ranks", "tokens", "layers", "warmup", "repeats"})
        text << option << "=" << values[option].as<int>() << "\n";
    text << "forward-only=" << values.count("forward-only") << "\n";
    for (const Plan& plan : plans) text << plan.name << "\n";
    return text.str();
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
    if (memory > 0.0) run.memory = memory * 1073741824.0 * byte;
    run.report = [](const Measurement& measurement, Bytes peak) {
        print_summary(measurement);
        fmt::print("  memory at the peak, fullest rank: {}\n", human(peak));
    };
    run.finish = [out = values["out"].as<std::string>()](const std::vector<Timeline>& timelines) {
        write_timelines(timelines, out);
    };
    return run;
}

int run(const po::variables_map& values, const Launch& launch) {
    for (const char* needed : {"scenario", "out"}) {
        if (values.count(needed) == 0) {
            throw InputError({.where = "headway-run",
                              .found = fmt::format("no {}", needed),
                              .hint = "headway-run --help explains the options"});
        }
    }
    const bool gpus = on_gpus(values);
    const MeasureOptions options = measure_options(values);
    const auto identity =
        gpus ? rank_identity(launch.environment, values["rendezvous"].as<std::string>())
             : std::nullopt;
    const int asked = at_least(values, "ranks", 0);
    const int ranks = asked == 0 && identity ? identity->size : asked;
    const Scenario scenario = scenario_to_run(read_scenario(values["scenario"].as<std::string>()),
                                              ranks, at_least(values, "tokens", 0));
    const int num_moe_layers = scenario.model.num_layers - scenario.model.num_dense_layers;
    if (options.num_layers > num_moe_layers) {
        throw InputError({.where = "--layers",
                          .found = std::to_string(options.num_layers),
                          .accepted = fmt::format("1 to {}", num_moe_layers)});
    }
    const std::vector<Plan> plans = chosen_plans(scenario, values);
    if (gpus) return run_on_devices(device_run(values, launch, identity, scenario, plans, options));
    write_timelines(measure_on_threads(scenario, plans, options, values["max-time"].as<double>()),
                    values["out"].as<std::string>());
    return 0;
}

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto fail = [](const std::string& text, int code) {
        std::fputs(("headway-run: " + text + "\n").c_str(), stderr);
        return code;
    };
    try {
        const po::options_description options = declare_options();
        po::positional_options_description positional;
        positional.add("scenario", 1);
        po::variables_map values;
        po::store(
            po::command_line_parser(argc, argv)
                .options(options)
                .positional(positional)
                .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                .run(),
            values);
        po::notify(values);
        if (values.count("help")) {
            std::cout << options;
            return 0;
        }
        if (values.count("version")) {
            std::cout << "headway-run " << headway::version() << "\n";
            return 0;
        }
        Launch launch{.arguments = {argv + 1, argv + argc}};
        for (char** e = environ; *e != nullptr; ++e) {
            const std::string line(*e);
            const std::size_t equals = line.find('=');
            launch.environment[line.substr(0, equals)] = line.substr(equals + 1);
        }
        return run(values, launch);
    } catch (const po::error& error) {
        return fail(std::string("error: ") + error.what(), 2);
    } catch (const headway::InputError& error) {
        return fail(std::string("error: ") + error.what(), 2);
    } catch (const RankFailure& failure) {
        std::fflush(nullptr);
        fail(std::string("error: ") + failure.what(), kRankFailureExit);
        // A stalled rank still runs: end without destroying what it may use.
        std::_Exit(kRankFailureExit);
    } catch (const std::exception& error) {
        return fail(std::string("internal error (please report it): ") + error.what(), 3);
    }
}

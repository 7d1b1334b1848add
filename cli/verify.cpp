// headway verify: a prediction against a real run of the same layers, phase by phase.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/grid_samples.hpp"
#include "cli/measured_timelines.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "cli/verdict.hpp"
#include "cli/verify_job.hpp"
#include "cli/verify_lab.hpp"
#include "cli/verify_step.hpp"
#include "models/cost/moe_layer.hpp"
#include "models/cost/predict.hpp"
#include "models/report/compare.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"
#include "runtime/layers/layer_setup.hpp"
#include "runtime/layers/measure.hpp"

namespace headway::cli {
namespace {

CommandHelp verify_help() {
    return {.usage =
                "verify SCENARIO.yaml --profile P (--measured M.csv | --run | --grid G.csv |\n"
                "       --megatron-log LOG | --torch-trace T.json.gz) [options]\n"
                "       headway verify SCENARIO.yaml --lab --scale PART [--profile P] [options]",
            .about =
                "Predicts the MoE layers, or the whole steps, that a run executed, joins both by\n"
                "phase, and prints predicted, measured, signed error and whether the measurement\n"
                "lies in the predicted interval. Give the same --ranks and --tokens as to\n"
                "headway-run.\n"
                "With --megatron-log: the whole step against a job's log, its time, TFLOP/s and\n"
                "memory, and the scenario against the arguments at its head. With --torch-trace:\n"
                "each phase of a step against the kernels that a profiled job ran in it.\n"
                "With --lab: the exchanges of each plan, predicted, simulated and really sent on\n"
                "the scenario's cluster as headway-lab builds it on this machine, and the bytes\n"
                "of its links; with --profile, of this machine's ranks in the lab, layers too.\n"
                "Exit code 1: a step, a whole pass of a layer, or a phase of at least --min-time\n"
                "is off by more than the tolerance.",
            .examples =
                "  headway verify scenarios/cpu_small.yaml --profile cpu.yaml --measured m.csv\n"
                "  headway verify scenarios/cpu_small.yaml --profile cpu.yaml --run --tokens 768\n"
                "  headway verify scenarios/lab_two_leaves.yaml --lab --scale 1/400\n"
                "  headway verify job.yaml --profile h100_public --megatron-log job.log\n"
                "  headway verify job.yaml --torch-trace rank0.json.gz --torch-trace rank1.json.gz",
            .positional = {"scenario"}};
}

po::options_description verify_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    auto add = options.add_options();
    add("measured", po::value<std::vector<std::string>>()->value_name("CSV"),
        "Timeline of headway-run; repeated, of several runs: the median of each phase is judged");
    add("grid", po::value<std::vector<std::string>>()->value_name("CSV"),
        "samples of headway-grid: errors over all its layers (may be repeated)");
    add("megatron-log", po::value<std::string>()->value_name("LOG"),
        "log of Megatron-LM, Megatron-Bridge or NeMo");
    add("torch-trace", po::value<std::vector<std::string>>()->value_name("FILE"),
        "trace of PyTorch's profiler, .json or .json.gz; repeated, of several ranks of one run");
    add("plan", po::value<std::string>()->value_name("NAME"),
        "plan that the job ran (may be left out if the scenario has one)");
    add("warmup", po::value<int>()->default_value(5)->value_name("N"),
        "of a log: iterations at the begin of a run that do not count");
    add("run", po::bool_switch(), "run the layers now, on thread ranks of this machine");
    add("lab", po::bool_switch(),
        "run exchanges now, with --profile layers too, on the cluster as headway-lab builds it");
    add("scale", po::value<std::string>()->value_name("PART"),
        "of --lab: every bandwidth times this, a fraction or a number: 1/400, 0.025");
    add("ranks", po::value<int>()->default_value(0)->value_name("N"), "ranks of the run's group");
    add("tokens", po::value<int>()->default_value(0)->value_name("N"), "tokens per rank");
    add("repeats", po::value<int>()->default_value(9)->value_name("N"),
        "timed repeats of --run or --lab");
    add("tolerance", po::value<double>()->default_value(25.0)->value_name("PERCENT"),
        "largest error");
    add("min-time", po::value<double>()->default_value(1.0)->value_name("MS"),
        "only phases that took at least this long can fail");
    add("csv", po::value<std::string>()->value_name("FILE"),
        "also write both timelines, for headway plot; of --lab a row an exchange and layer");
    add("help,h", "this text");
    return options;
}

// What is compared with: one source, and no option that this source ignores.
void check_sources(const po::variables_map& values) {
    const bool run = values["run"].as<bool>(), lab = values["lab"].as<bool>(),
               log = values.count("megatron-log") != 0, trace = values.count("torch-trace") != 0,
               layers = run || values.count("measured") != 0;
    std::vector<std::string> sources;
    for (const char* source : {"measured", "grid", "megatron-log", "torch-trace"}) {
        if (values.count(source) != 0) sources.push_back(std::string("--") + source);
    }
    if (run) sources.emplace_back("--run");
    if (lab) sources.emplace_back("--lab");
    if (sources.empty()) {
        throw InputError({.where = "headway verify",
                          .found = "nothing to compare with",
                          .accepted = "--measured CSV, --run, --lab, --grid CSV, --megatron-log "
                                      "LOG or --torch-trace FILE"});
    }
    if (sources.size() > 1) refuse_both(sources[1], true, sources[0]);
    check_uses(values, {{"repeats", run || lab, "--run or --lab"},
                        {"scale", lab, "--lab"},
                        {"ranks", layers, "--measured or --run"},
                        {"tokens", layers || lab, "--measured, --run or --lab"},
                        {"min-time", layers || trace, "--measured, --run or --torch-trace"},
                        {"plan", log || trace, "--megatron-log or --torch-trace"},
                        {"warmup", log, "--megatron-log"},
                        {"csv", !log, "--measured, --run, --lab, --grid or --torch-trace"}});
}

std::vector<Timeline> measured_timelines(const po::variables_map& values,
                                         const Scenario& scenario) {
    if (!values["run"].as<bool>())
        return read_measured(values["measured"].as<std::vector<std::string>>(), scenario);
    runtime::prepare_timed_memory();
    std::vector<Timeline> timelines;
    for (const Plan& plan : scenario.plans) {
        timelines.push_back(
            runtime::measure_plan(scenario, plan,
                                  {.num_repeats = whole_number(values, "repeats", 1, 100000)})
                .timeline);
    }
    return timelines;
}

int num_layers(const Timeline& timeline) {
    std::set<int> layers;
    for (const Span& span : timeline.spans) layers.insert(span.layer);
    return static_cast<int>(layers.size());
}

// Runs of the same plan together, plans in order of appearance.
std::vector<std::vector<Timeline>> by_plan(std::vector<Timeline> timelines) {
    std::vector<std::vector<Timeline>> result;
    for (Timeline& t : timelines) {
        auto it = std::find_if(result.begin(), result.end(),
                               [&](const auto& runs) { return runs.front().plan == t.plan; });
        if (it == result.end()) it = result.insert(result.end(), std::vector<Timeline>{});
        it->push_back(std::move(t));
    }
    return result;
}

// The run whose spans sum up to the median of all runs.
std::size_t median_run(const std::vector<Timeline>& runs) {
    std::vector<std::pair<Seconds, std::size_t>> totals;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        Seconds total;
        for (const Span& span : runs[i].spans) total += span.duration;
        totals.emplace_back(total, i);
    }
    std::sort(totals.begin(), totals.end());
    return totals[(totals.size() - 1) / 2].second;
}

// The allocator's peak of a run on GPUs beside its prediction; empty where it is not known.
std::string memory_line(const Scenario& scenario, const Plan& plan, const Timeline& measured) {
    if (!measured.run || measured.run->memory_peak <= 0.0 * byte) return "";
    const Bytes predicted = moe_layer_memory(scenario, plan, scenario.model.moe_layer(0));
    return fmt::format("memory at the peak, fullest rank: predicted {}, measured {}, {:+.1f} %\n",
                       human(predicted), human(measured.run->memory_peak),
                       100.0 * (predicted / measured.run->memory_peak - 1.0));
}

double tolerance_of(const po::variables_map& values) {
    return real_number(values, "tolerance", 0.0, 1e12) / 100.0;
}

// Exit code as for --measured: a layer beyond the tolerance.
int verify_grid(const po::variables_map& values) {
    const Scenario scenario = load_scenario(values, "verify");
    std::vector<runtime::GridSample> samples;
    for (const std::string& file : values["grid"].as<std::vector<std::string>>()) {
        for (auto& s : runtime::read_grid_samples(file)) samples.push_back(std::move(s));
    }
    const std::vector<JudgedLayer> layers = judge_grid(scenario, profile_of(scenario), samples);
    write_stdout(judged_table(layers));
    if (const auto csv = optional_text(values, "csv")) write_result(judged_csv(layers), csv);
    const double tolerance = tolerance_of(values);
    const bool passed = std::all_of(layers.begin(), layers.end(), [&](const JudgedLayer& l) {
        return std::abs(l.predicted / l.measured - 1.0) <= tolerance;
    });
    return passed ? kDone : kNegative;
}

}  // namespace

int run_verify(Args args) {
    const auto values = parse_options(args, verify_help(), verify_options());
    if (!values) return kDone;
    check_sources(*values);
    if (values->count("grid") != 0) return verify_grid(*values);
    if ((*values)["lab"].as<bool>()) return verify_lab(*values, tolerance_of(*values));
    if (values->count("torch-trace") != 0) return verify_trace(*values, tolerance_of(*values));
    if (values->count("megatron-log") != 0) return verify_log(*values, tolerance_of(*values));
    const Scenario whole = load_scenario(*values, "verify");
    const auto cut = [&](runtime::RunKind kind) {
        return runtime::scenario_to_run(whole, whole_number(*values, "ranks", 0, 1 << 20),
                                        whole_number(*values, "tokens", 0, 1 << 30), kind);
    };
    const Scenario layers = cut(runtime::RunKind::layers), steps = cut(runtime::RunKind::steps);
    const Profile& profile = profile_of(layers);
    const double tolerance = tolerance_of(*values);
    const Seconds min_time = real_number(*values, "min-time", 0.0, 1e12) * ms;
    std::vector<Timeline> both;
    std::string text;
    bool passed = true, warned = false;
    for (std::vector<Timeline>& runs : by_plan(measured_timelines(*values, layers))) {
        const Timeline& measured = runs.front();
        const bool of_steps = are_of_steps(runs);
        const Scenario& scenario = of_steps ? steps : layers;
        if (contradicts(profile.provenance.device, measured.profile)) {
            warn(fmt::format("profile {} is of {}, the run was on {}", profile.name,
                             profile.provenance.device, measured.profile));
        }
        if (!of_steps && !std::exchange(warned, true))
            for (const std::string& sentence : runtime::not_executed(whole)) warn(sentence);
        const Plan& plan = plan_of(scenario, measured);
        std::optional<Verdict> step;
        Timeline predicted;
        if (of_steps) {
            check_micro_batches(scenario, plan, runs);
            PlanPrediction prediction = predict_plan(scenario, plan, profile);
            for (const std::string& warning : prediction.warnings) warn(warning);
            step = judge_step(prediction, runs, tolerance);
            predicted = std::move(prediction.timeline);
        } else {
            MoePrediction prediction =
                predict_moe_layers(scenario, plan, profile, num_layers(measured));
            for (const std::string& warning : prediction.warnings) warn(warning);
            predicted = std::move(prediction.timeline);
        }
        const Comparison comparison = compare(predicted, runs);
        if (comparison.phases.empty()) {
            throw InputError({.where = "plan " + plan.name,
                              .found = "no phase that is both predicted and measured",
                              .accepted = "a run of the plan's MoE layers"});
        }
        const Verdict verdict = judge(comparison, tolerance, min_time);
        text += to_table(comparison) + (step ? step->text : memory_line(scenario, plan, measured)) +
                verdict.text + "\n";
        passed = passed && verdict.passed && (!step || step->passed);
        Timeline middle = runs[median_run(runs)];
        middle.profile = predicted.profile;
        middle.version = predicted.version = version();
        middle.scenario = predicted.scenario;
        middle.seed = predicted.seed;
        both.push_back(std::move(predicted));
        both.push_back(std::move(middle));
    }
    write_stdout(text);
    if (const auto csv = optional_text(*values, "csv")) write_result(timelines_to_csv(both), csv);
    return passed ? kDone : kNegative;
}

}  // namespace headway::cli

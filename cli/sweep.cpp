// headway sweep: a scenario and axes in; a row of results for every point and plan out.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "cli/shard.hpp"
#include "models/cost/program.hpp"
#include "models/report/version.hpp"
#include "models/sweep/run_sweep.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"
#include "sim/simulate.hpp"

namespace headway::cli {
namespace {

using Strings = std::vector<std::string>;

CommandHelp sweep_help() {
    return {
        .usage = "sweep SCENARIO.yaml --axis PATH=VALUES [--axis ...] [options]",
        .about =
            "Predicts every plan at every combination of values: a CSV file with a row a point\n"
            "and plan (docs/reference/results_format.md). PATH is any key of the scenario, or a\n"
            "derived axis that keeps something equal (docs/reference/sweep.md); VALUES are\n"
            "1,2,4 or FIRST..LAST:STEP or FIRST..LAST:*FACTOR, with units where the key has one. "
            "Axes can stand in the\n"
            "scenario as a block `sweep:` too; --axis of the same key replaces one. An invalid\n"
            "point is a row with its reason. Rows are written as they come: a run that was\n"
            "killed goes on where it ended when the same command is given again. Under srun, in\n"
            "a Slurm job array and under mpirun every process computes its share into a file of\n"
            "its own; headway merge joins them.",
        .examples =
            "  headway sweep scenarios/paper_4gpu.yaml --axis model.moe.top_k=1..16:*2 -o k.csv\n"
            "  headway sweep scenarios/paper_ethernet_64gpu.yaml --axis "
            "'cluster.fabric.nic=100..400:100 "
            "Gbps' --axis routing.skew=0..1.5:0.25 -o nic.csv\n"
            "  headway sweep scenarios/paper_4gpu.yaml --axis "
            "equal_parameters.granularity=0.5,1,2,4",
        .positional = {"scenario"}};
}

po::options_description sweep_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    auto add = options.add_options();
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    add("axis", po::value<Strings>()->value_name("PATH=VALUES"),
        "a key and its values (may be repeated; the last one changes fastest)");
    add("out,o", text("FILE"),
        "results; if the file exists, the sweep it belongs to is continued. Default: standard "
        "output");
    add("simulate", po::bool_switch(),
        "execute every step on the cluster's links instead of predicting it");
    add("epsilon", po::value<double>()->default_value(1e-2)->value_name("E"),
        "of --simulate: messages that end within E of their time count as ending together");
    add("samples", po::value<int>()->default_value(0)->value_name("N"),
        "count loads from N sampled routings instead of the closed form");
    add("shard", text("I/N"), "only share I (0 to N-1) of N; by default what the launcher says");
    add("restart", po::bool_switch(), "overwrite an existing file instead of continuing it");
    add("threads", po::value<int>()->default_value(0)->value_name("N"),
        "0: all cores. The result does not depend on it");
    add("launcher-shard", text("I/N,LAUNCHER"),
        "given by headway itself from the variables of srun, a job array or mpirun");
    add("help,h", "this text");
    return options;
}

SweepAxis axis_of(const std::string& word) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
        throw InputError({.where = "--axis",
                          .found = "'" + word + "'",
                          .accepted = "PATH=VALUES, such as model.moe.top_k=1,2,4"});
    }
    return {word.substr(0, equals), {word.substr(equals + 1)}};
}

// The axes of the file, those of the command line in place of equal ones or behind them.
std::vector<SweepAxis> all_axes(const po::variables_map& values, const Scenario& open) {
    std::vector<SweepAxis> axes = open.sweep;
    if (values.count("axis") > 0) {
        for (const std::string& word : values["axis"].as<Strings>()) {
            SweepAxis axis = axis_of(word);
            bool is_new = true;
            for (SweepAxis& old : axes) {
                if (old.key != axis.key) continue;
                old = axis;
                is_new = false;
            }
            if (is_new) axes.push_back(std::move(axis));
        }
    }
    if (!axes.empty()) return axes;
    throw InputError({.where = "headway sweep",
                      .found = "no axis",
                      .accepted = "--axis PATH=VALUES, or a block 'sweep:' in the scenario",
                      .hint = "headway predict answers for one point"});
}

Sweep make_sweep(const po::variables_map& values) {
    Sweep sweep{.base = load_open_scenario(values, "sweep"), .axes = {}};
    print_unused_keys(sweep.base);
    const ReadOptions options = read_options(values);
    bool has_profile = sweep.base.profile.has_value();
    for (const SweepAxis& axis : all_axes(values, sweep.base)) {
        try {
            sweep.axes.push_back(make_axis(sweep.base, axis, options));
        } catch (const InputError& error) {
            std::vector<InputProblem> problems = error.problems();
            for (InputProblem& p : problems) {
                if (p.where.empty()) p.where = "axis " + axis.key;
            }
            throw InputError(std::move(problems));
        }
        has_profile = has_profile || axis.key == "profile";
    }
    if (!has_profile) profile_of(sweep.base);
    return sweep;
}

SimulatedStep simulated_step(const Scenario& scenario, const Plan& plan, double epsilon) {
    const Program program = build_program(scenario, plan, *scenario.profile, {.num_draws = 1});
    const sim::Topology topology(scenario.cluster, scenario.routing.seed);
    const sim::SimulationResult result =
        sim::simulate(program, topology, {.epsilon = epsilon, .timeline = false});
    return {.step = result.step,
            .error_bound = result.error_bound,
            .cannot_run =
                result.unreachable ? sim::DeadPath(*result.unreachable).what() : std::string()};
}

RowOptions row_options(const po::variables_map& values) {
    RowOptions options{.samples = whole_number(values, "samples", 0, 1'000'000), .simulator = {}};
    const double epsilon = values["epsilon"].as<double>();
    if (!(epsilon >= 0.0 && epsilon <= 1.0)) {
        throw InputError({.where = "--epsilon",
                          .found = fmt::format("{}", epsilon),
                          .accepted = "a number from 0 (exact) to 1"});
    }
    if (values["simulate"].as<bool>()) {
        options.simulator = [epsilon](const Scenario& scenario, const Plan& plan) {
            return simulated_step(scenario, plan, epsilon);
        };
    }
    return options;
}

// Processes of one launch get the same words, so each writes beside the named file:
// results.csv -> results.0of4.csv.
std::filesystem::path shard_path(const std::filesystem::path& out, const Shard& shard) {
    std::filesystem::path path = out;
    return path.replace_filename(fmt::format("{}.{}of{}{}", out.stem().string(), shard.index,
                                             shard.count, out.extension().string()));
}

struct Share {
    Shard shard;
    std::string launcher;  // empty: given by hand, or one process alone
};

Share share_of(const po::variables_map& values) {
    const auto by_hand = optional_text(values, "shard");
    if (by_hand) return {parse_shard(*by_hand, "--shard"), ""};
    const auto launched = optional_text(values, "launcher-shard");
    if (!launched) return {};
    const std::size_t comma = launched->find(',');
    const std::string launcher =
        comma == std::string::npos ? "the launcher" : launched->substr(comma + 1);
    return {parse_shard(launched->substr(0, comma), "--launcher-shard"), launcher};
}

void sweep_to_file(const Sweep& sweep, const RowOptions& rows, const SweepHead& head, int threads,
                   const std::filesystem::path& path, Existing existing) {
    SweepFile file(path, head, sweep, existing);
    if (file.is_complete()) return;
    const std::size_t total = points_of(head.shard, head.num_points);
    Progress progress("sweep");
    progress.update(file.num_done(), total);
    headway::run_sweep(sweep, rows,
                       {.threads = threads, .shard = head.shard, .begin = file.num_done()},
                       [&](std::string_view text, std::size_t num_done) {
                           file.append(text);
                           progress.update(num_done, total);
                       });
    file.finish();
}

void sweep_to_stdout(const Sweep& sweep, const RowOptions& rows, const SweepHead& head,
                     int threads) {
    write_stdout(head.text());
    const std::size_t total = points_of(head.shard, head.num_points);
    Progress progress("sweep");
    headway::run_sweep(sweep, rows, {.threads = threads, .shard = head.shard},
                       [&](std::string_view text, std::size_t num_done) {
                           write_stdout(text);
                           progress.update(num_done, total);
                       });
    write_stdout(end_mark(total * head.num_plans));
}

}  // namespace

int run_sweep(Args args) {
    const auto values = parse_options(args, sweep_help(), sweep_options());
    if (!values) return kDone;
    const Sweep sweep = make_sweep(*values);
    const RowOptions rows = row_options(*values);
    const Share share = share_of(*values);
    const int threads = whole_number(*values, "threads", 0, 1024);
    const int used_threads = threads > 0 ? threads : runtime::num_cores();
    const SweepHead head = make_head(sweep, rows, version(), share.shard);
    const auto out = optional_text(*values, "out");
    if (!out || *out == "-") {
        sweep_to_stdout(sweep, rows, head, used_threads);
        return kDone;
    }
    std::filesystem::path path(*out);
    if (!share.launcher.empty()) {
        path = shard_path(path, share.shard);
        std::fputs(fmt::format("headway: share {} of {} ({}) goes to {}\n", share.shard.index,
                               share.shard.count, share.launcher, path.string())
                       .c_str(),
                   stderr);
    }
    sweep_to_file(sweep, rows, head, used_threads, path,
                  (*values)["restart"].as<bool>() ? Existing::replace : Existing::resume);
    return kDone;
}

}  // namespace headway::cli

#include "cli/program_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "cli/verbs.hpp"
#include "models/recorded/head_parallel.hpp"
#include "models/recorded/program_file.hpp"
#include "models/recorded/recorded_report.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "sim/simulate.hpp"
#include "sim/topology.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

Cluster load_cluster(const std::string& file_or_preset, const ReadOptions& options) {
    std::error_code ignored;
    const fs::path path(file_or_preset);
    const bool is_name = !path.has_parent_path() && !path.has_extension();
    if (is_name && !fs::exists(path, ignored))
        return read_cluster(find_preset("clusters", file_or_preset, options), options);
    return read_cluster(path, options);
}

// The end of `steps` steps in a row.
sim::SimulationResult simulate_steps(const Program& step, int steps,
                                     const sim::Topology& topology) {
    Program program = step;
    program.tasks.clear();
    const int size = static_cast<int>(step.tasks.size());
    for (int i = 0; i < steps; ++i) {
        for (Task task : step.tasks) {
            for (int& before : task.after) before += i * size;
            program.tasks.push_back(std::move(task));
        }
    }
    return sim::simulate(program, topology, {.epsilon = 1e-2, .timeline = false});
}

}  // namespace

void add_program_options(po::options_description& options) {
    auto add = options.add_options();
    add("program", po::value<std::string>()->value_name("FILE"),
        "instead of a scenario: a program of headway import --torch-trace");
    add("cluster", po::value<std::string>()->value_name("FILE|NAME"),
        "of a program: where it runs");
    add("routing", po::value<std::string>()->value_name("FILE"),
        "of a program: draw its routers' choices by this file's routing:, as of a scenario");
    add("head-parallel", po::value<int>()->value_name("H"),
        "of a program: replace its MoE layers by Head Parallel's with H heads");
}

bool has_program(const po::variables_map& values, const std::vector<std::string>& taken) {
    const bool given = values.count("program") != 0;
    std::vector<OptionUse> uses = {{"cluster", given, "--program"},
                                   {"routing", given, "--program"},
                                   {"head-parallel", given, "--program"},
                                   {"task", given, "--program"}};
    std::vector<std::string> names;
    for (const auto& [name, value] : values) names.push_back(name);
    const std::vector<std::string> own = {"program", "cluster", "profile",      "presets",
                                          "routing", "out",     "head-parallel"};
    for (const std::string& name : names) {
        const bool used = std::ranges::find(own, name) != own.end() ||
                          std::ranges::find(taken, name) != taken.end();
        if (given && !used) uses.push_back({name.c_str(), false, "a scenario, without --program"});
    }
    check_uses(values, uses);
    return given;
}

ProgramInput load_program(const po::variables_map& values, std::string_view verb) {
    const ReadOptions options = read_options(values);
    const Recording recording = read_program(values["program"].as<std::string>());
    Cluster cluster = load_cluster(required(values, "cluster", verb), options);
    Profile profile = load_profile(required(values, "profile", verb), options);
    std::optional<Routing> routing;
    if (const auto file = optional_text(values, "routing")) {
        const RecordedRouter router = recording.router.value_or(RecordedRouter{});
        routing = read_routing(*file, {.num_experts = router.experts, .top_k = router.top_k});
    }
    const auto laid = [&] { return lay_out(recording, cluster, profile, routing); };
    if (values.count("head-parallel") == 0) {
        LaidOut as_it_is = laid();
        return {std::move(cluster), std::move(profile), std::move(as_it_is), {}};
    }
    // Only the job as recorded, which predict tells beside its twin, has a routing.
    const bool compares = verb == "predict";
    if (routing && !compares)
        throw InputError({.where = "--routing",
                          .found = fmt::format("given beside --head-parallel in {}", verb),
                          .accepted = "one of the two",
                          .hint = "Head Parallel sends the same rows whatever tokens choose"});
    const int heads = whole_number(values, "head-parallel", 1, 1 << 16);
    LaidOut twin =
        lay_out(under_head_parallel(recording, heads, cluster, profile), cluster, profile, {});
    std::optional<RecordedPrediction::Recorded> recorded;
    if (compares) {
        const RecordedPrediction p = predict_program(laid(), cluster, profile);
        recorded = {p.step, p.compute, p.exposed};
    }
    return {std::move(cluster), std::move(profile), std::move(twin), recorded};
}

int predict_program_verb(const po::variables_map& values) {
    const std::string format =
        one_of(values["format"].as<std::string>(), {"table", "json"}, "--format, with --program");
    const ProgramInput in = load_program(values, "predict");
    RecordedPrediction p = predict_program(in.laid, in.cluster, in.profile);
    p.as_recorded = in.as_recorded;
    write_result(format == "json" ? to_json(p) : to_table(p), optional_text(values, "out"));
    return kDone;
}

int explain_program_verb(const po::variables_map& values) {
    const ProgramInput in = load_program(values, "explain");
    const int last = static_cast<int>(in.laid.recording.tasks.size()) - 1;
    std::string text;
    if (values.count("task") != 0) {
        text = explain_task(in.laid, whole_number(values, "task", 0, last));
    } else {
        for (int t = 0; t <= last; ++t) text += explain_task(in.laid, t);
    }
    write_result(text, optional_text(values, "out"));
    return kDone;
}

int simulate_program_verb(const po::variables_map& values) {
    const ProgramInput in = load_program(values, "simulate");
    const sim::Topology topology(in.cluster, 0);
    const sim::SimulationResult one = simulate_steps(in.laid.program, 1, topology);
    if (one.unreachable) {
        write_result(fmt::format("program {}: rank {} cannot reach rank {}: {} is dead\n",
                                 in.laid.recording.name, one.unreachable->source,
                                 one.unreachable->destination, one.unreachable->link),
                     optional_text(values, "out"));
        return kNegative;
    }
    const sim::SimulationResult two = simulate_steps(in.laid.program, 2, topology);
    const RecordedPrediction p = predict_program(in.laid, in.cluster, in.profile);
    const Seconds step = two.step - one.step;
    std::string text = fmt::format("program {} on {} ({} ranks), profile {}\n", p.program,
                                   p.cluster, p.num_ranks, p.profile);
    text += fmt::format("step {} simulated, {} predicted\n", human(step), human(p.step));
    text += fmt::format("{} events, {} messages; two steps in a row, the second counts\n",
                        two.events, two.messages);
    if (p.imbalance > 1.001)
        text += fmt::format(
            "straggler: rank {}, whose kernels take {:.1f} % longer than the mean rank's\n",
            p.slowest_rank, 100.0 * (p.imbalance - 1.0));
    for (const std::string& warning : p.warnings) text += fmt::format("warning: {}\n", warning);
    write_result(text, optional_text(values, "out"));
    return kDone;
}

}  // namespace headway::cli

// headway simulate: a scenario in; the step executed rank by rank on the cluster's links out.
#include "sim/simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/program_options.hpp"
#include "cli/resources.hpp"
#include "cli/scenario_options.hpp"
#include "cli/simulate_report.hpp"
#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/trace.hpp"
#include "models/report/version.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "sim/collective.hpp"
#include "sim/path_table.hpp"

namespace headway::cli {
namespace {

constexpr double kDefaultEpsilon = 1e-2;

CommandHelp simulate_help() {
    return {.usage =
                "simulate SCENARIO.yaml [options]\n"
                "       headway simulate --program P.yaml --cluster C --profile PR [options]",
            .about =
                "Executes one training step of every plan, rank by rank, on the links of the\n"
                "cluster: stragglers under skewed routing, contention on shared links, overlap,\n"
                "slow links and ranks. Writes the same phases as predict. Exit code 1 if a plan\n"
                "cannot run because its traffic needs a dead link.",
            .examples =
                "  headway simulate scenarios/paper_4gpu.yaml\n"
                "  headway simulate scenarios/paper_4gpu.yaml --plan hp --trace step.json\n"
                "  headway simulate scenarios/paper_4gpu.yaml --format csv --out simulated.csv",
            .positional = {"scenario"}};
}

po::options_description simulate_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    add_program_options(options);
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    options.add_options()("plan", po::value<std::vector<std::string>>()->value_name("NAME"),
                          "only this plan (may be repeated)")(
        "format", text("FORMAT")->default_value("table"),
        "table, json or csv (docs/reference/results_format.md)")(
        "out,o", text("FILE"), "write there instead of to standard output")(
        "trace", text("FILE"), "also write a trace for ui.perfetto.dev")(
        "trace-with", po::value<std::vector<std::string>>()->value_name("FILE"),
        "put the timelines of this CSV (predicted, measured) into the trace too")(
        "epsilon", po::value<double>()->default_value(kDefaultEpsilon)->value_name("E"),
        "messages on the same links that end within E of the time their traffic needs count as\n"
        "ending together; 0: exact. The error this may make is reported")(
        "layers", po::value<int>()->default_value(0)->value_name("N"),
        "only the first N layers; 0: all")("micro-batches",
                                           po::value<int>()->default_value(0)->value_name("N"),
                                           "only N micro-batches of the step; 0: all")(
        "sample", po::value<int>()->default_value(0)->value_name("N"), "which draw of the routing")(
        "draws", po::value<int>()->default_value(1)->value_name("N"),
        "distinct draws of the routing noise in a step: micro-batch m uses draw m mod N; 0: one\n"
        "each. Micro-batches with the same draw are simulated once where they repeat exactly")(
        "all-to-all", text("ALGORITHM")->default_value("grouped"),
        "of exchanges with one stage: grouped (all pairs at once, as NCCL), pairwise (rounds) or\n"
        "hierarchical (over NVLink to the right rail, then over the NIC)")(
        "all-reduce", text("ALGORITHM")->default_value("ring"), "of gradients: ring or tree")(
        "link-bins", po::value<int>()->default_value(0)->value_name("N"),
        "JSON: also the use of the 64 busiest links in N equal parts of the step")("help,h",
                                                                                   "this text");
    return options;
}

// A trace file, written while the plans are simulated; complete or not there at all.
class TraceFile {
  public:
    explicit TraceFile(const std::string& file) : file_(file), writer_(file_.stream()) {}

    sim::TraceSink sink(const std::string& plan, int num_ranks) {
        writer_.begin_source(plan + " simulated", num_ranks);
        return {.span = [this](const Span& span) { writer_.write(span); },
                .arrow =
                    [this](const sim::Arrow& a) {
                        writer_.write(TraceArrow{.from = a.from,
                                                 .to = a.to,
                                                 .phase = a.phase,
                                                 .pass = a.pass,
                                                 .begin = a.begin,
                                                 .end = a.end});
                    },
                .activity =
                    [this](const std::string& link, const sim::LinkInterval& i) {
                        writer_.write(TraceCounter{.name = link,
                                                   .begin = static_cast<double>(i.begin) * ps,
                                                   .end = static_cast<double>(i.end) * ps,
                                                   .bytes = i.bytes * byte});
                    }};
    }

    void add(const std::string& csv) {
        for (const Timeline& t : read_timelines(std::filesystem::path(csv))) {
            const auto source = static_cast<std::size_t>(t.source);
            write_source(writer_, {.name = t.plan + " " + std::string(kSourceNames[source]),
                                   .timeline = &t,
                                   .arrows = {},
                                   .counters = {}});
        }
    }

    void commit() {
        writer_.close();
        file_.commit();
    }

  private:
    AtomicFile file_;
    TraceWriter writer_;
};

struct Algorithms {
    ExchangeAlgorithm all_to_all = ExchangeAlgorithm::grouped;
    ReduceAlgorithm all_reduce = ReduceAlgorithm::ring;
};

Algorithms chosen_algorithms(const po::variables_map& values) {
    Algorithms chosen;
    const std::string all_to_all = one_of(values["all-to-all"].as<std::string>(),
                                          {"grouped", "pairwise", "hierarchical"}, "--all-to-all");
    if (all_to_all == "pairwise") chosen.all_to_all = ExchangeAlgorithm::pairwise;
    if (all_to_all == "hierarchical") chosen.all_to_all = ExchangeAlgorithm::hierarchical;
    if (one_of(values["all-reduce"].as<std::string>(), {"ring", "tree"}, "--all-reduce") == "tree")
        chosen.all_reduce = ReduceAlgorithm::tree;
    return chosen;
}

// Node-dedup's two stages are an algorithm of their own; an exchange without bytes is a rendezvous.
void choose(const Algorithms& algorithms, Program& program) {
    for (Task& task : program.tasks) {
        if (auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
            const ExchangeStage& stage = exchange->stages.front();
            const bool has_bytes = !stage.matrices.empty() || stage.uniform_bytes > 0;
            if (exchange->stages.size() == 1 && has_bytes)
                exchange->algorithm = algorithms.all_to_all;
        } else if (auto* reduce = std::get_if<ReduceTask>(&task.work)) {
            reduce->algorithm = algorithms.all_reduce;
        }
    }
}

PlanRun run_plan(const Scenario& scenario, const Plan& plan, const sim::Topology& topology,
                 const ProgramOptions& program_options, const Algorithms& algorithms,
                 sim::SimulateOptions options) {
    const double before = cpu_seconds();
    Program program = build_program(scenario, plan, profile_of(scenario), program_options);
    choose(algorithms, program);
    Progress progress("simulate " + plan.name);
    options.progress = [&](std::size_t done, std::size_t total) { progress.update(done, total); };
    const int batches = num_micro_batches(scenario, plan), draws = program_options.num_draws;
    PlanRun run{.name = plan.name,
                .layer_split = std::string(plan.layer_split()),
                .result = sim::simulate(program, topology, options),
                .epsilon = options.epsilon,
                .num_micro_batches = batches,
                .num_draws = draws > 0 ? std::min(draws, batches) : batches,
                .pipeline_ranks = plan.parallel.pipeline_model_parallel_size};
    run.cpu_s = cpu_seconds() - before;
    Timeline& timeline = run.result.timeline;
    timeline.scenario = scenario.name;
    timeline.plan = plan.name;
    timeline.layer_split = plan.layer_split();
    timeline.profile = scenario.profile->name;
    timeline.version = version();
    timeline.seed = scenario.routing.seed;
    return run;
}

double checked_epsilon(const po::variables_map& values) {
    const double epsilon = values["epsilon"].as<double>();
    if (epsilon >= 0.0 && epsilon <= 1.0) return epsilon;
    throw InputError(InputProblem{.where = "--epsilon",
                                  .found = fmt::format("{}", epsilon),
                                  .accepted = "a number from 0 (exact) to 1",
                                  .hint = ""});
}

// A step of at most so many micro-batches under every plan.
void shorten(Scenario& scenario, int micro_batches) {
    for (const Plan& plan : scenario.plans)
        micro_batches = std::min(micro_batches, num_micro_batches(scenario, plan));
    scenario.batch.num_micro_batches = micro_batches;
    scenario.batch.global_batch_size.reset();
}

// Routes of all pairs, and the messages of one exchange in all groups of a plan.
void check_size(const Scenario& scenario) {
    const double ranks = scenario.cluster.num_ranks();
    double group = 1.0;
    for (const Plan& plan : scenario.plans) group = std::max(group, double{1} * plan.group_size);
    const double need =
                     sim::bytes_of_routes(scenario.cluster) + ranks * group * sim::kBytesOfMessage,
                 have = usable_memory_bytes();
    if (need <= have) return;
    throw InputError(InputProblem{
        .where = "simulate",
        .found = fmt::format("{} ranks in groups of up to {}, which need about {:.0f} GiB of "
                             "memory; {:.0f} GiB may be used",
                             ranks, group, need / GiB.in(byte), have / GiB.in(byte)),
        .accepted = fmt::format("up to about {:.0f} ranks in such groups here",
                                std::floor(ranks * std::sqrt(have / need))),
        .hint = "headway predict has no such limit"});
}

}  // namespace

int run_simulate(Args args) {
    const auto values = parse_options(args, simulate_help(), simulate_options());
    if (!values) return kDone;
    if (has_program(*values, {})) return simulate_program_verb(*values);
    keep_freed_memory();
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"table", "json", "csv"}, "--format");
    Scenario scenario = load_scenario(*values, "simulate");
    print_unused_keys(scenario);
    const ProgramOptions program_options{.sample = whole_number(*values, "sample", 0, 1'000'000),
                                         .num_layers = whole_number(*values, "layers", 0, 100'000),
                                         .num_draws = whole_number(*values, "draws", 0, 1'000'000)};
    const int num_link_bins = whole_number(*values, "link-bins", 0, 100'000);
    const int micro_batches = whole_number(*values, "micro-batches", 0, 1'000'000);
    const auto trace = optional_text(*values, "trace");
    const double epsilon = checked_epsilon(*values);
    const Algorithms algorithms = chosen_algorithms(*values);
    std::vector<std::string> names, wanted;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    if (values->count("plan") > 0) wanted = (*values)["plan"].as<std::vector<std::string>>();
    for (const std::string& plan : wanted) one_of(plan, names, "--plan");
    check_size(scenario);
    const bool whole_step = program_options.num_layers == 0;
    if (micro_batches > 0) shorten(scenario, micro_batches);
    Prediction prediction;
    if (whole_step) prediction = predict(scenario, profile_of(scenario), {.only_plans = wanted});
    warn_of_unpriced(prediction);
    const auto is_simulated = [&](const Plan& plan) {
        const auto is_it = [&](const UnpricedPlan& p) { return p.name == plan.name; };
        return (wanted.empty() || std::ranges::find(wanted, plan.name) != wanted.end()) &&
               std::ranges::none_of(prediction.unpriced, is_it);
    };
    const sim::Topology topology(scenario.cluster, scenario.routing.seed);
    std::vector<PlanRun> runs;
    std::optional<TraceFile> trace_file;
    if (trace) trace_file.emplace(*trace);
    for (const Plan& plan : scenario.plans) {
        if (!is_simulated(plan)) continue;
        sim::TraceSink sink;
        if (trace_file) {
            sink = trace_file->sink(plan.name, scenario.cluster.num_ranks());
        }
        PlanRun run = run_plan(scenario, plan, topology, program_options, algorithms,
                               {.epsilon = epsilon,
                                .timeline = format == "csv",
                                .link_use = num_link_bins > 0,
                                .sink = trace_file ? &sink : nullptr,
                                .progress = {}});
        run.whole_step = whole_step;
        run.num_link_bins = num_link_bins;
        for (const PlanPrediction& p : prediction.plans) {
            if (p.name == plan.name) run.predicted = p.step;
        }
        runs.push_back(std::move(run));
    }
    if (trace_file) {
        if (values->count("trace-with") > 0) {
            for (const auto& csv : (*values)["trace-with"].as<std::vector<std::string>>())
                trace_file->add(csv);
        }
        trace_file->commit();
    }
    write_result(simulation_report(scenario, runs, format), optional_text(*values, "out"));
    const bool all_run = std::ranges::none_of(
        runs, [](const PlanRun& run) { return run.result.unreachable.has_value(); });
    return all_run && prediction.unpriced.empty() ? kDone : kNegative;
}

}  // namespace headway::cli

#include "cli/verify_lab.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cli/lab.hpp"
#include "cli/lab_report.hpp"
#include "cli/measured_timelines.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/cost/bare_exchange.hpp"
#include "models/cost/moe_layer.hpp"
#include "models/report/compare.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/links.hpp"
#include "models/vocab/quantile.hpp"
#include "models/workload/exchange_bytes.hpp"
#include "runtime/host.hpp"
#include "runtime/lab/lab_plan.hpp"
#include "sim/simulate.hpp"

namespace headway::cli {
namespace {

// Links that carry less than this share of the busiest one carry signs of life as well as bytes.
constexpr double kLeastShare = 0.05;
// Frames of 9000 bytes have 0.9 % of headers, the last ones of messages more.
constexpr double kHeaders = 0.02;
// Bytes on a link besides: acknowledgements and notices of a message, barriers with every rank.
constexpr double kOfMessage = 2e3, kOfRank = 500.0;

struct LabExchange {
    const Plan& plan;
    BareExchange bare;
    Seconds simulated;
    LinkBytes links, messages;  // simulated: bytes, and how many messages cross a link
    std::vector<TrafficMatrix> matrices;
};

// Ranks connect to each other before they exchange anything.
void check_paths(const sim::Topology& topology) {
    TrafficMatrix all(topology.num_ranks());
    std::ranges::fill(all.bytes, 1);
    const auto unreachable = sim::all_to_all(topology, all).unreachable;
    if (!unreachable) return;
    throw InputError({.where = "verify --lab",
                      .found = sim::DeadPath(*unreachable).what(),
                      .accepted = "a cluster whose ranks all reach each other",
                      .hint = "headway alltoall and simulate say what a dead link stops"});
}

void check_memory(const LabExchange& exchange) {
    Bytes needed;
    for (const TrafficMatrix& matrix : exchange.matrices)
        needed = max(needed, 2.0 * static_cast<double>(matrix.total_off_rank()) * byte);
    const Bytes there = runtime::physical_memory();
    if (needed <= there) return;
    throw InputError({.where = "plan " + exchange.plan.name,
                      .found = fmt::format("{} of messages, sent and received, in one {}",
                                           human(needed), name(exchange.bare.phase)),
                      .accepted = "up to " + human(there) + ", this machine's memory",
                      .hint = "--tokens N makes a rank's batch smaller"});
}

// The lab has a leaf's uplinks as one trunk.
std::string link_in_lab(const Cluster& cluster, const std::string& link) {
    for (const LinkKind kind : {LinkKind::leaf_up, LinkKind::leaf_down}) {
        const int each = links_per_index(cluster, kind);
        for (int i = 0; each > 1 && i < num_links(cluster, kind); ++i) {
            if (link_name(cluster, {kind, i}) == link)
                return fmt::format("{}:{}", name(kind), i / each);
        }
    }
    return link;
}

void add(const Cluster& cluster, const std::vector<sim::LinkUse>& links, LinkBytes& sums) {
    for (const sim::LinkUse& link : links)
        sums[link_in_lab(cluster, link.name)] += link.bytes.in(byte);
}

void simulate(const sim::Topology& topology, LabExchange& exchange) {
    Program program{.num_ranks = topology.num_ranks()};
    program.tasks.push_back({.phase = exchange.bare.phase,
                             .pass = exchange.bare.pass,
                             .stream = Stream::communication,
                             .work = exchange.bare.task});
    const sim::SimulationResult result = sim::simulate(program, topology, {.timeline = false});
    exchange.simulated = result.step;
    add(topology.cluster(), result.links, exchange.links);
    // Messages of a byte each: the bytes of a link are how many pass it.
    for (TrafficMatrix matrix : exchange.matrices) {
        for (std::int64_t& bytes : matrix.bytes) bytes = bytes > 0 ? 1 : 0;
        add(topology.cluster(), sim::all_to_all(topology, matrix).links, exchange.messages);
    }
}

std::vector<LabExchange> exchanges_of(const Scenario& scenario, const Profile& profile) {
    if (scenario.model.num_moe_layers() == 0) no_exchanges(scenario);
    const sim::Topology topology(scenario.cluster);
    check_paths(topology);
    std::vector<LabExchange> exchanges;
    for (const Plan& plan : scenario.plans) {
        for (BareExchange& bare :
             bare_exchanges(scenario, plan, profile, scenario.model.moe_layer(0))) {
            LabExchange& e = exchanges.emplace_back(LabExchange{.plan = plan,
                                                                .bare = std::move(bare),
                                                                .simulated = {},
                                                                .links = {},
                                                                .messages = {},
                                                                .matrices = {}});
            for (std::size_t s = 0; s < e.bare.task.stages.size(); ++s)
                e.matrices.push_back(world_matrix(e.bare.task, s, topology.num_ranks()));
            simulate(topology, e);
            check_memory(e);
        }
    }
    if (exchanges.empty()) no_exchanges(scenario);
    return exchanges;
}

LinkVerdict judge_links(const LabExchange& exchange, const LinkBytes& carried) {
    double busiest = 0.0;
    for (const auto& [link, bytes] : exchange.links) busiest = std::max(busiest, bytes);
    double barriers = 0.0;
    for (const TrafficMatrix& matrix : exchange.matrices) barriers += kOfRank * matrix.num_ranks;
    LinkVerdict verdict;
    std::vector<double> over;
    for (const auto& [link, bytes] : carried) {
        const auto found = exchange.links.find(link);
        if (found == exchange.links.end() || found->second < kLeastShare * busiest) continue;
        over.push_back(bytes / found->second - 1.0);
        const double most =
            (1.0 + kHeaders) * found->second + kOfMessage * exchange.messages.at(link) + barriers;
        verdict.passed = verdict.passed && bytes >= found->second && bytes <= most;
    }
    if (over.empty()) return verdict;  // nothing leaves a rank
    verdict.least_over = std::ranges::min(over);
    verdict.most_over = std::ranges::max(over);
    return verdict;
}

ExchangeRow measure(const Lab& lab, const LabExchange& exchange, int repeats) {
    const ExchangeRun run = lab.exchange(exchange.matrices, repeats);
    std::vector<double> seconds(static_cast<std::size_t>(repeats), 0.0);  // of all stages
    for (const std::vector<double>& stage : run.seconds)
        std::ranges::transform(stage, seconds, seconds.begin(), std::plus{});
    return {.plan = exchange.plan.name,
            .phase = std::string(name(exchange.bare.phase)),
            .time = {.predicted = exchange.bare.predicted,
                     .simulated = exchange.simulated,
                     .measured = quantile(seconds, 0.5) * second},
            .low = quantile(seconds, 0.1) * second,
            .high = quantile(seconds, 0.9) * second,
            .links = judge_links(exchange, run.carried)};
}

// Backward sends what forward sent, the other way round.
std::vector<ExchangeRow> measure_exchanges(const Lab& lab,
                                           const std::vector<LabExchange>& exchanges, int repeats) {
    std::vector<ExchangeRow> rows;
    Progress progress("exchanges");
    for (std::size_t i = 0; i < exchanges.size(); ++i) {
        progress.update(i, exchanges.size());
        if (exchanges[i].bare.pass == Pass::forward)
            rows.push_back(measure(lab, exchanges[i], repeats));
    }
    return rows;
}

// Over the phases of a run, of the slowest rank in each.
Seconds sum_of_slowest(const Timeline& measured, Seconds Span::*value) {
    std::map<std::pair<Pass, Phase>, Seconds> slowest;
    for (const Span& span : measured.spans) {
        Seconds& most = slowest[{span.pass, span.phase}];
        most = max(most, span.*value);
    }
    Seconds sum;
    for (const auto& [phase, most] : slowest) sum += most;
    return sum;
}

LayerRow judge_layer(const Scenario& scenario, const Profile& profile, const Timeline& measured,
                     const std::vector<LabExchange>& exchanges) {
    const Plan& plan = plan_of(scenario, measured);
    const MoePrediction prediction = predict_moe_layers(scenario, plan, profile, 1);
    for (const std::string& warning : prediction.warnings) warn(warning);
    LayerRow row{.plan = plan.name,
                 .exchanges = {},
                 .layer = {},
                 .low = sum_of_slowest(measured, &Span::low),
                 .high = sum_of_slowest(measured, &Span::high)};
    for (const PhaseComparison& phase : compare(prediction.timeline, measured).phases) {
        ThreeTimes time{
            .predicted = phase.predicted, .simulated = phase.predicted, .measured = phase.measured};
        const auto exchange = std::ranges::find_if(exchanges, [&](const LabExchange& e) {
            return e.plan.name == plan.name && e.bare.phase == phase.phase &&
                   e.bare.pass == phase.pass;
        });
        // The simulator knows the messages; what ranks copy besides is the prediction's.
        if (exchange != exchanges.end()) {
            time.simulated += exchange->simulated - exchange->bare.predicted;
            row.exchanges += time;
        }
        row.layer += time;
    }
    return row;
}

std::vector<LayerRow> measure_layers(const Lab& lab, const Scenario& scenario,
                                     const Profile& profile,
                                     const std::vector<LabExchange>& exchanges, int repeats) {
    std::vector<LayerRow> rows;
    for (const Timeline& measured : lab.run_layers(scenario, repeats)) {
        if (contradicts(profile.provenance.device, measured.profile)) {
            warn(fmt::format("profile {} is of {}, the run was on {}", profile.name,
                             profile.provenance.device, measured.profile));
        }
        rows.push_back(judge_layer(scenario, profile, measured, exchanges));
    }
    return rows;
}

void say_how_long(const std::vector<LabExchange>& exchanges, int repeats) {
    Seconds all;
    for (const LabExchange& e : exchanges) {
        if (e.bare.pass == Pass::forward) all += e.simulated;
    }
    note(fmt::format("exchanges of {} a repeat, {} repeats", human(all), repeats));
}

}  // namespace

int verify_lab(const po::variables_map& values, double tolerance) {
    const Scenario scenario = scenario_in_lab(values, "verify");
    const bool with_layers = values.count("profile") != 0;
    if (with_layers) check_layers(scenario, "without --profile the exchanges alone are compared");
    const Profile profile = with_layers ? profile_of(scenario) : ideal_links(scenario.cluster);
    LabReport report{
        .heading = fmt::format("{} ranks on this machine, every bandwidth times {}; {}",
                               scenario.cluster.num_ranks(), values["scale"].as<std::string>(),
                               with_layers ? "curves of profile " + profile.name
                                           : "links at their full rate, nothing fitted"),
        .baseline = scenario.baseline,
        .exchanges = {},
        .layers = {},
        .not_emulated = runtime::plan_lab(scenario.cluster, {}).not_emulated};
    const std::vector<LabExchange> exchanges = exchanges_of(scenario, profile);
    const int repeats = whole_number(values, "repeats", 1, 100000);
    say_how_long(exchanges, repeats);
    const Lab lab(scenario.cluster);
    report.exchanges = measure_exchanges(lab, exchanges, repeats);
    if (with_layers) report.layers = measure_layers(lab, scenario, profile, exchanges, repeats);
    const LabVerdict verdict = judge(report, tolerance);
    write_stdout(to_table(report) + verdict.text);
    if (const auto csv = optional_text(values, "csv")) write_result(to_csv(report), csv);
    return verdict.passed ? kDone : kNegative;
}

}  // namespace headway::cli

#include "cli/simulate_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/resources.hpp"
#include "models/cost/predict.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxPlottedLinks = 64;

struct PhaseRow {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    int count = 0;
    Seconds mean, longest;  // a rank's total: mean over ranks, and of the rank with the most
    Bytes bytes;            // sent or moved by the rank with the most
};

std::vector<PhaseRow> phase_rows(const sim::SimulationResult& result) {
    std::vector<PhaseRow> rows;
    for (const sim::PhaseUse& use : result.phases) {
        PhaseRow row{.phase = use.phase, .pass = use.pass, .count = use.count};
        for (const Seconds t : use.time) {
            row.mean += t / static_cast<double>(use.time.size());
            row.longest = max(row.longest, t);
        }
        for (const Bytes b : use.bytes) row.bytes = max(row.bytes, b);
        rows.push_back(row);
    }
    return rows;
}

std::vector<Seconds> compute_times(const sim::SimulationResult& result) {
    std::vector<Seconds> times(result.rank_finish.size());
    for (const sim::PhaseUse& use : result.phases) {
        if (is_communication(use.phase)) continue;
        for (std::size_t r = 0; r < times.size(); ++r) times[r] += use.time[r];
    }
    return times;
}

// Links by their use, the busiest first.
std::vector<sim::LinkUse> busiest_links(const sim::SimulationResult& result) {
    std::vector<sim::LinkUse> links = result.links;
    std::ranges::stable_sort(links, [](const sim::LinkUse& a, const sim::LinkUse& b) {
        return a.bytes / a.capacity > b.bytes / b.capacity;
    });
    return links;
}

std::string unreachable_text(const sim::SimulationResult& r) {
    return sim::DeadPath(*r.unreachable).what();
}

// The ranks of one pipeline rank: means.
struct StageRow {
    Seconds busy, idle, finish;
};

std::vector<StageRow> stage_rows(const PlanRun& run) {
    const sim::SimulationResult& r = run.result;
    std::vector<StageRow> rows;
    if (r.rank_busy.empty()) return rows;
    const std::size_t block = r.rank_busy.size() / static_cast<std::size_t>(run.pipeline_ranks);
    for (std::size_t first = 0; first < r.rank_busy.size(); first += block) {
        StageRow& row = rows.emplace_back();
        for (std::size_t i = first; i < first + block; ++i) {
            row.busy += r.rank_busy[i] / static_cast<double>(block);
            row.finish += r.rank_finish[i] / static_cast<double>(block);
        }
        row.idle = r.passes - row.busy;
    }
    return rows;
}

std::string stage_table(const PlanRun& run) {
    TextTable table{.head = {"pipeline rank", "ranks", "busy", "idle", "of the passes"},
                    .rows = {}};
    const std::size_t block =
        run.result.rank_finish.size() / static_cast<std::size_t>(run.pipeline_ranks);
    for (const StageRow& row : stage_rows(run)) {
        const std::size_t first = table.rows.size() * block;
        table.rows.push_back({std::to_string(table.rows.size()),
                              fmt::format("{} .. {}", first, first + block - 1), human(row.busy),
                              human(row.idle),
                              fmt::format("{:.1f} %", 100.0 * (row.idle / run.result.passes))});
    }
    return table.rows.empty() ? "" : table.to_string() + "\n";
}

std::string plan_table(const PlanRun& run) {
    const sim::SimulationResult& r = run.result;
    if (r.unreachable) {
        return fmt::format("plan {}: cannot run: {}\n", run.name, unreachable_text(r));
    }
    std::string text = fmt::format("plan {}: {} a step", run.name, human(r.step));
    if (r.error_bound > Seconds{})
        text += fmt::format(" (batching: within {})", human(r.error_bound));
    if (run.whole_step) {
        text += fmt::format(", predicted {} ({})", human(run.predicted),
                            signed_percent(r.step / run.predicted - 1.0));
    }
    const auto [first, last] = std::ranges::minmax_element(r.rank_finish);
    text += fmt::format("\n  ranks finish between {} (rank {}) and {} (rank {}); {} messages\n",
                        human(*first), first - r.rank_finish.begin(), human(*last),
                        last - r.rank_finish.begin(), grouped(static_cast<double>(r.messages)));
    text += run.epsilon > 0.0 ? fmt::format("  --epsilon {:g}", run.epsilon) : "  exact";
    if (run.num_micro_batches > 1) {
        text += fmt::format("; {} micro-batches, {} distinct draw{} of the routing (--draws)",
                            run.num_micro_batches, run.num_draws, run.num_draws > 1 ? "s" : "");
    }
    text += "\n\n";
    TextTable phases{.head = {"phase", "pass", "times", "mean rank", "longest rank", "of the step"},
                     .rows = {}};
    for (const PhaseRow& row : phase_rows(r)) {
        phases.rows.push_back({std::string(name(row.phase)), std::string(name(row.pass)),
                               std::to_string(row.count), human(row.mean), human(row.longest),
                               fmt::format("{:.1f} %", 100.0 * (row.mean / r.step))});
    }
    text += stage_table(run) + phases.to_string();
    TextTable links{.head = {"link", "bytes", "busy", "of its capacity, while busy", "in the step"},
                    .rows = {}};
    for (const sim::LinkUse& l : busiest_links(r)) {
        if (links.rows.size() == 6) break;
        const Seconds needed = l.bytes / l.capacity;
        links.rows.push_back({l.name, human(l.bytes), human(l.busy),
                              fmt::format("{:.1f} %", 100.0 * (needed / l.busy)),
                              fmt::format("{:.1f} %", 100.0 * (needed / r.step))});
    }
    return links.rows.empty() ? text : text + "\n" + links.to_string();
}

// Fraction of its bandwidth that each of the busiest links uses, in equal parts of the step.
Json link_use_json(const PlanRun& run) {
    const sim::SimulationResult& r = run.result;
    const auto bins = static_cast<std::size_t>(run.num_link_bins);
    const Seconds bin = r.step / static_cast<double>(bins);
    std::vector<std::vector<double>> used(r.links.size(), std::vector<double>(bins, 0.0));
    for (const sim::LinkActivity& a : r.activity) {
        const auto link = static_cast<std::size_t>(a.link);
        const Bandwidth rate = a.bytes / max(a.end - a.begin, 1.0 * ps);
        const auto first = static_cast<std::size_t>(a.begin / bin);
        for (std::size_t b = first; b < bins && static_cast<double>(b) * bin < a.end; ++b) {
            const Seconds from = max(a.begin, static_cast<double>(b) * bin);
            const Seconds to = min(a.end, static_cast<double>(b + 1) * bin);
            used[link][b] += (to - from) / bin * (rate / r.links[link].capacity);
        }
    }
    Json links = Json::object();
    for (const sim::LinkUse& l : busiest_links(r)) {
        if (links.size() == kMaxPlottedLinks) break;
        const auto at = std::ranges::find(r.links, l.name, &sim::LinkUse::name) - r.links.begin();
        links[l.name] = used[static_cast<std::size_t>(at)];
    }
    return {{"bin_s", bin.in(second)}, {"links", links}};
}

Json pipeline_json(const PlanRun& run) {
    Json stages = Json::array();
    for (const StageRow& row : stage_rows(run))
        stages.push_back({{"busy_s", row.busy.in(second)},
                          {"idle_s", row.idle.in(second)},
                          {"finish_mean_s", row.finish.in(second)}});
    return {{"passes_s", run.result.passes.in(second)}, {"ranks", stages}};
}

Json plan_json(const PlanRun& run) {
    const sim::SimulationResult& r = run.result;
    if (r.unreachable) {
        return {{"name", run.name},
                {"layer", run.layer_split},
                {"feasible", false},
                {"infeasible_because", unreachable_text(r)},
                {"unreachable",
                 {{"source", r.unreachable->source},
                  {"destination", r.unreachable->destination},
                  {"link", r.unreachable->link}}}};
    }
    Json phases = Json::array(), links = Json::array(), finish = Json::array();
    for (const PhaseRow& row : phase_rows(r)) {
        phases.push_back({{"phase", name(row.phase)},
                          {"pass", name(row.pass)},
                          {"count", row.count},
                          {"time_mean_s", row.mean.in(second)},
                          {"time_max_s", row.longest.in(second)},
                          {"bytes_per_rank_max", row.bytes.in(byte)}});
    }
    for (const sim::LinkUse& l : r.links) {
        links.push_back({{"name", l.name},
                         {"bytes_per_s", l.capacity.in(byte / second)},
                         {"bytes", l.bytes.in(byte)},
                         {"busy_s", l.busy.in(second)}});
    }
    for (const Seconds t : r.rank_finish) finish.push_back(t.in(second));
    Json computing = Json::array();
    for (const Seconds t : compute_times(r)) computing.push_back(t.in(second));
    Json json = {{"name", run.name},
                 {"layer", run.layer_split},
                 {"feasible", true},
                 {"step_time_s", r.step.in(second)},
                 {"error_bound_s", r.error_bound.in(second)},
                 {"epsilon", run.epsilon},
                 {"num_micro_batches", run.num_micro_batches},
                 {"num_draws", run.num_draws}};
    if (run.whole_step) json["predicted_step_time_s"] = run.predicted.in(second);
    json.update({{"phases", phases},
                 {"rank_finish_s", finish},
                 {"rank_compute_s", computing},
                 {"links", links},
                 {"messages", r.messages},
                 {"instants", r.instants},
                 {"events", r.events},
                 {"sections", r.sections},
                 {"repeated_sections", r.repeated_sections},
                 {"repeated_collectives", r.repeated_collectives},
                 {"cpu_s", run.cpu_s}});
    if (run.pipeline_ranks > 1) json["pipeline"] = pipeline_json(run);
    if (run.num_link_bins > 0) json["link_use"] = link_use_json(run);
    return json;
}

}  // namespace

std::string simulation_report(const Scenario& scenario, const std::vector<PlanRun>& runs,
                              const std::string& format) {
    if (format == "csv") {
        std::vector<Timeline> timelines;
        for (const PlanRun& run : runs) {
            if (run.result.unreachable) fmt::print(stderr, "headway: {}", plan_table(run));
            timelines.push_back(run.result.timeline);
        }
        return timelines_to_csv(timelines);
    }
    if (format == "json") {
        Json plans = Json::array();
        for (const PlanRun& run : runs) plans.push_back(plan_json(run));
        return Json{{"scenario", scenario.name},
                    {"profile", scenario.profile->name},
                    {"version", version()},
                    {"seed", scenario.routing.seed},
                    {"source", "simulated"},
                    {"notes", notes_of(scenario, scenario.plans, *scenario.profile)},
                    {"plans", plans},
                    {"peak_rss_bytes", peak_rss_bytes()}}
                   .dump(2) +
               "\n";
    }
    std::string text =
        fmt::format("scenario {} on {} ({} ranks), profile {}\n", scenario.name,
                    scenario.cluster.name, scenario.cluster.num_ranks(), scenario.profile->name);
    for (const PlanRun& run : runs) text += "\n" + plan_table(run);
    return text;
}

}  // namespace headway::cli

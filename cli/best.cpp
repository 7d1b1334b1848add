// headway best: a scenario in; the fastest plan that fits, the runner-up, why, and where HP
// overtakes EP out.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/cost/software.hpp"
#include "models/report/version.hpp"
#include "models/scenario/quantity_text.hpp"
#include "models/scenario/resolve.hpp"
#include "models/sweep/break_even.hpp"
#include "models/sweep/layouts.hpp"
#include "models/sweep/plan_search.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"

namespace headway::cli {
namespace {

using Json = nlohmann::ordered_json;

CommandHelp best_help() {
    return {
        .usage = "best SCENARIO.yaml [options]",
        .about =
            "Searches all legal plans for the model on this cluster: EP with each way of sending\n"
            "copies, HP with each number of heads of the scenario's plans, every group size (HP\n"
            "beyond H ranks is HP x EP), recomputation, ZeRO-1, overlap and micro-batches at the\n"
            "same global batch. Prints the fastest that fits into memory, the runner-up of\n"
            "another kind and where their times differ, what other choices would cost, and at\n"
            "which k, link bandwidth or skew HP overtakes the best EP. Exit code 1 if no plan\n"
            "fits.",
        .examples =
            "  headway best scenarios/paper_4gpu.yaml\n"
            "  headway best scenarios/paper_ethernet_64gpu.yaml --heads 4,8,16 --format json",
        .positional = {"scenario"}};
}

po::options_description best_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    auto add = options.add_options();
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    add("heads", text("H,H,..."),
        "numbers of heads to try (twins of the model) instead of those of the scenario's plans");
    add("layouts", po::bool_switch(),
        "vary tensor, context and pipeline parallelism, chunks of layers, their overlap and FSDP "
        "too");
    add("top", po::value<int>()->default_value(10)->value_name("N"),
        "rows of the table of variants");
    add("no-break-even", po::bool_switch(), "leave the search for break-even points out");
    add("format", text("FORMAT")->default_value("table"), "table or json");
    add("out,o", text("FILE"), "write there instead of to standard output");
    add("threads", po::value<int>()->default_value(0)->value_name("N"),
        "0: all cores. The result does not depend on it");
    add("help,h", "this text");
    return options;
}

std::vector<int> heads_of(const po::variables_map& values) {
    std::vector<int> heads;
    const auto text = optional_text(values, "heads");
    if (!text) return heads;
    std::size_t begin = 0;
    while (begin <= text->size()) {
        const std::size_t end = std::min(text->find(',', begin), text->size());
        const auto value = parse_integer(text->substr(begin, end - begin));
        if (!value || *value < 1 || *value > 65536) {
            throw InputError({.where = "--heads",
                              .found = "'" + *text + "'",
                              .accepted = "whole numbers from 1 to 65536, with commas between"});
        }
        heads.push_back(static_cast<int>(*value));
        begin = end + 1;
    }
    return heads;
}

struct Report {
    Scenario scenario;
    SearchResult search;
    const Candidate* runner_up = nullptr;  // the fastest of another kind, else the next variant
    std::vector<Alternative> others;
    std::vector<BreakEven> break_evens;
    bool searched_layouts = false;
};

const Candidate* find_runner_up(const SearchResult& search) {
    const auto& best = search.best;
    for (std::size_t i = 1; i < best.size(); ++i) {
        if (kind_of(best[i].plan) != kind_of(best[0].plan)) return &best[i];
    }
    return best.size() > 1 ? &best[1] : nullptr;
}

// Time of each phase in the step, forward and backward together.
std::map<Phase, Seconds> phase_times(const PlanPrediction& p) {
    std::map<Phase, Seconds> times;
    for (const PhaseCost& c : p.phases) times[c.phase] += c.time;
    return times;
}

struct PhaseDifference {
    Phase phase = Phase::embed;
    Seconds best, other;
};

// What sets two plans apart, the largest first.
std::vector<PhaseDifference> differences(const PlanPrediction& a, const PlanPrediction& b) {
    const auto best = phase_times(a), other = phase_times(b);
    std::map<Phase, PhaseDifference> merged;
    for (const auto& [phase, time] : best) merged[phase] = {phase, time, {}};
    for (const auto& [phase, time] : other) {
        merged[phase].phase = phase;
        merged[phase].other = time;
    }
    std::vector<PhaseDifference> result;
    for (const auto& [phase, difference] : merged) result.push_back(difference);
    const auto size = [](const PhaseDifference& d) {
        return std::abs((d.other - d.best).in(second));
    };
    std::stable_sort(result.begin(), result.end(),
                     [&](const auto& x, const auto& y) { return size(x) > size(y); });
    return result;
}

std::string signed_time(Seconds t) {
    return t < Seconds{} ? "-" + human(Seconds{} - t) : "+" + human(t);
}

std::string candidate_text(const std::string& label, const Candidate& c, Seconds best) {
    const PlanPrediction& p = c.prediction;
    std::string text = fmt::format("{}: {}; {}\n  {} a step ({} to {})", label, c.plan.name,
                                   knobs_text(c.plan, c.batch), human(p.step),
                                   human(p.step_interval.low), human(p.step_interval.high));
    if (p.step > best) text += ", " + signed_percent(p.step / best - 1.0);
    return text + fmt::format("; {} of {}, {} of them reserve\n", human(p.memory.peak),
                              human(p.memory.capacity), human(p.memory.reserve()));
}

std::string why_text(const Candidate& best, const Candidate& other) {
    TextTable table{.head = {"phase", "fastest", "runner-up", "difference"}, .rows = {}};
    for (const PhaseDifference& d : differences(best.prediction, other.prediction)) {
        const Seconds gap = d.other - d.best;
        const bool is_small = std::abs(gap / best.prediction.step) < 1e-3;
        if (table.rows.size() == 8 || is_small) break;
        const auto time = [](Seconds t) { return t > Seconds{} ? human(t) : std::string("-"); };
        table.rows.push_back(
            {std::string(name(d.phase)), time(d.best), time(d.other), signed_time(gap)});
    }
    if (table.rows.empty()) return "";
    return "\nwhy: time of the step by phase, where it differs most\n" + table.to_string();
}

std::string variants_text(const SearchResult& search, std::size_t most) {
    TextTable table{.head = {"variant", "step", "", "memory", "with"}, .rows = {}};
    for (const Candidate& c : search.best) {
        if (table.rows.size() == most) break;
        const PlanPrediction& p = c.prediction;
        const Seconds best = search.best.front().prediction.step;
        table.rows.push_back({c.plan.name, human(p.step),
                              p.step > best ? signed_percent(p.step / best - 1.0) : "",
                              human(p.memory.peak), knobs_text(c.plan, c.batch)});
    }
    return "\nevery variant at its best\n" + table.to_string();
}

std::string others_text(const Report& r) {
    TextTable table{.head = {"other choice", "step", "memory"}, .rows = {}};
    const Seconds best = r.search.best.front().prediction.step;
    for (const Alternative& a : r.others) {
        const PlanPrediction& p = a.candidate.prediction;
        table.rows.push_back({a.choice,
                              p.feasible ? signed_percent(p.step / best - 1.0) : "does not fit",
                              human(p.memory.peak)});
    }
    return "\nthe fastest plan with one other choice\n" + table.to_string();
}

std::string value_text(const BreakEven& b, double value) {
    if (b.key.starts_with("cluster.")) return human(value * byte / second);
    return value == std::floor(value) ? fmt::format("{:.0f}", value) : significant(value);
}

std::string break_even_text(const BreakEven& b) {
    if (b.duels.empty()) return fmt::format("  {}: no value can be judged\n", b.key);
    const auto place = [&](double v) { return value_text(b, v); };
    const std::string from = place(b.duels.front().value), to = place(b.duels.back().value);
    std::string text = fmt::format("  {} (now {}): ", b.key, place(b.now));
    if (b.crossings.empty()) {
        const bool hp_wins = b.duels.front().hp_wins();
        const auto ratio = [](const Duel& d) {
            return d.ep > Seconds{} && d.hp > Seconds{} ? d.hp / d.ep : 0.0;
        };
        text += fmt::format("never within {} to {}: {} is faster throughout", from, to,
                            hp_wins ? "HP" : "the best EP");
        const auto closest =
            std::min_element(b.duels.begin(), b.duels.end(), [&](const Duel& x, const Duel& y) {
                return std::abs(std::log(ratio(x))) < std::abs(std::log(ratio(y)));
            });
        if (ratio(*closest) > 0.0) {
            text += fmt::format(", closest at {} (HP {})", place(closest->value),
                                signed_percent(ratio(*closest) - 1.0));
        }
        return text + "\n";
    }
    for (std::size_t i = 0; i < b.crossings.size(); ++i) {
        const Crossing& c = b.crossings[i];
        text += fmt::format("{}{} is the faster from {}", i > 0 ? "; " : "",
                            c.to_hp ? "HP" : "the best EP", place(c.value));
    }
    return text + fmt::format(" (searched from {} to {})\n", from, to);
}

bool undecided(const Report& r) {
    return r.runner_up && is_undecided(r.search.best.front().prediction, r.runner_up->prediction,
                                       *r.scenario.profile);
}

// The winner as others would start it. Head Parallel is headway's own: its flags have EP's place.
std::string flags_text(const Scenario& scenario, const Candidate& c) {
    if (c.plan.parallel == Parallel{}) return "";
    Scenario own = scenario;
    own.batch = c.batch;
    return fmt::format("\nas Megatron flags: {}\nas torchtitan flags: {}\n",
                       megatron_flags(c.plan, c.batch, sequences_of(own, c.plan)),
                       torchtitan_flags(c.plan, c.batch, mesh_of(own, c.plan)));
}

std::string to_table(const Report& r, std::size_t most) {
    const SearchResult& s = r.search;
    std::string text = fmt::format(
        "scenario {} on {} ({} ranks), profile {}: {} legal plans, {} fit\n\n", r.scenario.name,
        r.scenario.cluster.name, r.scenario.cluster.num_ranks(), r.scenario.profile->name,
        grouped(static_cast<double>(s.num_legal)), grouped(static_cast<double>(s.num_fitting)));
    for (const InputProblem& why : s.unpriced) text += "not priced: " + why.to_string() + "\n";
    if (s.best.empty()) {
        text += "no plan fits into memory\n";
        if (s.smallest) {
            text += candidate_text("the smallest", *s.smallest, s.smallest->prediction.step);
            text += "  " + s.smallest->prediction.infeasible_because + "\n";
        }
        return text;
    }
    const Seconds best = s.best.front().prediction.step;
    text += candidate_text("fastest", s.best.front(), best);
    if (r.runner_up) {
        text += candidate_text("runner-up", *r.runner_up, best);
        if (undecided(r)) text += "  undecided: the difference is within the noise\n";
        text += why_text(s.best.front(), *r.runner_up);
    }
    text += flags_text(r.scenario, s.best.front());
    text += variants_text(s, most) + others_text(r);
    if (r.break_evens.empty()) return text;
    text += r.searched_layouts
                ? "\nbreak-even of HP with the best EP: the fastest variants above, priced anew at "
                  "every value\n"
                : "\nbreak-even of HP with the best EP, both searched anew at every value\n";
    for (const BreakEven& b : r.break_evens) text += break_even_text(b);
    return text;
}

Json candidate_json(const Candidate& c) {
    const PlanPrediction& p = c.prediction;
    const auto* hp = std::get_if<HeadParallel>(&c.plan.layer);
    constexpr std::array kKinds = {"data_parallel", "expert_parallel", "head_parallel",
                                   "head_and_expert_parallel"};
    Json phases = Json::object();
    for (const auto& [phase, time] : phase_times(p)) {
        phases[std::string(name(phase))] = time.in(second);
    }
    const Dedup dedup = hp ? hp->dedup : std::get<ExpertParallel>(c.plan.layer).dedup;
    Json json = {{"variant", c.plan.name},
                 {"kind", kKinds[static_cast<std::size_t>(kind_of(c.plan))]},
                 {"dedup", kDedupNames[static_cast<std::size_t>(dedup)]},
                 {"group_size", c.plan.group_size}};
    if (hp) json["num_heads"] = hp->num_heads;
    json.update({{"recompute", recompute_text(c.plan.recompute)},
                 {"zero1", shards_optimizer(c.plan)},
                 {"overlap_param_gather", c.plan.overlap_param_gather},
                 {"overlap_chunks", c.plan.overlap_chunks},
                 {"sequences_per_rank", c.batch.sequences_per_rank},
                 {"num_micro_batches", c.batch.num_micro_batches},
                 {"fits", p.feasible},
                 {"step_time_s", p.step.in(second)},
                 {"step_time_interval_s",
                  {p.step_interval.low.in(second), p.step_interval.high.in(second)}},
                 {"memory_peak_bytes", p.memory.peak.in(byte)},
                 {"memory_reserve_bytes", p.memory.reserve().in(byte)},
                 {"memory_capacity_bytes", p.memory.capacity.in(byte)},
                 {"phases_s", phases}});
    return json;
}

Json break_even_json(const BreakEven& b) {
    Json values = Json::array(), crossings = Json::array();
    const auto time = [](Seconds t) { return t > Seconds{} ? Json(t.in(second)) : Json(); };
    for (const Duel& d : b.duels) {
        values.push_back({{"value", d.value}, {"ep_s", time(d.ep)}, {"hp_s", time(d.hp)}});
    }
    for (const Crossing& c : b.crossings) {
        crossings.push_back({{"value", c.value}, {"faster_from_there", c.to_hp ? "HP" : "EP"}});
    }
    return {{"key", b.key}, {"now", b.now}, {"crossings", crossings}, {"values", values}};
}

std::string to_json(const Report& r) {
    const SearchResult& s = r.search;
    Json variants = Json::array(), others = Json::array(), break_evens = Json::array();
    Json unpriced = Json::array();
    for (const InputProblem& why : s.unpriced) unpriced.push_back(why.to_string());
    for (const Candidate& c : s.best) variants.push_back(candidate_json(c));
    for (const Alternative& a : r.others) {
        others.push_back({{"choice", a.choice},
                          {"fits", a.candidate.prediction.feasible},
                          {"step_time_s", a.candidate.prediction.step.in(second)},
                          {"memory_peak_bytes", a.candidate.prediction.memory.peak.in(byte)}});
    }
    for (const BreakEven& b : r.break_evens) break_evens.push_back(break_even_json(b));
    return Json{{"scenario", r.scenario.name},
                {"profile", r.scenario.profile->name},
                {"version", version()},
                {"seed", r.scenario.routing.seed},
                {"legal_plans", s.num_legal},
                {"fitting_plans", s.num_fitting},
                {"not_priced", std::move(unpriced)},
                {"fastest", s.best.empty() ? Json() : candidate_json(s.best.front())},
                {"runner_up", r.runner_up ? candidate_json(*r.runner_up) : Json()},
                {"undecided", undecided(r)},
                {"variants", variants},
                {"other_choices", others},
                {"break_even", break_evens}}
               .dump(2) +
           "\n";
}

}  // namespace

int run_best(Args args) {
    const auto values = parse_options(args, best_help(), best_options());
    if (!values) return kDone;
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"table", "json"}, "--format");
    const int threads = whole_number(*values, "threads", 0, 1024);
    const int most = whole_number(*values, "top", 1, 10'000);
    const Scenario open = load_open_scenario(*values, "best");
    print_unused_keys(open);
    profile_of(open);
    Report report{.scenario = open, .searched_layouts = (*values)["layouts"].as<bool>()};
    resolve(report.scenario);
    SearchOptions search{.heads = heads_of(*values),
                         .layouts = report.searched_layouts,
                         .threads = threads > 0 ? threads : runtime::num_cores()};
    {
        Progress progress("search");
        search.progress = [&](std::size_t done, std::size_t total) {
            progress.update(done, total);
        };
        report.search = search_plans(report.scenario, search);
        if (report.search.best.empty() && !report.search.smallest &&
            !report.search.unpriced.empty())
            throw InputError(report.search.unpriced);
        report.runner_up = find_runner_up(report.search);
        if (!report.search.best.empty()) {
            report.others = alternatives(report.scenario, report.search.best.front());
        }
        if (!(*values)["no-break-even"].as<bool>() && !report.search.best.empty()) {
            // A search over layouts at every value would take hours.
            constexpr std::size_t kDuellists = 16;
            const std::vector<Candidate> chosen = search.layouts
                                                      ? duellists(report.search.best, kDuellists)
                                                      : std::vector<Candidate>{};
            for (const BreakEvenAxis axis :
                 {BreakEvenAxis::top_k, BreakEvenAxis::link, BreakEvenAxis::skew}) {
                if (search.layouts && chosen.empty()) break;
                report.break_evens.push_back(break_even(open, axis, search, chosen));
            }
        }
    }
    write_result(
        format == "json" ? to_json(report) : to_table(report, static_cast<std::size_t>(most)),
        optional_text(*values, "out"));
    return report.search.best.empty() ? kNegative : kDone;
}

}  // namespace headway::cli

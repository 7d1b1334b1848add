#include "cli/measured_timelines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "models/report/timeline_csv.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

void check(const std::string& file, const Timeline& timeline, const Scenario& scenario) {
    const auto refuse = [&](const std::string& found, const std::string& accepted,
                            const std::string& hint) {
        throw InputError({.where = file, .found = found, .accepted = accepted, .hint = hint});
    };
    if (timeline.scenario != scenario.name) {
        refuse(fmt::format("a run of scenario '{}'", timeline.scenario),
               fmt::format("one of scenario '{}'", scenario.name), "");
    }
    const bool has_layers =
        std::ranges::any_of(timeline.spans, [](const Span& span) { return span.layer >= 0; });
    if (!has_layers)
        refuse("a timeline of a whole step", "one of layers, as headway-run writes it",
               "headway verify --torch-trace compares steps");
    const Plan& plan = plan_of(scenario, timeline);
    int last = 0;
    for (const Span& span : timeline.spans) last = std::max(last, span.rank);
    const int ranks = timeline.size ? timeline.size->num_ranks : last + 1;
    if (ranks != plan.group_size) {
        refuse(fmt::format("a run of plan '{}' on {} ranks", plan.name, ranks),
               fmt::format("one on {}", plan.group_size), fmt::format("--ranks {}", ranks));
    }
    const auto tokens = scenario.batch.tokens_per_rank();
    if (timeline.size && timeline.size->tokens_per_rank != tokens) {
        refuse(fmt::format("a run of {} tokens a rank", timeline.size->tokens_per_rank),
               fmt::format("one of {}", tokens),
               fmt::format("--tokens {}", timeline.size->tokens_per_rank));
    }
}

}  // namespace

const Plan& plan_of(const Scenario& scenario, const Timeline& timeline) {
    for (const Plan& plan : scenario.plans) {
        if (plan.name == timeline.plan) return plan;
    }
    throw InputError({.where = "scenario " + scenario.name,
                      .found = "a measured timeline of plan '" + timeline.plan + "'",
                      .accepted = "plans of the scenario"});
}

std::vector<Timeline> read_measured(const std::vector<std::string>& files,
                                    const Scenario& scenario) {
    std::vector<Timeline> all;
    for (const std::string& file : files) {
        const std::size_t before = all.size();
        for (Timeline& t : read_timelines(std::filesystem::path(file))) {
            if (t.source != Source::measured || t.spans.empty()) continue;
            check(file, t, scenario);
            all.push_back(std::move(t));
        }
        if (all.size() > before) continue;
        throw InputError({.where = file,
                          .found = "no measured rows",
                          .accepted = "a Timeline that headway-run wrote"});
    }
    return all;
}

}  // namespace headway::cli
